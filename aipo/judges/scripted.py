"""A judge that answers by a function: tests, and judges with a known bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from aipo.judges.budget import Budget
from aipo.judges.judge import Clerk, Receipt
from aipo.records import Chat, JudgeReply


@dataclass(frozen=True)
class ScriptedJudge:
    """`script` turns the judge's chat into a reply, or into the text of one."""

    script: Callable[[Chat], JudgeReply | str]
    name: str = "scripted"
    keeps_replies: bool = False
    asks_per_verdict: int = 1

    needs_world: ClassVar[bool] = False
    answers_any_chat: ClassVar[bool] = True
    budget: ClassVar[Budget] = Budget()

    def identity(self) -> dict[str, str]:
        """Its name: two scripts under one name are taken for one judge."""
        return {"name": self.name}

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """What the script says."""
        replies = [self.script(chat) for chat in chats]
        return [reply if isinstance(reply, JudgeReply) else JudgeReply(reply, None, self.name) for reply in replies]

    def reply_each(
        self, chats: Sequence[Chat], clerk: Clerk, *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> None:
        """One after the other."""
        for position, chat in enumerate(chats):
            if clerk.claim(position):
                clerk.spend()
                clerk.keep(position, self.reply([chat], max_tokens=max_tokens)[0], Receipt())
                clerk.release(position)
