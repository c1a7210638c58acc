"""Every paid reply, once: an append-only JSONL of a judge's replies, keyed by who was asked what and how.

A key is the SHA-256 of the judge's identity, the prompt, the decoding and the number of earlier identical requests. A
torn last line (a process killed while writing) is dropped; any other malformed line is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aipo.judges import Judge
from aipo.records import Chat, JudgeReply, from_row, to_row


class StoredJudge:
    """A judge that asks the judge it wraps only what `path` does not hold yet. Replies are written as they arrive."""

    def __init__(self, judge: Judge, path: Path) -> None:
        self.name = judge.name
        self._judge = judge
        self._path = path
        self._replies = _read(path)
        self._asked: Counter[str] = Counter()

    def identity(self) -> dict[str, str]:
        """The wrapped judge's."""
        return self._judge.identity()

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """One reply per chat, from the file where it is there, else from the judge."""
        decoding = {"max_tokens": max_tokens, "temperature": temperature, "top_logprobs": top_logprobs}
        keys = [self._key(chat, decoding) for chat in chats]
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
        return [self._replies[key] for key in keys]

    def _key(self, chat: Chat, decoding: dict[str, Any]) -> str:
        content = {"judge": self.identity(), "chat": to_row(chat), "decoding": decoding}
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False)
        number = self._asked[canonical]
        self._asked[canonical] += 1
        return hashlib.sha256(f"{canonical}#{number}".encode()).hexdigest()


def _read(path: Path) -> dict[str, JudgeReply]:
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    replies = {}
    for number, line in enumerate(whole.decode("utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            replies[row["key"]] = from_row(JudgeReply, row["reply"])
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}, line {number}: not a stored reply ({error})") from error
    return replies
