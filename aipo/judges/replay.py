"""A judge that only repeats: stored replies, read from disk. Scores again without asking, and without a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aipo.judges.judge import JudgeError
from aipo.judges.store import StoredReplies, read_replies, reply_key
from aipo.records import Chat, JudgeReply


@dataclass(frozen=True)
class ReplayJudge:
    """Replies of one judge, from a `replies.jsonl` or from all such files below a folder."""

    path: str
    name: str
    _asked: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def missing(self) -> list[str]:
        """The files, where there are none."""
        if self._files():
            return []
        return [f"stored replies: no replies.jsonl at or below {self.path}; set judge.path to a judgments artifact"]

    def identity(self) -> dict[str, str]:
        """That of the judge who gave the replies. JudgeError when there are none, or several judges'."""
        return self._stored().judge

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """The stored replies. JudgeError that counts and shows what was never asked."""
        stored = self._stored()
        decoding = {"max_tokens": max_tokens, "temperature": temperature, "top_logprobs": top_logprobs}
        keys = [reply_key(stored.judge, chat, decoding, self._asked) for chat in chats]
        unknown = [chat for chat, key in zip(chats, keys, strict=True) if key not in stored.replies]
        if unknown:
            raise JudgeError(
                f"{len(unknown)} of {len(chats)} prompts have no stored reply in {self.path} for the decoding "
                f"{decoding}; the first: {unknown[0][-1].content[:120]!r}. Ask the judge itself, or replay "
                "the answers it judged"
            )
        return [stored.replies[key] for key in keys]

    def _files(self) -> list[Path]:
        place = Path(self.path)
        return [place] if place.is_file() else sorted(place.rglob("replies.jsonl"))

    def _stored(self) -> StoredReplies:
        found = [read_replies(file) for file in self._files()]
        judges = {str(sorted(stored.judge.items())): stored.judge for stored in found if stored.replies}
        if len(judges) != 1:
            raise JudgeError(
                f"{self.path}: expected the stored replies of one judge, found {len(judges)}: {list(judges)}"
            )
        replies = {key: reply for stored in found for key, reply in stored.replies.items()}
        return StoredReplies(next(iter(judges.values())), replies)
