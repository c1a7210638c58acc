"""How a job ends when it is told to: recorded, and with its last words short."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from aipo.jobs import Status
from aipo.planning.resources import Kind

TOLD_TO_END = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR2") if hasattr(signal, name))

IMPORTING = "<frozen importlib._bootstrap>"
"""The file that Python's code for imports says it is in."""
POSTPONED_SECONDS = 0.1


class Terminated(SystemExit):
    """A signal asked this process to end. Its exit status is the shell's: 128 and the signal's number."""

    def __init__(self, number: int, status: Status = "interrupted", why: str = "") -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name
        self.status: Status = status
        """What the job then says of itself."""
        self.why = why

    def __str__(self) -> str:
        return f"told to end by {self.name}" + (f": {self.why}" if self.why else "")


class GivenUp(SystemExit):
    """A search has no use for the rest of this job."""

    status: Status = "given up"


class HandedOn(SystemExit):
    """The job goes on as another job of the cluster."""

    status: Status = "requeued"

    def __init__(self, kind: Kind | None, why: str) -> None:
        super().__init__(0)
        self.kind = kind
        """The stages that the next job is to have the resources for; None: one that was submitted already goes on."""
        self.why = why

    def __str__(self) -> str:
        return self.why


class EndsWhenTold:
    """While open, a signal that would kill the process raises Terminated instead, so that the job can say so.

    It does so, and Ctrl-C raises KeyboardInterrupt, only once no module is being imported. A handler that is there
    already, as a cluster's, stays. Outside the main thread nothing is changed.
    """

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> EndsWhenTold:
        if threading.current_thread() is threading.main_thread():
            for number in TOLD_TO_END:
                if signal.getsignal(number) == signal.SIG_DFL:
                    self._previous[number] = signal.signal(number, _raise)
            if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
                self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, _interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def postponed(number: int, frame: FrameType | None) -> bool:
    """Whether a signal came while a module is being imported; if so, it comes again in a moment.

    An exception would pass through initializers in C++, and one of torch's aborts the process for it: neither saved nor
    queued again.
    """
    while frame is not None and frame.f_code.co_filename != IMPORTING:
        frame = frame.f_back
    if frame is None:
        return False
    again = threading.Timer(POSTPONED_SECONDS, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()
    return True


def _raise(number: int, frame: FrameType | None) -> None:
    if not postponed(number, frame):
        raise Terminated(number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not postponed(number, frame):
        raise KeyboardInterrupt


def end_with_parent() -> None:
    """Have this process told to end, on Linux, when the one that started it is killed: an orphan would work on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() == 1:
        os._exit(1)
