"""`run.json`: what the pipeline writes is what readers get, and a dead job never looks alive."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from aipo.jobs import (
    DEAD_AFTER_SECONDS,
    HEARTBEAT,
    SCHEMA,
    BenchmarkRecord,
    JobFile,
    JobFileError,
    JobRecord,
    Point,
    ScoreRecord,
    is_alive,
    read_job,
    store_of,
)

RECORD = JobRecord(
    objective="aipo",
    seed=3,
    model="miniature",
    data="pairrm_gen_uf",
    needs_world=True,
    overrides=("objective=aipo",),
    choices={"model": "miniature"},
    settings={"model": {"seed": 0}, "trainer": {"learning_rate": 3e-4, "betas": [0.9, 0.999]}},
    store="outputs",
    benchmarks=(BenchmarkRecord("gold", "gold_score", "mean_tokens", False),),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = JobFile(tmp_path, RECORD)
    base = Point(-1, "b", (ScoreRecord("gold", "gold", False, "s0"),))
    first = Point(0, "t0", (), ranking="r", pairs="p", reference="f", train="t0")
    for point in (base, first):
        file.add(point)
    assert read_job(tmp_path) == file.record
    assert (file.record.points, file.record.status, file.record.pid) == ((base, first), "running", os.getpid())
    file.finish("failed", "out of memory")
    record = read_job(tmp_path)
    assert (record.status, record.error) == ("failed", "out of memory") and record.ended
    assert replace(record, status="running", error=None, ended=None) == replace(file.record, **{
        "status": "running", "error": None, "ended": None,
    })  # fmt: skip


def _points(n: int, kind: str) -> list[Point]:
    return [Point(number, f"{kind}{number}", ()) for number in range(-1, n)]


def test_what_a_job_had_reached_stays_until_it_has_come_as_far_again(tmp_path: Path) -> None:
    """A store that could not be written emptied the record of a finished job, and the sweep's tables with it."""
    record = replace(RECORD, settings={"betas": [0.9, 0.999]}, provenance={"commit": "before"})
    done = JobFile(tmp_path, record)
    for point in _points(2, "old"):
        done.add(point)
    done.finish("done")
    again = JobFile(tmp_path, replace(record, store="elsewhere", provenance={"commit": "now"}))
    for number, point in enumerate(_points(1, "new")):
        kept = read_job(tmp_path)
        assert list(kept.points) == _points(2, "old") and kept.status == "running"
        assert (kept.store, kept.provenance) == ("outputs", {"commit": "before"})
        assert kept.rounds == kept.rounds_again == max(0, number - 1)
        again.add(point)
    again.finish("failed", "StoreError: no")
    failed = read_job(tmp_path)
    assert (failed.status, failed.error, failed.rounds) == ("failed", "StoreError: no", 1)
    assert list(failed.points) == _points(2, "old")
    third = JobFile(tmp_path, replace(record, store="elsewhere"))
    for point in _points(2, "third"):
        third.add(point)
    assert read_job(tmp_path) == third.record and third.record.rounds == 2
    assert read_job(tmp_path).store == "elsewhere" and read_job(tmp_path).rounds_again is None


def test_what_another_job_reached_does_not_stay(tmp_path: Path) -> None:
    JobFile(tmp_path, RECORD).add(Point(-1, "b", ()))
    JobFile(tmp_path, replace(RECORD, settings={"model": {"seed": 1}}))
    assert read_job(tmp_path).points == ()


def test_only_a_beating_heart_is_alive(tmp_path: Path) -> None:
    with JobFile(tmp_path, RECORD):
        assert is_alive(tmp_path)
        long_ago = time.time() - DEAD_AFTER_SECONDS - 1
        os.utime(tmp_path / HEARTBEAT, (long_ago, long_ago))  # as a killed process leaves it
        assert not is_alive(tmp_path)
    assert not (tmp_path / HEARTBEAT).exists() and not is_alive(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "no such file; expected a job's folder"),
        ("{", "cannot be read"),
        ("[]", f"expected schema {SCHEMA}, got list"),
        ('{"schema": 1}', f"expected schema {SCHEMA}, got 1"),
        (json.dumps({"schema": SCHEMA, "seed": 0}), "missing field"),
    ],
)
def test_an_unreadable_record_says_what_to_do(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(JobFileError) as caught:
        read_job(tmp_path)
    assert told in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_relative_store_is_the_one_beside_the_results_wherever_it_is_asked_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "here" / "results" / "s" / "jobs" / "aipo"
    for folder in (job, tmp_path / "here" / "outputs", tmp_path / "there" / "outputs"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "there")
    assert store_of(job, RECORD) == (tmp_path / "here" / "outputs").resolve()
    monkeypatch.chdir(tmp_path / "here")
    assert store_of(Path("results/s/jobs/aipo"), RECORD) == Path("outputs")
    assert store_of(job, replace(RECORD, store=str(tmp_path / "there"))) == tmp_path / "there"
    apart = tmp_path / "apart" / "jobs" / "aipo"  # results that lie elsewhere: the store is sought from here
    apart.mkdir(parents=True)
    assert store_of(apart, RECORD) == Path("outputs")
