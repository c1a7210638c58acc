"""Judges: chats in, replies out. Prompts and parsers belong to the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aipo.judges.budget import Budget
from aipo.records import Chat, JudgeReply


class JudgeError(RuntimeError):
    """A judge could not answer. Never encoded in a reply."""


class Judge(Protocol):
    """Answers judge prompts. `name` goes into tables; `identity()` into cache keys and fingerprints."""

    @property
    def name(self) -> str: ...

    @property
    def needs_world(self) -> bool:
        """True when it knows the truth of the miniature's world only."""
        ...

    @property
    def answers_any_chat(self) -> bool:
        """False for one that reads the prompts of benchmarks only, and for one that answers nothing."""
        ...

    @property
    def keeps_replies(self) -> bool:
        """True when replies cost money or hours, and are kept beside the artifacts: it is a `PaidJudge` then."""
        ...

    @property
    def asks_per_verdict(self) -> int:
        """How often, in all, one request is asked whose reply gives no verdict. 1: never again."""
        ...

    def identity(self) -> dict[str, str]:
        """What makes two judges the same one: requested model, endpoint, settings. Never a key."""
        ...

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """One reply per chat, in order. Raises JudgeError rather than return a sentinel."""
        ...


@dataclass(frozen=True)
class Receipt:
    """What came with a reply: tokens and dollars where known, and the whole body of a reply that cannot be read."""

    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float | None = None
    raw: bytes | None = None
    up_to: float | None = None
    """What was reserved for the request, in US dollars, where the reply says what it cost instead."""
    answers_request: bool = True
    """False where the request that was counted last has failed: a reply that stands for its failure."""


class Clerk(Protocol):
    """Keeps the books of a call to `PaidJudge.reply_each`. Every method may be called from any thread."""

    def claim(self, position: int) -> bool:
        """Whether the chat at `position` is to be asked now; False when another process asks it, or it is answered."""
        ...

    def spend(self, up_to: float | None = None) -> None:
        """A request is about to be sent, which may cost so many US dollars. Raises Fatal when the budget does not allow
        it, and waits while requests under way may leave room for it."""
        ...

    def failed(self, up_to: float | None, may_cost: bool) -> None:
        """The request that was spent for has no reply; `may_cost`: it may have to be paid nevertheless."""
        ...

    def keep(self, position: int, reply: JudgeReply, receipt: Receipt) -> None:
        """A reply has arrived. It is written down when this returns."""
        ...

    def refused_before(self, position: int) -> bool:
        """Whether a refusal is this item's own by what came before: it was refused already, or it is one of the last
        few of which the others were answered."""
        ...

    def release(self, position: int) -> None:
        """What was claimed is answered, or given up."""
        ...


class PaidJudge(Judge, Protocol):
    """A judge whose replies are kept, one by one, as they arrive."""

    @property
    def budget(self) -> Budget:
        """Its caps, over all runs that share a store. Another identity has caps of its own."""
        ...

    def reply_each(
        self, chats: Sequence[Chat], clerk: Clerk, *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> None:
        """Ask every chat that the clerk lets be claimed. JudgeError at the end when some were given up, at once when
        none can succeed; every reply that arrives is kept, also while the call is being stopped."""
        ...
