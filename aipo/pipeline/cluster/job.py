"""What Slurm runs: one job of a sweep from its submission's folder, stopped and queued again as a cluster does it.

submitit pickles these objects and calls them on the node. Its signals are SIGUSR2, the warning before a time limit or a
preemption, and SIGTERM, which some clusters send instead and which also comes when a job is cancelled. Either way the
job first puts its affairs in order: training saves at the next step, stages hand their unfinished work over, `run.json`
says what happened. Then it is queued again by submitit's own handler, which counts time-outs.
"""

from __future__ import annotations

import logging.config
import os
import re
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from aipo.jobs import UNFINISHED, ask, hand_on, mark, read_job, states, successor, was_handed_on
from aipo.jobs import slurm_id as job_id
from aipo.pipeline.cluster.executor import submit_one, with_resources
from aipo.pipeline.cluster.parts import WHOLE, Part, resources_of
from aipo.pipeline.cluster.snapshot import Asked, read_asked, read_launcher
from aipo.pipeline.console import ALONE, Place
from aipo.pipeline.ends import HandedOn, Terminated, postponed
from aipo.planning.resources import Kind

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

Case = Literal["queue again", "queued again", "cancelled", "interrupted"]
"""What a signal means: this process has the job queued again, Slurm has done so, somebody cancelled it, none of it."""


SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
ANALYSIS_MINUTES = 60
LIKE_THE_JOBS = ("partition", "account", "qos", "constraint", "comment", "exclude", "setup")
"""What the analysis, a small job, has in common with the others."""


class SweepJob:
    """One job, or a part of one. It begins anew when it is queued again, and finds what it had finished."""

    def __call__(self, file: Path, part: Part = WHOLE) -> None:
        """Run the job whose submission is kept in `file`. An exception fails the Slurm job."""
        warning = ClusterSignals()
        asked = read_asked(file)
        folder = Path(asked.folder)
        if was_handed_on(folder):  # and queued again before it had ended
            return
        try:
            try:
                run_asked(asked, part=part)
            except HandedOn as handed:
                if handed.kind is not None:
                    with warning.held():
                        self._go_on(file, asked, handed.kind)
                    warning.follow(folder)
        except Terminated as ended:
            warning.answer(folder, ended)

    def checkpoint(self, file: Path, part: Part = WHOLE) -> DelayedSubmission:
        """What submitit has run after a warning: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, file, part)

    def _go_on(self, file: Path, asked: Asked, kind: Kind) -> None:
        """Submit the next part of the job, with the resources for stages of a kind."""
        folder, kept = Path(asked.folder), file.parents[1]
        try:
            launcher = with_resources(read_launcher(kept), resources_of(asked).settings(kind))
            slurm_id, log = submit_one(kept, launcher, self, file, Part(kind))
        except Exception as error:
            mark(folder, "interrupted", f"its next part, {kind}, could not be submitted: {error}")
            raise
        hand_on(folder, slurm_id, log)
        if read_job(folder).scheduler_id == job_id():  # else the next part has begun
            mark(folder, "requeued", f"goes on as Slurm job {slurm_id}, for {kind}")


def run_asked(
    asked: Asked,
    watch: Callable[[int, float | None], None] = lambda iteration, value: None,
    place: Place = ALONE,
    part: Part = WHOLE,
) -> float | None:
    """Run a job as it was asked for, or a part of it, in this process, with the log in its folder.

    As `loop.run_checked`, for its config was checked when it was asked for. Raises HandedOn where the rest of the job
    is for another part.
    """
    from aipo.pipeline.loop import run_checked
    from aipo.remote.redaction import redact_logs

    folder = Path(asked.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if asked.logging is not None:
        logging.config.dictConfig(dict(asked.logging))
    redact_logs()
    return run_checked(
        part.config(asked),
        folder,
        asked.overrides,
        asked.choices,
        place,
        part.watching(asked, watch),
        part.gate(resources_of(asked)),
        part.nodes(asked),
    )


class SweepAnalysis:
    """The tables, plots and page of a sweep; submitted to run after its jobs, however they end."""

    def __call__(self, sweep: Path, kept: Path, waited: Collection[str]) -> int:
        """Returns the analysis's exit code: 3 where jobs are missing.

        Jobs that go on as others than those that were waited for are waited for once more, in the queue.
        """
        from analysis.__main__ import analyse_sweep

        now = [job.slurm_id for job in states(sweep) if job.state in UNFINISHED and job.slurm_id is not None]
        if set(now) - set(waited):
            submit_analysis(sweep, kept, now)
            return 0
        return analyse_sweep(sweep)


def submit_analysis(sweep: Path, kept: Path, waited: Collection[str]) -> tuple[str, str]:
    """Submit the tables of a sweep, to be made after those jobs. Returns number and log."""
    launcher = read_launcher(kept)
    small = {key: launcher[key] for key in LIKE_THE_JOBS if launcher.get(key) is not None}
    small |= {"timeout_min": ANALYSIS_MINUTES, "name": "analysis", "stderr_to_stdout": True}
    arrays = dict.fromkeys(number.partition("_")[0] for number in waited)
    small["dependency"] = f"afterany:{':'.join(arrays)}"
    return submit_one(kept, small, SweepAnalysis(), sweep, kept.absolute(), tuple(waited))


class ClusterSignals:
    """Answers the first of a cluster's signals with `Terminated`, and no further one."""

    def __init__(self) -> None:
        self._requeue: Any = signal.getsignal(signal.SIGUSR2)  # submitit's own handler
        self._case: Case | None = None
        self._holds = False
        self._came: int | None = None
        for number in SIGNALS:
            signal.signal(number, self._raise)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Meanwhile no signal breaks off what is being submitted: neither here, nor `sbatch`, which all of them reach.

        One that came is answered at the end where the submission failed, as it may be why; else `follow` answers it.
        """
        self._holds = True
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        failed = True
        try:
            yield
            failed = False
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._holds = False
            if failed and self._came is not None:
                self._raise(self._came, None)

    def follow(self, folder: Path) -> None:
        """After the job was handed on: whoever cancelled this part of it meant the job, so the next one is, too."""
        if self._came is None or meaning(self._came)[0] != "cancelled":
            return
        if (slurm_id := successor(folder)) is not None:
            ask("scancel", slurm_id)
        self._raise(self._came, None)

    def answer(self, folder: Path, ended: Terminated) -> None:
        """The job has put its affairs in order: have it queued again if that is what the signal meant, and exit."""
        if self._case == "queue again" and callable(self._requeue):
            try:
                self._requeue(signal.SIGUSR2, None)  # exits
            except Exception as error:
                mark(folder, "timed out" if "timed-out" in str(error) else "interrupted", str(error))
                raise
        if self._case == "queued again":
            os._exit(0)  # Slurm ends what is left of this start by force
        raise ended

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self._holds:
            self._came = number
            return
        if self._case is not None or postponed(number, frame):
            return
        self._case, why = meaning(number)
        if self._case in ("queue again", "queued again"):
            raise Terminated(number, "requeued", why)
        raise Terminated(number, "cancelled" if self._case == "cancelled" else "interrupted", why)


def meaning(
    number: int, show: Callable[..., str | None] = ask, environment: Mapping[str, str] = os.environ
) -> tuple[Case, str]:
    """What a signal that came to this Slurm job means, and why, by what `scontrol` says of the job now.

    While its processes are being ended Slurm calls a job COMPLETING, whatever ends it. A requeue has by then raised its
    count of restarts, a time-out has reached its limit, and what is left was cancelled.
    """
    again: tuple[Case, str] = "queue again", "the cluster stops it; it goes on from here"
    if number == signal.SIGUSR2:
        return again
    told = dict(re.findall(r"(\w+)=(\S*)", show("scontrol", "show", "job", "-o", job_id(environment) or "0") or ""))
    state = told.get("JobState")
    if state == "PENDING" or int(told.get("Restarts", 0)) > int(environment.get("SLURM_RESTART_COUNT") or 0):
        return "queued again", "the cluster has queued it again"
    limit = _seconds(told.get("TimeLimit", ""))
    if state == "TIMEOUT" or (state == "COMPLETING" and limit and (_seconds(told.get("RunTime", "")) or 0) >= limit):
        return again
    if state in ("CANCELLED", "COMPLETING"):
        return "cancelled", "the Slurm job was cancelled"
    if told.get("PreemptTime", "None") not in ("None", "Unknown"):
        return again
    return "interrupted", ""


def _seconds(text: str) -> int | None:
    """`[days-]hours:minutes:seconds` as seconds; None for UNLIMITED and the like."""
    if not (found := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)):
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
