"""Judges: chats in, replies out. Prompts and parsers belong to the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aipo.records import Chat, JudgeReply


class JudgeError(RuntimeError):
    """A judge could not answer. Never encoded in a reply."""


class Judge(Protocol):
    """Answers judge prompts. `name` goes into tables; `identity()` into cache keys and fingerprints."""

    name: str

    def identity(self) -> dict[str, str]:
        """What makes two judges the same one: requested model, endpoint, settings. Never a key."""
        ...

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """One reply per chat, in order. Raises JudgeError rather than return a sentinel."""
        ...
