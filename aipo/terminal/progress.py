"""How far a long step is: told to the job's own line where there is one, else a bar where there is a terminal."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

Listener = Callable[[str, int, int], None]
"""Called with what is done, how many of it, and of how many."""

_listeners: list[Listener] = []


def listen(listener: Listener | None) -> None:
    """From now on `listener` is told of every step, and no bar is drawn; None: bars again."""
    _listeners[:] = [] if listener is None else [listener]


class Bar:
    """Counts `total` things. A context manager, so that it is gone when its step ends or fails."""

    def __init__(self, total: int, what: str, *, initial: int = 0, hidden: bool = False) -> None:
        self.total, self.n, self._what = total, initial, what
        self._hidden = hidden
        self._drawn: Any = None
        if not hidden and not _listeners:
            from tqdm import tqdm

            # disable=None: nothing where the output is no terminal.
            self._drawn = tqdm(total=total, desc=what, initial=initial, delay=5, leave=False, disable=None)

    def update(self, done: int = 1) -> None:
        """So many more are done."""
        self.n += done
        if self._drawn is not None:
            self._drawn.update(done)
        elif not self._hidden:
            for listener in _listeners:
                listener(self._what, self.n, self.total)

    def note(self, **values: str) -> None:
        """Numbers to show behind a bar that is drawn."""
        if self._drawn is not None:
            self._drawn.set_postfix(values, refresh=False)

    def close(self) -> None:
        """The step ended."""
        if self._drawn is not None:
            self._drawn.close()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def bar(total: int, what: str, *, initial: int = 0, hidden: bool = False) -> Bar:
    """A bar for `total` things of which `initial` are done; `hidden` where another process shows it."""
    return Bar(total, what, initial=initial, hidden=hidden)
