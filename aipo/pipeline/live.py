"""The sweep's page, written again while a job runs: after a round, by a process of its own, and seldom enough.

The job never waits for it, none of its numbers can depend on it, and the analysis at the end writes the page anew.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from aipo.artifacts import StageEvent

logger = logging.getLogger("aipo")
FIRST_AFTER_S = 30.0
"""No page before a job has run for so long: one that ends sooner has its page at the end."""
LARGEST_SHARE = 0.05
"""Of one core's time, that pages may take."""


PAGE = "index.html"


class LivePage:
    """A context manager around a job's loop, told of stages and rounds. It starts one process at a time.

    Where every stage was there already there is nothing new to show, and no process.
    """

    def __init__(self, sweep: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._sweep = sweep
        self._clock = clock
        self._last = clock()
        self._gap_s = FIRST_AFTER_S
        self._made = False
        self._process: subprocess.Popen[str] | None = None

    def stage(self, event: StageEvent) -> None:
        """A stage ended."""
        self._made = self._made or event.outcome == "run"

    def round(self) -> None:
        """The job's record has another point."""
        if self._working() or not self._made or self._clock() < self._last + self._gap_s or self._is_young():
            return
        self._made, self._last = False, self._clock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "analysis.live", str(self._sweep.resolve())],
            env=os.environ | {"PYTHONPATH": _path_of_this_code()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is the job's, which ends this process itself
        )

    def _working(self) -> bool:
        """Whether a process still writes; one that has ended decides when the next may begin."""
        process = self._process
        if process is None:
            return False
        if process.poll() is None:
            return True
        seconds, said = process.communicate()
        if process.returncode == 0:
            self._gap_s = max(FIRST_AFTER_S, float(seconds) / LARGEST_SHARE)
        else:
            logger.info("the page was not written meanwhile: %s", (said.strip().splitlines() or ["no reason"])[-1])
        self._process = None
        return False

    def _is_young(self) -> bool:
        """Whether another job of the sweep has just written it."""
        try:
            return time.time() - (self._sweep / PAGE).stat().st_mtime < self._gap_s
        except FileNotFoundError:
            return False

    def __enter__(self) -> LivePage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """The page at the end is the analysis's: a process that still writes must not come after it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            (self._sweep / f".{PAGE}.{self._process.pid}").unlink(missing_ok=True)
            self._process = None


def _path_of_this_code() -> str:
    """Where the process finds the same code: a run of a snapshot must not import what is installed."""
    found = find_spec("analysis")
    assert found is not None and found.origin is not None
    return os.pathsep.join([str(Path(found.origin).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
