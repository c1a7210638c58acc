"""Every paid reply, once: an append-only JSONL of a judge's replies, keyed by who was asked what and how.

A key is the SHA-256 of the judge's identity, the prompt, the decoding and the number of earlier identical requests. A
torn last line (a process killed while writing) is dropped; any other malformed line is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aipo.judges.judge import Judge
from aipo.records import Chat, JudgeReply, Judgment, from_row, to_row


@dataclass(frozen=True)
class StoredReplies:
    """A file's content: who replied, and the replies by key."""

    judge: dict[str, str]
    replies: dict[str, JudgeReply]


class StoredJudge:
    """A judge that asks the judge it wraps only what `path` does not hold yet. Replies are written as they arrive."""

    def __init__(self, judge: Judge, path: Path) -> None:
        self.name = judge.name
        self._judge = judge
        self._path = path
        self._replies = read_replies(path).replies if path.exists() else {}
        self._asked: Counter[str] = Counter()
        self._keys: dict[int, str] = {}
        """Of the replies handed out, by their id()."""

    def identity(self) -> dict[str, str]:
        """The wrapped judge's."""
        return self._judge.identity()

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """One reply per chat, from the file where it is there, else from the judge."""
        decoding = {"max_tokens": max_tokens, "temperature": temperature, "top_logprobs": top_logprobs}
        keys = [reply_key(self.identity(), chat, decoding, self._asked) for chat in chats]
        open_ones = [index for index, key in enumerate(keys) if key not in self._replies]
        if open_ones:
            with self._path.open("a", encoding="utf-8") as file:

                def keep(position: int, reply: JudgeReply) -> None:
                    key = keys[open_ones[position]]
                    self._replies[key] = reply
                    line = {"key": key, "judge": self.identity(), "decoding": decoding, "reply": to_row(reply)}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                    file.flush()

                asked = [chats[index] for index in open_ones]
                streaming = getattr(self._judge, "reply_each", None)
                if streaming is not None:
                    streaming(asked, keep, **decoding)
                else:
                    for position, reply in enumerate(self._judge.reply(asked, **decoding)):
                        keep(position, reply)
                os.fsync(file.fileno())
        found = [self._replies[key] for key in keys]
        self._keys |= {id(reply): key for reply, key in zip(found, keys, strict=True)}
        return found

    def ask_again(self, unscored: Iterable[Judgment]) -> None:
        """Replies that gave no verdict are asked for anew when this stage runs again. The old ones stay in the file."""
        keys = {self._keys[id(reply)] for judgment in unscored for reply in judgment.replies if id(reply) in self._keys}
        with self._path.open("a", encoding="utf-8") as file:
            for key in sorted(keys):
                file.write(json.dumps({"key": key, "judge": self.identity(), "ask_again": True}) + "\n")


def reply_key(judge: Mapping[str, str], chat: Chat, decoding: Mapping[str, Any], asked: Counter[str]) -> str:
    """The key of the next such request; `asked` counts identical ones, which each get a reply of their own."""
    content = {"judge": dict(judge), "chat": to_row(chat), "decoding": dict(decoding)}
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False)
    number = asked[canonical]
    asked[canonical] += 1
    return hashlib.sha256(f"{canonical}#{number}".encode()).hexdigest()


def read_replies(path: Path) -> StoredReplies:
    """All replies of a file that are to be used. A torn last line is cut off; ValueError names any other bad line."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    judge: dict[str, str] = {}
    replies: dict[str, JudgeReply] = {}
    for number, line in enumerate(whole.decode("utf-8").split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
            judge = row["judge"]
            if row.get("ask_again"):
                replies.pop(row["key"], None)
            else:
                replies[row["key"]] = from_row(JudgeReply, row["reply"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a stored reply ({error})") from error
    return StoredReplies(judge, replies)
