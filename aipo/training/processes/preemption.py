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


class Preemption:
    """While open, SIGUSR2 (submitit's signal) only sets `requested`; `pass_on` then gives it to whoever had it before.

    Outside the main thread, or on a system without SIGUSR2, nothing is held.
    """

    def __init__(self) -> None:
        self.requested = False
        self._signal = getattr(signal, "SIGUSR2", None)
        self._previous: Any = None
        self._frame: FrameType | None = None

    def __enter__(self) -> Preemption:
        if threading.current_thread() is not threading.main_thread():
            self._signal = None
        if self._signal is not None:
            self._previous = signal.signal(self._signal, self._hold)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._signal is not None:
            signal.signal(self._signal, self._previous or signal.SIG_DFL)

    def pass_on(self) -> None:
        """Let the earlier handler act: submitit's resubmits the job and exits; the default ends the process."""
        if self._signal is None:
            return
        signal.signal(self._signal, self._previous or signal.SIG_DFL)
        if callable(self._previous):
            self._previous(self._signal, self._frame)
        else:
            os.kill(os.getpid(), self._signal)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._frame = frame
