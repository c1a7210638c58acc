"""Trackers: the JSONL record is complete, wandb works offline, and a failing tracker costs nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from aipo.jobs import JobRecord
from aipo.pipeline.trackers import Round, Trackers, WandbTracker
from aipo.pipeline.trackers.tracker import run_id, step_row, sweep_of
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

    def round(self, reached) -> None:
        raise AssertionError("a tracker that failed is not called again")

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


def test_wandb_refuses_an_unknown_mode() -> None:
    with pytest.raises(ValueError, match="offline or online, got 'cloud'"):
        WandbTracker(mode="cloud")


def test_names_of_a_row_and_of_a_run(tmp_path: Path) -> None:
    assert step_row({"iteration": 1, "step": 3, "loss": 0.25, "stage": "train"}) == {
        "train/round": 2,
        "train/step": 3,
        "train/loss": 0.25,
    }
    reached = Round(2, {"score/gold/gold_score": 0.5}, {"train": "ab"}, ())
    assert reached.row == {"round": 2, "score/gold/gold_score": 0.5, "fingerprint/train": "ab"}
    folder = tmp_path / "my sweep" / "jobs" / "aipo-seed0-92e0f60d"
    assert run_id(folder) == "my-sweep--aipo-seed0-92e0f60d" and sweep_of(folder) == "my sweep"


def test_a_round_is_read_only_for_a_tracker_that_wants_it(tmp_path: Path, caplog) -> None:
    def unreadable() -> Round:
        raise FileNotFoundError("scores/ab: no such file")

    alone, beside = Trackers([]), Trackers([Broken()])
    alone.round(unreadable)
    with caplog.at_level(logging.WARNING, logger="aipo"):
        beside.round(unreadable)
    assert [record.getMessage() for record in caplog.records] == [
        "no tracker is told of this round: scores/ab: no such file"
    ]
