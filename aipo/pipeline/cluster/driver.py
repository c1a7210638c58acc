"""The process that submits a sweep: it leaves the jobs alone, or waits for them and tells what changes."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from aipo.jobs import SUBMITTED, UNFINISHED, JobState, Submission, read_submitted, states
from aipo.pipeline.cluster.executor import is_refusal
from aipo.pipeline.cluster.slurm import submit_jobs
from aipo.pipeline.cluster.snapshot import Asked
from aipo.pipeline.ends import EndsWhenTold, Terminated

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, GROWTH = 1.0, 30.0, 1.2
"""The cluster is asked once a pause, about all jobs."""


def run(sweep: Path, jobs: Sequence[Asked], launcher: Mapping[str, Any], *, detach: bool) -> int:
    """Submit the jobs and wait for them, or not. Returns the exit status: 0 when all is done, or was submitted.

    A job that is in the queue or runs already is not submitted a second time.
    """
    known = {job.folder: job for job in states(sweep)} if (sweep / SUBMITTED).exists() else {}
    busy = {name: job for name, job in known.items() if job.state in UNFINISHED}
    fresh = [job for job in jobs if Path(job.folder).name not in busy]
    for job in jobs:
        if (other := busy.get(Path(job.folder).name)) is not None:
            print(f"{other.folder}: not submitted, it is {other.state} as {other.slurm_id or 'a process'}")
    try:
        submitted = submit_jobs(sweep, fresh, launcher, analyse=detach) if fresh else []
    except Exception as error:
        if not is_refusal(error):
            raise
        print(refused(sweep, error), file=sys.stderr, flush=True)
        return 1
    for sent in submitted:
        print(f"{sent.slurm_id:<12} {sent.what:<34} {sent.log}")
    if detach:
        print(
            f"submitted; `aipo status {sweep}` says how they stand, `aipo analyse {sweep}` makes the tables", flush=True
        )
        return 0
    names = [Path(job.folder).name for job in jobs]
    waited = [job for job in read_submitted(sweep) if job.folder in names]
    numbers = {job.slurm_id for job in waited}
    unfinished = watch(sweep, waited, [sent.slurm_id for sent in submitted if sent.slurm_id not in numbers])
    analyse(sweep)
    return 1 if unfinished else 0


def refused(sweep: Path, error: Exception) -> str:
    """What to say where Slurm does not take jobs: no controller, a partition or limit that is not there."""
    return (
        f"error: Slurm does not take the jobs: {error}\n"
        f"What it took before stays in its queue (`aipo status {sweep}`); "
        "with the cause mended, the same command submits the rest."
    )


def analyse(sweep: Path) -> None:
    """The tables of what there is; nothing where no job has begun."""
    if any(sweep.glob("jobs/*/run.json")):
        from analysis.__main__ import analyse_sweep

        analyse_sweep(sweep)


def watch(sweep: Path, submitted: Sequence[Submission], others: Collection[str] = ()) -> int:
    """Wait until no job can change by itself any more. Returns how many are not done.

    `others`: Slurm jobs that make what several of them need.

    Ctrl-C and what else ends this process leave the jobs to the cluster; the user is told how to find them again.
    """
    folders = {job.folder for job in submitted}
    told: dict[str, tuple[object, ...]] = {}
    pause = FIRST_PAUSE_SECONDS
    try:
        with EndsWhenTold():
            while True:
                jobs = [job for job in states(sweep) if job.folder in folders]
                _tell(jobs, told)
                if not any(job.state in UNFINISHED for job in jobs):
                    break
                time.sleep(pause)
                pause = min(LONGEST_PAUSE_SECONDS, pause * GROWTH)
    except (KeyboardInterrupt, Terminated):
        now = [job for job in read_submitted(sweep) if job.folder in folders]  # some have gone on as others
        print(left_behind(sweep, now, others), file=sys.stderr, flush=True)
        raise
    unfinished = sum(job.state != "done" for job in jobs)
    if unfinished:
        print(f"{unfinished} of {len(jobs)} jobs are not done; `aipo rerun {sweep}` runs exactly those", flush=True)
    return unfinished


def left_behind(sweep: Path, submitted: Collection[Submission], others: Collection[str] = ()) -> str:
    """What goes on without this process, and how to see, end and tabulate it."""
    arrays = dict.fromkeys(number.partition("_")[0] for number in [*others, *(str(job.slurm_id) for job in submitted)])
    return (
        f"\nNo longer waiting. Slurm goes on with the {len(submitted)} jobs of {', '.join(arrays)}.\n"
        f"  aipo status {sweep}     how they stand\n"
        f"  aipo analyse {sweep}    the tables, now or when they are done\n"
        f"  scancel {' '.join(arrays)}     ends them"
    )


def _tell(jobs: Sequence[JobState], told: dict[str, tuple[object, ...]]) -> None:
    for job in jobs:
        rounds = job.record.rounds if job.record else 0
        now = (job.state, rounds if job.state in ("running", "done") else 0)
        if told.get(job.folder) != now and not (job.state == "pending" and job.folder not in told):
            why = f": {job.why}" if job.why and job.state != "done" else ""
            print(f"{job.folder:<32} {job.state}, {rounds} round(s){why}", flush=True)
        told[job.folder] = now
