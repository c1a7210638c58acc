"""The kept replies of one judge, and its ledger: `<store>/replies/<hash of its identity>/`, shared by every stage, job
and process.

The folder holds `judge.json` (who it is) and a journal with three kinds of lines: `{"request": ...}` before each
request is sent, `{"key": ..., "take": n, ...}` for each reply, and `{"again": key, "take": n}` where a reply gave no
verdict and is to be asked for anew. Nothing is ever changed or taken away. So the ledger holds whatever happens to a
process: what is sent is counted before it is sent.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from aipo.judges.judge import Receipt
from aipo.judges.unkept import budget_spent
from aipo.records import Chat, JudgeReply, from_row, to_row
from aipo.remote import Fatal, Journal, Line, redact
from aipo.remote.redaction import hide_values, hide_values_in_bytes

LOCK_FILE = "asking.lock"
WHO = "judge.json"


@dataclass(frozen=True)
class Ledger:
    """What a judge was asked and has answered, over all runs. Requests without a reply: faults, and processes that died
    before the reply reached them."""

    requests: int
    replies: int
    unreadable: int
    input_tokens: int
    output_tokens: int
    dollars: float | None
    """None: no reply came with a price."""


class Replies:
    """One judge's folder. Safe for threads and processes; nothing is written before `keep`, `spend` or `ask_again`.

    `locks=False`, for file systems without them: two processes that ask the same thing in the same moment may then both
    ask it, and a budget may be exceeded by what the others send in that moment.
    """

    def __init__(self, folder: Path, judge: Mapping[str, str], *, locks: bool = True) -> None:
        self.folder = folder
        self.judge = dict(judge)
        self.requests = 0
        self._locks = locks
        self._journal = Journal(folder)
        self._mutex = threading.RLock()
        self._found: dict[str, tuple[int, Line]] = {}
        self._wanted: dict[str, int] = {}
        """The first take that is to be used, where it is not 0."""
        self._claimed: set[str] = set()
        self._lock_file: int | None = None
        self._synced = 0.0

    def refresh(self) -> None:
        """Take in what other processes wrote. Raises JournalError for a line that was changed."""
        with self._mutex:
            if self._journal.vanished():
                self._journal.forget()
                self._found, self._wanted, self.requests = {}, {}, 0
                if self._lock_file is not None and not self._claimed:
                    os.close(self._lock_file)
                    self._lock_file = None
            for line, content in self._journal.unread():
                self._take_in(line, content)

    def __contains__(self, key: str) -> bool:
        """Whether there is a reply that is to be used."""
        found = self._found.get(key)
        return found is not None and found[0] >= self._wanted.get(key, 0)

    def get(self, key: str) -> JudgeReply:
        """The last reply under a key. KeyError where there is none."""
        return from_row(JudgeReply, self._found[key][1].read()["reply"])

    def claim(self, key: str) -> bool:
        """Take the right to ask for a key; False while somebody else has it. A process that dies gives it back."""
        with self._mutex:
            if key in self._claimed or not self._lock_byte(_place(key)):
                return False
            self._claimed.add(key)
            return True

    def release(self, key: str) -> None:
        """Give it back."""
        with self._mutex:
            self._claimed.discard(key)
            if self._lock_file is not None and not any(_place(other) == _place(key) for other in self._claimed):
                fcntl.lockf(self._lock_file, fcntl.LOCK_UN, 1, _place(key))

    def spend(self, limit: int | None) -> None:
        """Write down that a request is about to be sent. Raises Fatal when `limit` requests were sent before."""
        with self._mutex:
            if limit is None:
                self._write({"request": _now()})
                self.requests += 1
                return
            with self._alone():
                self.refresh()
                if self.requests >= limit:
                    raise Fatal(budget_spent(limit))
                self._write({"request": _now()})
                self.requests += 1

    def keep(self, key: str, decoding: Mapping[str, Any], reply: JudgeReply, receipt: Receipt) -> None:
        """Write a reply down, without the keys of this process that it may repeat."""
        row: dict[str, Any] = {"key": key, "take": self._wanted.get(key, 0), "at": _now(), "decoding": dict(decoding)}
        row |= {"input_tokens": receipt.input_tokens, "output_tokens": receipt.output_tokens}
        if receipt.dollars is not None:
            row["dollars"] = receipt.dollars
        if receipt.raw is not None:
            row["raw_base64"] = base64.b64encode(hide_values_in_bytes(receipt.raw)).decode("ascii")
        reply = replace(reply, text=hide_values(reply.text), error=reply.error and redact(reply.error))
        with self._mutex:
            self._found[key] = row["take"], self._write(row | {"reply": to_row(reply)})
            if time.monotonic() - self._synced > 1:
                self.sync()

    def ask_again(self, key: str, asks: int) -> bool:
        """Let the next judging ask for a key anew, unless it was asked `asks` times already; returns whether."""
        with self._mutex:
            if key not in self or self._found[key][0] + 1 >= asks:
                return False
            self._wanted[key] = self._found[key][0] + 1
            self._write({"again": key, "take": self._wanted[key]})
            return True

    def sync(self) -> None:
        """Bring everything to the disk."""
        self._journal.sync()
        self._synced = time.monotonic()

    def ledger(self) -> Ledger:
        """Sums over everything that was written."""
        requests = replies = unreadable = tokens_in = tokens_out = 0
        dollars: float | None = None
        for row in Journal(self.folder).rows():
            requests += "request" in row
            if "key" in row:
                replies += 1
                unreadable += row["reply"]["error"] is not None
                tokens_in += row["input_tokens"]
                tokens_out += row["output_tokens"]
                if "dollars" in row:
                    dollars = (dollars or 0.0) + row["dollars"]
        return Ledger(requests, replies, unreadable, tokens_in, tokens_out, dollars)

    def _take_in(self, line: Line, content: bytes) -> None:
        if content.startswith(b'{"request"'):
            self.requests += 1
        elif content.startswith(b'{"key"'):
            start = content.index(b'"take": ') + 8
            self._add(content[9:73].decode("ascii"), int(content[start : content.index(b",", start)]), line)
        else:
            row = json.loads(content.decode("utf-8"))
            self._wanted[row["again"]] = max(self._wanted.get(row["again"], 0), row["take"])

    def _add(self, key: str, take: int, line: Line) -> None:
        """Of two replies to one request (a file system without locks) every process uses the same."""
        known = self._found.get(key)
        if known is None or take > known[0] or (take == known[0] and line.path.name < known[1].path.name):
            self._found[key] = take, line

    def _write(self, row: Mapping[str, Any]) -> Line:
        who = self.folder / WHO
        if not who.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = who.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(self.judge, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            os.replace(temporary, who)
        return self._journal.append(row)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the ledger against other processes."""
        held = self._lock_byte(0, wait=True)
        try:
            yield
        finally:
            if held and self._lock_file is not None:
                fcntl.lockf(self._lock_file, fcntl.LOCK_UN, 1, 0)

    def _lock_byte(self, place: int, wait: bool = False) -> bool:
        """POSIX locks of single bytes: they work on NFS, and end with their process. True where there are no locks."""
        if not self._locks:
            return True
        if self._lock_file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(self.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(self._lock_file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place)
        except BlockingIOError:
            return False
        except PermissionError:  # what some systems say for a lock that is held
            return False
        return True


class ReplyStore:
    """Every judge's replies, beside the artifacts of a store."""

    _open: dict[tuple[Path, str], Replies] = {}
    """One object for each folder of this process: its locks are the process's, not the object's."""
    _opening = threading.Lock()

    def __init__(self, root: str | os.PathLike[str], lock: Literal["flock", "lease"] = "flock") -> None:
        self.root = Path(root) / "replies"
        self._locks = lock == "flock"

    def of(self, judge: Mapping[str, str]) -> Replies:
        """Those of the judge with this identity."""
        name = judge_hash(judge)
        place = (self.root.resolve(), name)
        with self._opening:
            found = self._open.get(place)
            if found is None:
                found = self._open[place] = Replies(self.root / name, judge, locks=self._locks)
        found.refresh()
        return found


def open_replies(place: Path) -> list[Replies]:
    """The kept replies of every judge at or below a folder."""
    files = sorted(place.rglob(WHO)) if place.is_dir() else []
    found = [Replies(file.parent, json.loads(file.read_text(encoding="utf-8"))) for file in files]
    for replies in found:
        replies.refresh()
    return found


def judge_hash(judge: Mapping[str, str]) -> str:
    """16 hex digits of SHA-256 over a judge's identity."""
    return hashlib.sha256(json.dumps(dict(judge), sort_keys=True).encode()).hexdigest()[:16]


def reply_key(judge: Mapping[str, str], chat: Chat, decoding: Mapping[str, Any], asked: Counter[str]) -> str:
    """The key of the next such request; `asked` counts identical ones, which each get a reply of their own."""
    content = {"judge": dict(judge), "chat": to_row(chat), "decoding": dict(decoding)}
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False)
    number = asked[canonical]
    asked[canonical] += 1
    return hashlib.sha256(f"{canonical}#{number}".encode("utf-8", "surrogatepass")).hexdigest()


def _place(key: str) -> int:
    """A key's byte in the lock file; byte 0 is the ledger's."""
    return 1 + int(key[:15], 16)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
