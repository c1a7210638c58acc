"""A cluster's warning that the job is about to be stopped: held until the state is saved at a step boundary."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol


class Interruption(Protocol):
    """Whoever can ask a training run to save and stop at the next step boundary."""

    @property
    def requested(self) -> bool:
        """True from the moment it was asked."""
        ...

    def pass_on(self) -> None:
        """The state is saved: stop."""
        ...


class Stopped(Exception):
    """A training process saved its state and stopped, as its parent asked."""


class StopFile:
    """Asks the processes of one run, on whatever machine, through a file that they all see.

    Not by signals: those reach some processes twice and others never, and torchrun kills its workers after half a
    minute, when a large model has not been saved yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def requested(self) -> bool:
        """True when the file is there."""
        return self.path.exists()

    def pass_on(self) -> None:
        """Raise Stopped."""
        raise Stopped


def ignore_signal() -> None:
    """Let this process and its children ignore SIGUSR2: it is their parent who answers it."""
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)


SIGNALS = tuple(getattr(signal, name) for name in ("SIGUSR2", "SIGTERM", "SIGINT") if hasattr(signal, name))
"""submitit's warning, everybody else's, and Ctrl-C."""


class Preemption:
    """While open, one of `SIGNALS` only sets `requested`; `pass_on` then gives it to whoever had it before.

    A second Ctrl-C goes there at once: who presses it twice will not wait. A cluster's signals reach some processes
    twice, and are held each time. Outside the main thread nothing is held.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}
        self._received: int | None = None
        self._frame: FrameType | None = None

    def __enter__(self) -> Preemption:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._hold)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def pass_on(self) -> None:
        """Let the earlier handler act: submitit's resubmits the job and exits; the default ends the process."""
        if self._received is None:
            return
        number, previous = self._received, self._previous[self._received]
        signal.signal(number, previous or signal.SIG_DFL)
        if callable(previous):
            previous(number, self._frame)
        else:
            os.kill(os.getpid(), number)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        again = self._received == number == signal.SIGINT
        self.requested, self._received, self._frame = True, number, frame
        if again:
            self.pass_on()
