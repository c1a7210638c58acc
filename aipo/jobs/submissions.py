"""`submitted.json`: every combination that a sweep was ever asked for, written before the first job begins."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aipo.jobs.file import slurm_id as own_id
from aipo.jobs.record import JobFileError
from aipo.records import from_row, to_row

SUBMITTED = "submitted.json"
"""The file beside `jobs/`."""
SUCCESSOR = "successor.json"
"""A file in a job's folder: the Slurm job that it goes on as, and those that it was."""


@dataclass(frozen=True)
class Submission:
    """A job that was asked for: the name of its folder below `jobs/`, and the overrides that give it."""

    folder: str
    overrides: tuple[str, ...]
    slurm_id: str | None = None
    """`<job>` or `<array>_<task>` of its last submission to Slurm; None where it was run here."""
    log: str | None = None
    """What Slurm writes of it."""


@dataclass(frozen=True)
class Successor:
    """What a job goes on as."""

    parts: tuple[str, ...]
    """The Slurm jobs that it was before, each of which handed it on; the first was submitted with the sweep."""
    slurm_id: str
    log: str


def submit(sweep: Path, jobs: Sequence[Submission]) -> None:
    """Add jobs to those of the sweep; one that was asked for before keeps its place and takes the newer overrides."""
    known = {job.folder: job for job in _as_submitted(sweep)} | {job.folder: job for job in jobs}
    sweep.mkdir(parents=True, exist_ok=True)
    temporary = sweep / f"{SUBMITTED}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(to_row(list(known.values())), indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, sweep / SUBMITTED)


def hand_on(folder: Path, slurm_id: str, log: str, environment: Mapping[str, str] = os.environ) -> None:
    """Say in a job's folder that it goes on as another Slurm job, written by the one that it was until now."""
    mine = own_id(environment)
    found = _successor(folder)
    earlier = found.parts if found is not None and found.slurm_id == mine else ()
    temporary = folder / f"{SUCCESSOR}.{os.getpid()}.tmp"
    row = to_row(Successor((*earlier, str(mine)), slurm_id, log))
    temporary.write_text(json.dumps(row), encoding="utf-8")
    os.replace(temporary, folder / SUCCESSOR)


def was_handed_on(folder: Path, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this Slurm job has handed a job on before: it was queued again all the same, and has nothing to do."""
    found = _successor(folder)
    return found is not None and own_id(environment) in found.parts


def successor(folder: Path) -> str | None:
    """The Slurm job that a job was last handed on to; None: it never was."""
    found = _successor(folder)
    return found.slurm_id if found is not None else None


def read_submitted(sweep: Path) -> list[Submission]:
    """Every job that was asked for, under the number that it has by now; none where the sweep keeps no such file.

    JobFileError for a torn one.
    """
    return [_by_now(sweep, job) for job in _as_submitted(sweep)]


def _by_now(sweep: Path, job: Submission) -> Submission:
    found = _successor(sweep / "jobs" / job.folder) if job.slurm_id is not None else None
    if found is None or found.parts[0] != job.slurm_id:
        return job
    return replace(job, slurm_id=found.slurm_id, log=found.log)


def _successor(folder: Path) -> Successor | None:
    path = folder / SUCCESSOR
    try:
        return from_row(Successor, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise JobFileError(f"{path} cannot be read: {error}; remove it, and run the job again") from error


def _as_submitted(sweep: Path) -> list[Submission]:
    path = sweep / SUBMITTED
    try:
        return [from_row(Submission, row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise JobFileError(f"{path} cannot be read: {error}; move it away, the jobs' own folders stay") from error
