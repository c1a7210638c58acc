"""`run.json`: what one job of a sweep was, how far it came, and which artifacts it reached.

Written by the pipeline after every point (`aipo.jobs.file`), read by the analysis, the model card and whoever wants to
know how a sweep stands (`aipo.jobs.states`). The dataclasses below are its schema: what one side writes, the other
reads, by the same code. No torch here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from aipo.records import from_row

SCHEMA = 2
"""Raised with every change of the fields below that a record of before does not survive: new ones have a default."""
FILE = "run.json"
BASE_ITERATION = -1
"""The iteration number of the model that no objective has trained yet."""

Status = Literal["running", "done", "failed", "interrupted", "requeued", "cancelled", "timed out", "given up"]
"""What a job says of itself. `requeued`: a cluster stopped it, and has it in its queue again. `interrupted`: told to
end by somebody else. `timed out`: stopped at its limit, and not queued again. `given up`: by a search that saw
no use in the rest."""


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
    """As the setting says it; `store_of` tells the folder."""
    benchmarks: tuple[BenchmarkRecord, ...] = ()
    points: tuple[Point, ...] = ()
    status: Status = "running"
    error: str | None = None
    started: str = ""
    """UTC; so is `ended`."""
    ended: str | None = None
    host: str = ""
    pid: int = 0
    scheduler_id: str | None = None
    """The cluster's number of this job; None: no cluster runs it."""
    restarts: int = 0
    """How often the cluster had queued it again before this start."""
    provenance: Mapping[str, Any] | None = None
    """Machine, devices, packages, commit and changes as the job started; None in records of before."""
    rounds_again: int | None = None
    """Rounds that this start came to, while `points`, `store` and `provenance` are still those of an earlier start that
    had come further; None: they are its own."""
    schema: int = SCHEMA

    @property
    def rounds(self) -> int:
        """Rounds that the job's last start has come to."""
        own = sum(point.iteration > BASE_ITERATION for point in self.points)
        return own if self.rounds_again is None else self.rounds_again


def read_job(folder: Path) -> JobRecord:
    """The record in a job's folder. Raises JobFileError for a missing, torn or foreign file."""
    path = folder / FILE
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
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


def has_record(folder: Path) -> bool:
    """Whether a job's folder has a record, as must be supposed of one that this user may not look into."""
    try:
        (folder / FILE).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def names_of_jobs(sweep: Path) -> list[str]:
    """What lies in a sweep's `jobs/`, sorted; JobFileError where this user may not look."""
    try:
        return sorted(os.listdir(sweep / "jobs"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise JobFileError(f"{sweep / 'jobs'} cannot be read: {error.strerror}; mend the folder's rights") from error


def job_folders(sweep: Path) -> list[Path]:
    """The folders of all jobs with a record, also of those whose record cannot be read. JobFileError as above."""
    return [folder for name in names_of_jobs(sweep) if has_record(folder := sweep / "jobs" / name)]


def store_of(folder: Path, record: JobRecord) -> Path:
    """Where the artifacts of the job in `folder` lie.

    A relative store was meant from the folder that the job was started in. By default the results lie in that folder
    too, so the nearest folder above the job's that holds such a store is the one; where none does, it is sought from
    here. So results with their store beside them are read from any folder alike.
    """
    written = Path(record.store)
    if written.is_absolute():
        return written
    above = (place / written for place in folder.resolve().parents)
    found = next((store for store in above if store.is_dir()), written)
    return written if found == written.resolve() else found  # a message is easier to read with the short one
