"""Trackers: the JSONL record is complete, wandb works offline, and a failing tracker costs nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from aipo.jobs import JobRecord
from aipo.pipeline.trackers import Trackers, WandbTracker
from aipo.records import read_jsonl

RUN = JobRecord("aipo", 0, "miniature", "uf", True, (), {}, {}, "outputs")


class Broken:
    """Fails at its second call of log."""

    def __init__(self) -> None:
        self.calls = 0

    def start(self, folder, run) -> None:
        pass

    def log(self, kind, metrics) -> None:
        self.calls += 1
        if self.calls == 2:
            raise ConnectionError("no route to host")

    def finish(self) -> None:
        raise AssertionError("a tracker that failed is not called again")


def test_a_failing_tracker_is_switched_off_and_the_record_is_whole(tmp_path: Path, caplog) -> None:
    broken = Broken()
    trackers = Trackers([broken])
    trackers.start(tmp_path, RUN)
    with caplog.at_level(logging.WARNING, logger="aipo"):
        for step in range(4):
            trackers.log("train", {"iteration": 0, "step": step, "loss": 0.5})
        trackers.finish()
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3] and {row["kind"] for row in rows} == {"train"}
    assert broken.calls == 2
    assert [record.getMessage() for record in caplog.records] == ["Broken failed and is switched off: no route to host"]


def test_wandb_names_every_metric_of_a_benchmark(tmp_path: Path, monkeypatch) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.rows = []

        def log(self, numbers, step) -> None:
            self.rows.append((step, numbers))

    tracker = WandbTracker()
    tracker._run = Recorder()
    tracker.log("train", {"iteration": 1, "loss": 0.25, "stage": "train"})
    tracker.log("score", {"iteration": 1, "benchmark": "gold", "name": "gold_score", "value": 0.5, "ci95": None})
    assert tracker._run.rows == [
        (0, {"train/iteration": 1, "train/loss": 0.25}),
        (1, {"score/gold/gold_score": 0.5, "iteration": 1}),
    ]


def test_wandb_refuses_an_unknown_mode() -> None:
    with pytest.raises(ValueError, match="offline or online, got 'cloud'"):
        WandbTracker(mode="cloud")


@pytest.mark.slow
def test_wandb_offline_writes_a_run_without_network(tmp_path: Path) -> None:
    trackers = Trackers([WandbTracker()])
    trackers.start(tmp_path, RUN)
    trackers.log("train", {"iteration": 0, "step": 0, "loss": 0.5})
    trackers.finish()
    (run,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert run.stat().st_size > 0
