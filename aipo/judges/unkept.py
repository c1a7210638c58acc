"""Books for a call whose replies are kept nowhere but in memory."""

from __future__ import annotations

import threading

from aipo.judges.judge import Receipt
from aipo.records import JudgeReply
from aipo.remote import Fatal


class UnkeptReplies:
    """A clerk that lets every chat be asked, up to a budget of requests."""

    def __init__(self, max_requests: int | None) -> None:
        self.replies: dict[int, JudgeReply] = {}
        self._left = max_requests
        self._lock = threading.Lock()

    def claim(self, position: int) -> bool:
        """Always."""
        return True

    def spend(self) -> None:
        """Count a request."""
        with self._lock:
            if self._left == 0:
                raise Fatal(budget_spent())
            if self._left is not None:
                self._left -= 1

    def keep(self, position: int, reply: JudgeReply, receipt: Receipt) -> None:
        """Remember a reply."""
        self.replies[position] = reply

    def release(self, position: int) -> None:
        """Nothing is held."""

    def in_order(self, count: int) -> list[JudgeReply]:
        """All of them."""
        return [self.replies[position] for position in range(count)]


def budget_spent(limit: int | None = None) -> str:
    """What is said when no request is left."""
    shown = "" if limit is None else f"={limit}"
    return (
        f"the budget of judge.max_requests{shown} is spent: it counts every request to this judge from this store, in "
        "all runs. What was answered is kept; raise it and start the run again"
    )
