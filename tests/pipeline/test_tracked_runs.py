"""A tracked job that is killed and goes on: one run id, one row per round, read back from what each tracker wrote."""

from __future__ import annotations

import importlib.util
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
ROUNDS = 4
JOB = """
import os, signal, sys, time
from pathlib import Path
from aipo.jobs import BenchmarkRecord, JobRecord
from aipo.pipeline import trackers

kind, folder, die_after = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
settings = {"trainer": {"lr": 0.01}, "judge": {"headers": "Authorization: Bearer " + "s3cr3t" * 4}}
record = JobRecord("aipo", 0, "miniature", "pool", True, ("seed=0",), {"model": "miniature"}, settings, "outputs",
                   (BenchmarkRecord("gold", "gold_score", "mean_tokens", False),))
tracker = trackers.Trackers([getattr(trackers, kind)()])
tracker.start(folder, record)
for number in range(4):
    for step in range(1, 4):
        tracker.log("train", {"iteration": number - 1, "step": step, "loss": 1 / step} if number else {"iteration": -1})
    numbers = {"score/gold/gold_score": number / 10, "score/gold/mean_tokens": 20.0 + number}
    samples = (trackers.Sample("gold", "q0", f"<b>answer</b> of round {number}", 4, 0.5),)
    tracker.round(lambda: trackers.Round(number, numbers, {"train": f"ab{number}"}, samples))
    if number == die_after:
        time.sleep(2)  # what was logged reaches the disk
        os.kill(os.getpid(), signal.SIGKILL)
tracker.finish()
"""


def killed_and_gone_on(kind: str, folder: Path, environment: dict[str, str] | None = None) -> None:
    folder.mkdir(parents=True)
    for die_after, expected in ((1, -signal.SIGKILL), (-1, 0)):
        done = subprocess.run(
            [sys.executable, "-c", JOB, kind, str(folder), str(die_after)],
            env={**os.environ, "HF_HUB_OFFLINE": "1", **(environment or {})},
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == expected, done.stderr
        assert "switched off" not in done.stderr, done.stderr


def records(path: Path) -> Iterator[Any]:
    """The records of an offline file: LevelDB's log format after seven bytes of W&B's own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def test_wandb_offline(tmp_path: Path) -> None:
    folder = tmp_path / "my_sweep" / "jobs" / "aipo-seed0-1"
    killed_and_gone_on("WandbTracker", folder)
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found = list(records(path))
    (run,) = [record.run for record in found if record.HasField("run")][:1]
    assert (run.run_id, run.run_group) == ("my_sweep--aipo-seed0-1", "my_sweep")
    rows = [
        {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    rounds = [row for row in rows if "round" in row]
    assert [row["round"] for row in rounds] == ["0", "1", "2", "3"]
    assert [float(row["score/gold/gold_score"]) for row in rounds] == [0.0, 0.1, 0.2, 0.3]
    assert rounds[2]["fingerprint/train"] == '"ab2"' and sum("train/loss" in row for row in rows) == 9
    defined = {record.metric.glob_name: record.metric.step_metric for record in found if record.HasField("metric")}
    assert defined["score/*"] == "round" and defined["train/*"] == "train/total_step"
    config = {item.key: item.value_json for item in run.config.update}
    assert config["objective"] == '"aipo"' and "lr" in config["settings"]
    written = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert b"s3cr3t" not in written
    assert len(list(folder.rglob("*samples*.table.json"))) == ROUNDS


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="needs the extra trackio")
def test_trackio(tmp_path: Path) -> None:
    import sqlite3

    folder, kept = tmp_path / "my_sweep" / "jobs" / "aipo-seed0-1", tmp_path / "kept"
    killed_and_gone_on("TrackioTracker", folder, {"TRACKIO_DIR": str(kept)})
    with sqlite3.connect(kept / "aipo.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert {name for name, _, _ in rows} == {"my_sweep--aipo-seed0-1"}
    assert [step for _, step, _ in rows] == list(range(4 * ROUNDS))
    assert [step for _, step, metrics in rows if b'"round"' in metrics] == [3, 7, 11, 15]
    assert b"s3cr3t" not in (kept / "aipo.db").read_bytes()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs the extra tensorboard")
def test_tensorboard(tmp_path: Path) -> None:
    folder = tmp_path / "my_sweep" / "jobs" / "aipo-seed0-1"
    killed_and_gone_on("TensorBoardTracker", folder)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [(event.step, round(event.value, 4)) for event in read.Scalars("score/gold/gold_score")] == [
        (0, 0.0),
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
    ]
    assert len(read.Scalars("train/loss")) == 9
    assert "samples/gold/q0/text_summary" in read.Tags()["tensors"]
