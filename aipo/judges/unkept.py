"""Books for a call whose replies are kept nowhere but in memory."""

from __future__ import annotations

import threading

from aipo.judges.budget import Account, Budget
from aipo.judges.judge import Receipt
from aipo.records import JudgeReply
from aipo.remote import Fatal


class UnkeptReplies:
    """A clerk that lets every chat be asked, within a budget."""

    def __init__(self, budget: Budget) -> None:
        self.replies: dict[int, JudgeReply] = {}
        self._budget = budget
        self._account = Account()
        self._under_way = 0
        self._changed = threading.Condition()

    def claim(self, position: int) -> bool:
        """Always."""
        return True

    def spend(self, up_to: float | None = None) -> None:
        """Count a request, once there is room for what it may cost."""
        with self._changed:
            if refusal := self._account.lacks_requests(self._budget):
                raise Fatal(refusal)
            while refusal := self._account.lacks_dollars(self._budget, up_to):
                if not self._under_way:
                    raise Fatal(refusal)
                self._changed.wait()
            self._account.reserve(up_to)
            self._under_way += 1

    def failed(self, up_to: float | None, may_cost: bool) -> None:
        """Take the reservation back where the request was free."""
        with self._changed:
            self._end(None if may_cost else up_to, None)

    def keep(self, position: int, reply: JudgeReply, receipt: Receipt) -> None:
        """Remember a reply."""
        with self._changed:
            self.replies[position] = reply
            if receipt.answers_request:
                self._end(receipt.up_to, receipt.dollars)

    def refused_before(self, position: int) -> bool:
        """Never: each is asked once."""
        return False

    def release(self, position: int) -> None:
        """Nothing is held."""

    def in_order(self, count: int) -> list[JudgeReply]:
        """All of them."""
        return [self.replies[position] for position in range(count)]

    def _end(self, settled: float | None, dollars: float | None) -> None:
        self._account.settle(settled, dollars)
        self._under_way -= 1
        self._changed.notify_all()
