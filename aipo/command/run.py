"""`aipo run`, which is `python run.py`: compose a config, check it, run one job or a sweep."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import hydra
from omegaconf import DictConfig

from aipo.command.options import CONF, help_text

EXPECTED = (ValueError, OSError, RuntimeError)
"""What data, disks, servers and numbers can cause, with a message that says what to do: shown without frames."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(config: DictConfig) -> float | None:
    """Compose, check, run one job; a sweeper that searches gets what `loop.run` returns."""
    from hydra.core.hydra_config import HydraConfig

    from aipo.pipeline import folders, loop
    from aipo.pipeline.check import ConfigError
    from aipo.pipeline.sweep import place_in_sweep
    from aipo.remote.redaction import redact, redact_logs

    redact_logs()
    job = HydraConfig.get()
    try:
        overrides = folders.without_screen(job.overrides.task)
        return loop.run(config, Path(job.runtime.output_dir), overrides, job.runtime.choices, place_in_sweep(job))
    except ConfigError as error:
        print(redact(str(error)), file=sys.stderr)
        sys.exit(2)


def command() -> None:
    """`main`, then the tables of a sweep. Without them the exit status is 1 where the jobs themselves ended well."""
    try:
        _command()
    except SystemExit as ended:
        if not _has_tables() and not ended.code:
            sys.exit(1)
        raise
    if not _has_tables():
        sys.exit(1)


def _has_tables() -> bool:
    pipeline = sys.modules.get("aipo.pipeline.sweep")  # a command that only showed its help never imported it
    return pipeline is None or pipeline.close()


def _command() -> None:
    """`main`, with every mistake on the command line told in one style, and no frame of Hydra's in a traceback."""
    wants_all = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print
    sys.argv[1:] = ["verbose=true" if item in ("-v", "--verbose") else item for item in sys.argv[1:]]
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text())
        return
    _hush_hydra()
    try:
        main()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed twice, it would show the frames of what tidies up
        _stopped()
        sys.exit(130)
    except SystemExit as ended:
        from aipo.pipeline.ends import Terminated

        if isinstance(ended, Terminated):  # there may be seconds left, and no time for tables
            from aipo.pipeline.sweep import forget_analysis

            forget_analysis()
        raise
    except Exception as error:
        if wants_all:
            raise
        sys.exit(_failed(error))


def _hush_hydra() -> None:
    """Hydra writes a failed job's overrides, however long, to stderr as it raises: the job's own line has said it."""
    from hydra.core.utils import JobReturn, JobStatus

    def value(job: JobReturn) -> Any:
        if job.status == JobStatus.FAILED:
            raise job._return_value
        return job._return_value

    JobReturn.return_value = JobReturn.return_value.getter(value)  # type: ignore[attr-defined, method-assign]


def _stopped() -> None:
    from aipo.pipeline.console import stopped
    from aipo.pipeline.sweep import forget_analysis
    from aipo.terminal import errors, say

    forget_analysis()
    say(f"stopped by Ctrl-C{f' at {stopped.at}' if stopped.at else ''}", style="yellow", to=errors)
    say("Finished stages and paid replies are kept, a training at its last checkpoint.", to=errors)
    say("The same command goes on from here.", style="bold", to=errors)


def _failed(error: Exception) -> int:
    """Tell an error: what a user can cause with its remedy, anything else with its frames. Returns the exit status."""
    from aipo.remote import redact

    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code is not main.__wrapped__.__code__:
        frames = frames.tb_next
    if frames is None:  # no job began here
        from hydra._internal.utils import get_args_parser

        from aipo.pipeline.options import explain

        given = get_args_parser().parse_args(sys.argv[1:])  # as Hydra has read them
        own = [Path(given.config_dir)] if given.config_dir else []
        if problems := explain(error, given.overrides, CONF, *own):
            print(redact(str(problems)), file=sys.stderr)
            return 2
        return _tell(error, error.__traceback__, expected=False, with_frames=True)
    return told(error, frames, with_frames="verbose=true" in sys.argv)


def told(error: Exception, frames: TracebackType | None = None, *, with_frames: bool) -> int:
    """Tell what ended a job, with its frames where nobody expects such an error. Returns the exit status."""
    return _tell(error, frames or error.__traceback__, expected=isinstance(error, EXPECTED), with_frames=with_frames)


def _tell(error: Exception, frames: TracebackType | None, *, expected: bool, with_frames: bool) -> int:
    from aipo.remote import redact
    from aipo.terminal import errors, say

    if not expected or with_frames:
        shown = traceback.format_exception(type(error), error, frames)
        print(redact("".join(shown)), file=sys.stderr, end="")
    if expected:
        say(redact(f"error: {type(error).__name__}: {error}"), style="bold red", to=errors)
        say(
            "The frames stand in the job's traceback.txt (-v shows them here). What is finished is kept: with the "
            "cause mended, the same command goes on from here.",
            to=errors,
        )
    return 1
