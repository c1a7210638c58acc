"""`submitted.json`: every combination that a sweep was ever asked for, written before the first job begins."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aipo.jobs.record import JobFileError
from aipo.records import from_row, to_row

SUBMITTED = "submitted.json"
"""The file beside `jobs/`."""


@dataclass(frozen=True)
class Submission:
    """A job that was asked for: the name of its folder below `jobs/`, and the overrides that give it."""

    folder: str
    overrides: tuple[str, ...]
    slurm_id: str | None = None
    """`<job>` or `<array>_<task>` of its last submission to Slurm; None where it was run here."""
    log: str | None = None
    """What Slurm writes of it."""


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
