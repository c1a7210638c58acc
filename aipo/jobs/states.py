"""How every job of a sweep stands: by its own record and heartbeat, and by what the cluster says where one runs it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aipo.jobs.file import is_alive
from aipo.jobs.record import JobFileError, JobRecord, has_record, names_of_jobs, read_job
from aipo.jobs.slurm import SlurmState, slurm_states
from aipo.jobs.submissions import Submission, read_submitted

State = Literal[
    "running",
    "done",
    "failed",
    "interrupted",
    "requeued",
    "cancelled",
    "timed out",
    "given up",
    "pending",
    "lost",
    "not started",
    "unreadable",
]
"""A job's own status, or: `pending`: a cluster has it in its queue. `lost`: it says running, and its heart has stopped
or the cluster says that it ended. `not started`: asked for, and there is no record. `unreadable`: its record cannot be
read."""

UNFINISHED: tuple[State, ...] = ("running", "pending", "requeued")
"""States that will change by themselves."""


@dataclass(frozen=True)
class JobState:
    """How one job of a sweep stands."""

    folder: str
    overrides: tuple[str, ...]
    state: State
    record: JobRecord | None
    """None: it never began, or its file cannot be read."""
    why: str = ""
    """The reason, in one line; empty where there is nothing to say."""
    log: str | None = None
    """What the cluster wrote of it."""
    slurm_id: str | None = None
    has_folder: bool = True


def states(sweep: Path, ask: Callable[[Collection[str]], Mapping[str, SlurmState]] = slurm_states) -> list[JobState]:
    """Every job that was asked for or left a folder, in the order of asking. JobFileError where there is none, or
    where this user may not look.

    The cluster is asked once, and only about jobs whose own record does not settle it.
    """
    asked = {job.folder: job for job in read_submitted(sweep)}
    found = [name for name in names_of_jobs(sweep) if (sweep / "jobs" / name).is_dir()]
    names = list(dict.fromkeys([*asked, *found]))
    if not names:
        raise JobFileError(f"{sweep}: no jobs in it; expected the folder of a sweep, as results/<sweep>")
    jobs = [asked.get(name, Submission(name, ())) for name in names]
    open_ = [job for job in jobs if job.slurm_id and not _settled(sweep / "jobs" / job.folder, job)]
    slurm = ask([job.slurm_id for job in open_ if job.slurm_id]) if open_ else {}
    return [_state_of(sweep / "jobs" / job.folder, job, slurm.get(job.slurm_id or "")) for job in jobs]


def _settled(folder: Path, job: Submission) -> bool:
    """Whether the record alone says how the job stands."""
    try:
        record = read_job(folder)
    except JobFileError:
        return False
    return record.status in ("done", "given up") or (
        record.status in ("failed", "timed out") and record.scheduler_id == job.slurm_id
    )


def _state_of(folder: Path, job: Submission, slurm: SlurmState | None) -> JobState:
    record = problem = None
    if has_record(folder):
        try:
            record = read_job(folder)
        except JobFileError as error:
            problem = str(error)
    old = job.slurm_id is not None and record is not None and record.scheduler_id != job.slurm_id
    if record is None or (old and record.status != "done"):
        state, why = _not_begun(job, slurm)
        if problem is not None and state == "not started":
            state, why = "unreadable", problem
    else:
        state, why = _begun(folder, record, slurm)
    overrides = job.overrides or (record.overrides if record else ())
    return JobState(folder.name, overrides, state, record, why, job.log, job.slurm_id, folder.is_dir())


def _not_begun(job: Submission, slurm: SlurmState | None) -> tuple[State, str]:
    """A job without a record of this submission."""
    if slurm is None:
        return "not started", f"Slurm does not know its job {job.slurm_id} here" if job.slurm_id else ""
    said = f"{slurm.state} {slurm.reason}".strip()
    if not slurm.ended:
        return "pending", slurm.reason if slurm.waits else f"{said}: it has not begun"
    if slurm.state == "CANCELLED":
        return "cancelled", f"before it began: {said}"
    state: State = {"TIMEOUT": "timed out", "FAILED": "failed"}.get(slurm.state, "lost")  # type: ignore[assignment]
    return state, f"before its first stage: {said}; see {job.log}"


def _begun(folder: Path, record: JobRecord, slurm: SlurmState | None) -> tuple[State, str]:
    told = record.error.strip().splitlines()[-1] if record.error and record.error.strip() else ""
    if record.status in ("done", "failed", "timed out", "given up"):
        return record.status, told
    where = f"process {record.pid} on {record.host}"
    if slurm is not None and slurm.waits:
        return "requeued", f"stopped and queued again{f' ({slurm.reason})' if slurm.reason else ''}"
    if slurm is not None and slurm.ended:
        said = f"Slurm says {slurm.state} {slurm.reason}".strip()
        if slurm.state == "CANCELLED":
            return "cancelled", said
        if slurm.state == "TIMEOUT":
            return "timed out", said
        if record.status != "interrupted":
            return "lost", f"{where} ended without a word: {said}"
    if record.status != "running" or is_alive(folder):
        return record.status, told
    if slurm is not None and slurm.runs:
        return "running", f"{where} gave no sign of life for two minutes; Slurm says {slurm.state}"
    return "lost", f"{where} gave no sign of life for two minutes; the same command goes on from here"
