"""No judge: for a run whose benchmarks grade by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from aipo.judges.judge import JudgeError
from aipo.records import Chat, JudgeReply


@dataclass(frozen=True)
class NoJudge:
    """Answers nothing. The check of a config refuses it beside a benchmark that asks a judge."""

    name: str = "none"

    needs_world: ClassVar[bool] = False
    answers_any_chat: ClassVar[bool] = False
    keeps_replies: ClassVar[bool] = False
    asks_per_verdict: ClassVar[int] = 1

    def identity(self) -> dict[str, str]:
        """Nothing that could differ."""
        return {"judge": "none"}

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """JudgeError, whatever is asked."""
        raise JudgeError(f"judge=none answers nothing, but {len(chats)} replies were asked for; choose a judge")
