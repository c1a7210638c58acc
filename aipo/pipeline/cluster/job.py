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
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from aipo.jobs import ask, mark, slurm_id
from aipo.pipeline.cluster.snapshot import Asked, read_asked
from aipo.pipeline.console import ALONE, Place
from aipo.pipeline.ends import Terminated

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

Case = Literal["queue again", "queued again", "cancelled", "interrupted"]
"""What a signal means: this process has the job queued again, Slurm has done so, somebody cancelled it, none of it."""


class SweepJob:
    """One job. It begins anew when it is queued again, and finds what it had finished."""

    def __call__(self, file: Path) -> None:
        """Run the job whose submission is kept in `file`. An exception fails the Slurm job."""
        warning = ClusterSignals()
        asked = read_asked(file)
        try:
            run_asked(asked)
        except Terminated as ended:
            warning.answer(Path(asked.folder), ended)

    def checkpoint(self, file: Path) -> DelayedSubmission:
        """What submitit has run after a warning: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, file)


def run_asked(
    asked: Asked,
    watch: Callable[[int, float | None], None] = lambda iteration, value: None,
    place: Place = ALONE,
) -> float | None:
    """Run a job as it was asked for, in this process, with the log in its folder. As `loop.run`."""
    from omegaconf import OmegaConf

    from aipo.pipeline.loop import run
    from aipo.remote.redaction import redact_logs

    folder = Path(asked.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if asked.logging is not None:
        logging.config.dictConfig(dict(asked.logging))
    redact_logs()
    return run(OmegaConf.create(_literal(asked.config)), folder, asked.overrides, asked.choices, place, watch)


class SweepAnalysis:
    """The tables, plots and page of a sweep; submitted to run after its jobs, however they end."""

    def __call__(self, sweep: Path) -> int:
        """Returns the analysis's exit code: 3 where jobs are missing."""
        from analysis.__main__ import analyse_sweep

        return analyse_sweep(sweep)


class ClusterSignals:
    """Answers the first of a cluster's signals with `Terminated`, and no further one."""

    def __init__(self) -> None:
        self._requeue: Any = signal.getsignal(signal.SIGUSR2)  # submitit's own handler
        self._case: Case | None = None
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._raise)

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
        if self._case is not None:
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
    told = dict(re.findall(r"(\w+)=(\S*)", show("scontrol", "show", "job", "-o", slurm_id(environment) or "0") or ""))
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


def _literal(value: Any) -> Any:
    """Resolved values in which OmegaConf finds nothing more to resolve."""
    if isinstance(value, Mapping):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value
