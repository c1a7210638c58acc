"""A judge that only repeats: stored replies, read from disk. Scores again without asking, and without a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from aipo.judges.judge import JudgeError
from aipo.judges.replies import WHO, Replies, open_replies, reply_key
from aipo.records import Chat, JudgeReply


@dataclass(frozen=True)
class ReplayJudge:
    """Kept replies of one judge: its folder, `<store>/replies/<hash>`, or a folder above it that holds no other."""

    path: str
    name: str
    _asked: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    _open: list[Replies] = field(default_factory=list, init=False, repr=False, compare=False)

    needs_world: ClassVar[bool] = False
    answers_any_chat: ClassVar[bool] = True
    keeps_replies: ClassVar[bool] = False
    asks_per_verdict: ClassVar[int] = 1

    def missing(self) -> list[str]:
        """The replies, where there are none, or several judges'."""
        try:
            self._replies()
        except (JudgeError, ValueError) as error:
            return [f"stored replies: {error}"]
        return []

    def identity(self) -> dict[str, str]:
        """That of the judge who gave the replies. JudgeError when there are none, or several judges'."""
        return self._replies().judge

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """The stored replies. JudgeError that counts and shows what was never asked."""
        replies = self._replies()
        decoding = {"max_tokens": max_tokens, "temperature": temperature, "top_logprobs": top_logprobs}
        keys = [reply_key(replies.judge, chat, decoding, self._asked) for chat in chats]
        unknown = [chat for chat, key in zip(chats, keys, strict=True) if key not in replies]
        if unknown:
            raise JudgeError(
                f"{len(unknown)} of {len(chats)} prompts have no stored reply in {self.path} for the decoding "
                f"{decoding}; the first: {unknown[0][-1].content[:120]!r}. Ask the judge itself, or replay "
                "the answers it judged"
            )
        return [replies.get(key) for key in keys]

    def _replies(self) -> Replies:
        if self._open:
            self._open[0].refresh()
            return self._open[0]
        found = open_replies(Path(self.path))
        if len(found) != 1:
            names = (
                ", ".join(f"{one.folder} ({one.judge.get('name')})" for one in found[:5]) or f"no {WHO} at or below it"
            )
            raise JudgeError(
                f"{self.path}: expected the stored replies of one judge, found {len(found)}: {names}. "
                "Set judge.path to the folder of one judge: outputs/replies/<hash>"
            )
        self._open.append(found[0])
        return found[0]
