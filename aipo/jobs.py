"""`run.json`: what one job of a sweep was, how far it came, and which artifacts it reached.

Written by the pipeline after every point, read by the analysis, the model card and whoever wants to know how a sweep
stands. The dataclasses below are its schema: what one side writes, the other reads, by the same code. No torch here.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from aipo.records import from_row, to_row
from aipo.remote.redaction import redacted

SCHEMA = 2
"""Raised with every change of the fields below."""
FILE = "run.json"
BASE_ITERATION = -1
"""The iteration number of the model that no objective has trained yet."""
HEARTBEAT = "heartbeat"
"""A file beside `run.json` whose time is renewed while the job lives."""
HEARTBEAT_SECONDS = 15.0
DEAD_AFTER_SECONDS = 120.0

SUBMITTED = "submitted.json"
"""A file beside `jobs/`: every combination that was ever asked for, written before the first job begins."""

Status = Literal["running", "done", "failed", "interrupted"]
State = Literal["running", "done", "failed", "interrupted", "lost", "not started", "unreadable"]
"""`lost`: it says running, and its heart has stopped. `not started`: asked for, and there is no record."""


class JobFileError(ValueError):
    """A `run.json` cannot be read; the message names the file, what is wrong with it, and the remedy."""


@dataclass(frozen=True)
class BenchmarkRecord:
    """A benchmark of the job, and how its scores are shown."""

    name: str
    primary_metric: str
    """The metric its tables and plots show."""
    length_metric: str
    """The metric that gives the mean length of its answers."""
    official: bool
    """Asked the benchmark's own questions; False for the miniature's and for files that differ."""


@dataclass(frozen=True)
class ScoreRecord:
    """One judge's scores of one benchmark."""

    benchmark: str
    judge: str
    """The judge's name; of a diagnostic judge, its name in the config."""
    diagnostic: bool
    fingerprint: str


@dataclass(frozen=True)
class ProxyRecord:
    """The ranker's scores of the answers to one benchmark, where it gives scores that can be compared."""

    benchmark: str
    fingerprint: str


@dataclass(frozen=True)
class Point:
    """A policy of a job: the base model (iteration -1) or what an iteration made of it. Values are fingerprints."""

    iteration: int
    policy: str
    scores: tuple[ScoreRecord, ...]
    ranking: str | None = None
    """Of the candidates that this iteration's policy was trained on; so are `pairs` and `reference`."""
    pairs: str | None = None
    reference: str | None = None
    train: str | None = None
    kl: str | None = None
    """How far this policy is from the base model and from the policy before, where that was measured."""
    proxies: tuple[ProxyRecord, ...] = ()


@dataclass(frozen=True)
class JobRecord:
    """The content of `run.json`."""

    objective: str
    seed: int
    model: str
    """The option chosen in conf/model; so is `data` in conf/data."""
    data: str
    needs_world: bool
    """The job lives in the miniature: its prompts come from the toy world."""
    overrides: tuple[str, ...]
    """As on the command line."""
    choices: Mapping[str, str]
    """The option chosen in every config group."""
    settings: Mapping[str, Any]
    """All that shapes the job's numbers: the composed config without operational settings."""
    store: str
    benchmarks: tuple[BenchmarkRecord, ...] = ()
    points: tuple[Point, ...] = ()
    status: Status = "running"
    error: str | None = None
    started: str = ""
    """UTC; so is `ended`."""
    ended: str | None = None
    host: str = ""
    pid: int = 0
    schema: int = SCHEMA


class JobFile:
    """Keeps `run.json` up to date while its job runs, whole after every change, and its heartbeat alive.

    As a context manager it renews the heartbeat, so that a reader can tell a running job from one that was killed.
    """

    def __init__(self, folder: Path, record: JobRecord) -> None:
        self.folder = folder
        self.record = replace(record, started=_now(), host=socket.gethostname(), pid=os.getpid())
        self._ended = threading.Event()
        self._write()

    def add(self, point: Point) -> None:
        """A policy was evaluated."""
        self.record = replace(self.record, points=(*self.record.points, point))
        self._write()

    def finish(self, status: Status, error: str | None = None) -> None:
        """The job ended."""
        self.record = replace(self.record, status=status, error=error, ended=_now())
        self._write()

    def _write(self) -> None:
        path = self.folder / FILE
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(redacted(to_row(self.record)), indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, path)

    def __enter__(self) -> JobFile:
        beat = self.folder / HEARTBEAT
        beat.touch()

        def keep_alive() -> None:
            while not self._ended.wait(HEARTBEAT_SECONDS):
                try:
                    beat.touch()
                except OSError:  # a full or vanished disk stops the job where it writes, not here
                    pass

        threading.Thread(target=keep_alive, daemon=True, name="heartbeat").start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        (self.folder / HEARTBEAT).unlink(missing_ok=True)


def read_job(folder: Path) -> JobRecord:
    """The record in a job's folder. Raises JobFileError for a missing, torn or foreign file."""
    path = folder / FILE
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise JobFileError(f"{path}: no such file; expected a job's folder, as results/<sweep>/jobs/<job>") from error
    except (OSError, ValueError) as error:
        raise JobFileError(f"{path} cannot be read: {error}; run the same command again, which writes it") from error
    if not isinstance(row, dict) or row.get("schema") != SCHEMA:
        found = row.get("schema") if isinstance(row, dict) else type(row).__name__
        raise JobFileError(
            f"{path}: expected schema {SCHEMA}, got {found}; written by another version: run the same command again, "
            "which writes it anew from the artifacts that are there"
        )
    try:
        record = from_row(JobRecord, row)
    except (ValueError, TypeError, AttributeError) as error:
        raise JobFileError(f"{path}: {error}; run the same command again, which writes it anew") from error
    if record.status not in get_args(Status):
        raise JobFileError(f"{path}: status must be one of {', '.join(get_args(Status))}, got {record.status!r}")
    return replace(record, points=tuple(sorted(record.points, key=lambda point: point.iteration)))


@dataclass(frozen=True)
class Submission:
    """A job that was asked for: the name of its folder below `jobs/`, and the overrides that give it."""

    folder: str
    overrides: tuple[str, ...]


def submit(sweep: Path, jobs: Sequence[Submission]) -> None:
    """Add jobs to those of the sweep; one that was asked for before keeps its place and takes the newer overrides."""
    known = {job.folder: job for job in read_submitted(sweep)} | {job.folder: job for job in jobs}
    sweep.mkdir(parents=True, exist_ok=True)
    temporary = sweep / f"{SUBMITTED}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(to_row(list(known.values())), indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, sweep / SUBMITTED)


def read_submitted(sweep: Path) -> list[Submission]:
    """Every job that was asked for; none where the sweep keeps no such file. JobFileError for a torn one."""
    path = sweep / SUBMITTED
    try:
        return [from_row(Submission, row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise JobFileError(f"{path} cannot be read: {error}; move it away, the jobs' own folders stay") from error


@dataclass(frozen=True)
class JobState:
    """How one job of a sweep stands."""

    folder: str
    overrides: tuple[str, ...]
    state: State
    record: JobRecord | None
    problem: str | None = None
    """Why there is no record, where its file cannot be read."""


def states(sweep: Path) -> list[JobState]:
    """Every job that was asked for or left a folder, in the order of asking. JobFileError where there is none."""
    asked = {job.folder: job.overrides for job in read_submitted(sweep)}
    found = sorted(path.name for path in (sweep / "jobs").glob("*/") if path.is_dir())
    names = list(dict.fromkeys([*asked, *found]))
    if not names:
        raise JobFileError(f"{sweep}: no jobs in it; expected the folder of a sweep, as results/<sweep>")
    return [_state_of(sweep / "jobs" / name, asked.get(name, ())) for name in names]


def _state_of(folder: Path, overrides: tuple[str, ...]) -> JobState:
    if not (folder / FILE).exists():
        return JobState(folder.name, overrides, "not started", None)
    try:
        record = read_job(folder)
    except JobFileError as error:
        return JobState(folder.name, overrides, "unreadable", None, str(error))
    state: State = record.status
    if state == "running" and not is_alive(folder):
        state = "lost"
    return JobState(folder.name, overrides or record.overrides, state, record)


def is_alive(folder: Path) -> bool:
    """Whether a job that says `running` still does: its heartbeat was renewed within the last two minutes."""
    try:
        age = time.time() - (folder / HEARTBEAT).stat().st_mtime
    except OSError:
        return False
    return age < DEAD_AFTER_SECONDS


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
