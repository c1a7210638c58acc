"""Which refused requests are an item's last word, and which say that nothing can be asked now."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aipo.judges.judge import Receipt
from aipo.records import JudgeReply
from aipo.remote import Fatal
from aipo.remote.attempts import describe

REFUSED_AT_ONCE = 8
"""So many refused requests in a row: it is the settings or the account that are refused, and nothing more is sent."""
CODES = frozenset(
    {
        *("context_length_exceeded", "exceed_context_size_error", "string_above_max_length"),
        *("content_filter", "content_policy_violation", "invalid_prompt"),
    }
)
WORDS = re.compile(
    r"context[ _](length|size|window)|maximum (number of )?(input |prompt )?tokens|too long|too many (input )?tokens"
    r"|content[ _](policy|filter|management)|usage polic|\bsafety\b|invalid[ _]prompt",
    re.IGNORECASE,
)


def about_the_item(error: Exception) -> bool:
    """Whether an endpoint refuses this prompt and may take another: it is too long, withheld by a filter, or no text.

    The error's code says so, else its message. Its further fields are not read where it has a message, since some
    endpoints repeat the prompt there.
    """
    if isinstance(error, UnicodeEncodeError) or getattr(error, "status_code", None) == 413:
        return True
    if not CODES.isdisjoint(str(getattr(error, name, None)) for name in ("code", "type")):
        return True
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, Mapping) else None
    return WORDS.search(message[:500] if isinstance(message, str) else describe(error)) is not None


@dataclass(frozen=True)
class Refused:
    """A refused request, as it would be kept."""

    position: int
    reply: JudgeReply
    receipt: Receipt
    about_item: bool


class Refusals:
    """Those of one call. Safe for threads.

    An answer shows that the endpoint refuses items: what it refused before is kept, and so is every item from then on
    that it finds fault with. Other refusals wait for the next answer. Where eight wait, or the call ends and nothing
    was answered, they are kept nowhere: with the cause mended, they are asked again.
    """

    def __init__(self, keep: Callable[[int, JudgeReply, Receipt], None]) -> None:
        self._keep = keep
        self._waiting: list[Refused] = []
        self._answered = False
        self._fatal: Fatal | None = None
        self._lock = threading.Lock()

    def add(self, refused: Refused) -> Fatal | None:
        """Keep it, or let it wait; why nothing more is to be sent, if so."""
        with self._lock:
            if refused.about_item and self._answered:
                self._keep(refused.position, refused.reply, refused.receipt)
                return None
            if self._fatal is None:
                self._waiting.append(refused)
                if len(self._waiting) >= REFUSED_AT_ONCE:
                    self._give_up()
            return self._fatal

    def answered(self) -> None:
        """Something else was answered: what waits is kept."""
        with self._lock:
            self._answered = True
            self._keep_waiting()

    def end(self, *, whole: bool) -> Fatal | None:
        """The call has come to its end, or (not `whole`) was stopped before: what is known to be an item's own is kept.
        Returns the error of a call in which nothing was answered and more than items was found fault with."""
        with self._lock:
            if self._fatal is not None:
                return None
            general = any(not refused.about_item for refused in self._waiting)
            if whole and general and not self._answered:
                self._give_up()
                return self._fatal
            if not whole:
                self._waiting = [refused for refused in self._waiting if refused.about_item]
            self._keep_waiting()
            return None

    def _keep_waiting(self) -> None:
        while self._waiting:
            refused = self._waiting.pop()
            self._keep(refused.position, refused.reply, refused.receipt)

    def _give_up(self) -> None:
        row = "in a row" if self._answered else "so far"
        self._fatal = Fatal(
            f"the endpoint refuses every request, {len(self._waiting)} {row}; the last: "
            f"{self._waiting[-1].reply.error}. None of these is kept: see to the cause, then start the run again"
        )
        self._waiting = []
