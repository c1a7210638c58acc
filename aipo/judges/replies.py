"""The kept replies of one judge, and its ledger: `<store>/replies/<hash of its identity>/`, shared by every stage, job
and process.

The folder holds `judge.json` (who it is) and a journal of lines: `{"request": ..., "up_to": dollars}` before each
request is sent, with the most that it can cost; `{"key": ..., "take": n, ...}` for each reply; `{"again": key,
"take": n}` where a reply gave no verdict and is to be asked for anew; and `{"free": ...}` or `{"unsent": ...}` for a
request that cost nothing. Nothing is ever changed or taken away. So the ledger holds whatever happens to a process:
what is sent is counted before it is sent.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aipo.artifacts.claims import LockKind
from aipo.artifacts.files import StoreError, make_folder
from aipo.artifacts.inventory import REPLIES
from aipo.artifacts.mirror import Mirror, MirroredFolder
from aipo.judges.budget import Account, Budget
from aipo.judges.claims import ByteLocks, KeyClaims, Leases
from aipo.judges.judge import Receipt
from aipo.records import Chat, JudgeReply, from_row, to_row
from aipo.remote import Fatal, Journal, Line, redact
from aipo.remote.redaction import hide_values, hide_values_in_bytes

logger = logging.getLogger("aipo")
WHO = "judge.json"
PUSH_SECONDS = 60.0
"""A machine that vanishes in the middle of a judging takes no more with it than it was paid in so long."""


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
    unsettled_dollars: float = 0.0
    """What requests without a reply, or with one that does not say what it cost, may have cost at most."""
    unpriced_input_tokens: int = 0
    """Of replies that came while no price was set: no part of `dollars`."""
    unpriced_output_tokens: int = 0


class Replies:
    """One judge's folder. Safe for threads and processes; nothing is written before `keep`, `spend` or `ask_again`.

    With a `mirror`, replies of other machines are there from the last `pull` on; this one's are sent by `push`: after
    each call of the judge, and once a minute in between.

    With `lock="lease"`, for file systems without locks, which other machines may write to as well: claims are leases,
    and each line is on the disk when its writer goes on.
    """

    def __init__(
        self,
        folder: Path,
        judge: Mapping[str, str],
        lock: LockKind = "flock",
        mirror: MirroredFolder | None = None,
    ) -> None:
        self.folder = folder
        self.judge = dict(judge)
        self.account = Account()
        self._mirror = mirror
        self._pushed = time.monotonic()
        self._pushing = threading.Lock()
        self._lease = lock == "lease"
        self._claims: KeyClaims = Leases(folder) if self._lease else ByteLocks(folder)
        self._journal = Journal(folder, shared=self._lease)
        self._mutex = threading.RLock()
        self._ended = threading.Condition(self._mutex)
        self._under_way = 0
        self._found: dict[str, tuple[int, Line]] = {}
        self._wanted: dict[str, int] = {}
        """The first take that is to be used, where it is not 0."""
        self._claimed: set[str] = set()
        self._synced = 0.0

    def refresh(self) -> None:
        """Take in what other processes wrote. Raises JournalError for a line that was changed."""
        with self._mutex:
            if self._journal.vanished():
                self._journal.forget()
                self._found, self._wanted, self.account = {}, {}, Account()
                self._claims.close()
            for line, content in self._journal.unread():
                self._take_in(line, content)

    def __contains__(self, key: str) -> bool:
        """Whether there is a reply that is to be used."""
        found = self._found.get(key)
        return found is not None and found[0] >= self._wanted.get(key, 0)

    def get(self, key: str) -> JudgeReply:
        """The last reply under a key. KeyError where there is none."""
        return from_row(JudgeReply, self._found[key][1].read()["reply"])

    def last(self, key: str) -> JudgeReply | None:
        """The last reply under a key, also where another one is asked for; None where there is none."""
        return self.get(key) if key in self._found else None

    def claim(self, key: str) -> bool:
        """Take the right to ask for a key; False while somebody else has it. A process that dies gives it back."""
        with self._mutex:
            if key in self._claimed or not self._claims.take(key):
                return False
            self._claimed.add(key)
            return True

    def release(self, key: str) -> None:
        """Give it back."""
        with self._mutex:
            self._claimed.discard(key)
            self._claims.give_back(key)

    def spend(self, budget: Budget, up_to: float | None = None) -> None:
        """Write down that a request is about to be sent, which may cost `up_to` US dollars. Raises Fatal when the
        budget is spent; waits while requests of this process are under way, whose end may leave room for this one."""
        with self._mutex:
            while not self._reserve(budget, up_to):
                self._ended.wait()
            self._under_way += 1

    def _reserve(self, budget: Budget, up_to: float | None) -> bool:
        """False while there is no room, but may be soon. The mutex is held."""
        row: dict[str, Any] = {"request": _now()} | ({} if up_to is None else {"up_to": up_to})
        if not budget.capped:
            self._write(row)
            self.account.reserve(up_to)
            return True
        with self._claims.alone():
            self.refresh()
            if refusal := self.account.lacks_requests(budget):
                raise Fatal(refusal)
            if refusal := self.account.lacks_dollars(budget, up_to):
                if self._under_way:
                    return False
                raise Fatal(refusal)
            self._write(row)
            self.account.reserve(up_to)
            if self._lease:  # which may have been taken over while this process was stopped
                self.refresh()
                over = replace(budget, requests=budget.requests and budget.requests + 1)
                if refusal := self.account.lacks_requests(over) or self.account.lacks_dollars(budget, 0.0):
                    self._write({"unsent": _now(), "settles": up_to or 0.0})
                    self.account.requests -= 1
                    self.account.settle(up_to, None)
                    raise Fatal(refusal)
        return True

    def failed(self, up_to: float | None, may_cost: bool) -> None:
        """A request has no reply. Where it cannot have cost anything, what was reserved for it is free again."""
        with self._mutex:
            if up_to and not may_cost:
                self._write({"free": _now(), "settles": up_to})
                self.account.settle(up_to, None)
            self._end()

    def keep(self, key: str, decoding: Mapping[str, Any], reply: JudgeReply, receipt: Receipt) -> None:
        """Write a reply down, without the keys of this process that it may repeat."""
        row: dict[str, Any] = {"key": key, "take": self._wanted.get(key, 0), "at": _now(), "decoding": dict(decoding)}
        row |= {"input_tokens": receipt.input_tokens, "output_tokens": receipt.output_tokens}
        if receipt.dollars is not None:
            row["dollars"] = receipt.dollars
        if receipt.up_to is not None:
            row["settles"] = receipt.up_to
        if receipt.raw is not None:
            row["raw_base64"] = base64.b64encode(hide_values_in_bytes(receipt.raw)).decode("ascii")
        reply = replace(reply, text=hide_values(reply.text), error=reply.error and redact(reply.error))
        with self._mutex:
            try:
                self._found[key] = row["take"], self._write(row | {"reply": to_row(reply)})
                tokens = receipt.input_tokens, receipt.output_tokens
                self.account.replied(receipt.up_to, receipt.dollars, *tokens)
            finally:
                if receipt.answers_request:
                    self._end()
            if time.monotonic() - self._synced > 1:
                self.sync()

    def may_ask_again(self, key: str, asks: int) -> bool:
        """Whether a key has a reply and was asked fewer than `asks` times."""
        return key in self and self._found[key][0] + 1 < asks

    def ask_again(self, key: str, asks: int) -> bool:
        """Let the next judging ask for a key anew, unless it was asked `asks` times already; returns whether."""
        with self._mutex:
            if not self.may_ask_again(key, asks):
                return False
            self._wanted[key] = self._found[key][0] + 1
            self._write({"again": key, "take": self._wanted[key]})
            return True

    def sync(self) -> None:
        """Bring everything to the disk."""
        self._journal.sync()
        self._synced = time.monotonic()

    def pull(self) -> None:
        """Take in what was sent to the mirror. Raises StoreError."""
        if self._mirror is not None:
            with self._pushing:
                self._mirror.pull()

    def push(self) -> None:
        """Send what is new to the mirror. Raises StoreError."""
        if self._mirror is not None:
            with self._pushing:
                self._mirror.push()
            self._pushed = time.monotonic()

    def push_in_time(self) -> None:
        """Send what is new if that was not done for a minute; a fault can wait for the next time."""
        if self._mirror is None or time.monotonic() - self._pushed < PUSH_SECONDS:
            return
        self._pushed = time.monotonic()
        try:
            self.push()
        except StoreError as error:
            logger.warning("replies of judge %s: %s", self.judge.get("name", ""), error)

    def ledger(self) -> Ledger:
        """Sums over everything that was written."""
        replies = unreadable = tokens_in = tokens_out = 0
        account, priced = Account(), False
        for row in Journal(self.folder).rows():
            if "request" in row:
                account.reserve(row.get("up_to"))
                continue
            account.requests -= "unsent" in row
            if "key" not in row:
                account.settle(row.get("settles"), None)
            else:
                account.replied(row.get("settles"), row.get("dollars"), row["input_tokens"], row["output_tokens"])
                replies += 1
                unreadable += row["reply"]["error"] is not None
                tokens_in += row["input_tokens"]
                tokens_out += row["output_tokens"]
                priced = priced or "dollars" in row
        dollars = account.dollars if priced else None
        unpriced = account.unpriced_input, account.unpriced_output
        return Ledger(
            account.requests, replies, unreadable, tokens_in, tokens_out, dollars, account.reserved, *unpriced
        )

    def _take_in(self, line: Line, content: bytes) -> None:
        if content.startswith(b'{"request"'):
            self.account.reserve(_number(content, b'"up_to": '))
        elif content.startswith(b'{"key"'):
            start = content.index(b'"take": ') + 8
            self._add(content[9:73].decode("ascii"), int(content[start : content.index(b",", start)]), line)
            books = content[: content.index(b'"reply": {')]  # before any text that a judge wrote
            tokens = (int(_number(books, b'"%s_tokens": ' % side) or 0) for side in (b"input", b"output"))
            self.account.replied(_number(books, b'"settles": '), _number(books, b'"dollars": '), *tokens)
        else:
            row = json.loads(content.decode("utf-8"))
            if "again" in row:
                self._wanted[row["again"]] = max(self._wanted.get(row["again"], 0), row["take"])
            self.account.settle(row.get("settles"), None)
            self.account.requests -= "unsent" in row

    def _add(self, key: str, take: int, line: Line) -> None:
        """Of two replies to one request (a file system without locks) every process uses the same."""
        if key not in self._claimed:
            self._claims.forget(key)
        known = self._found.get(key)
        if known is None or take > known[0] or (take == known[0] and line.path.name < known[1].path.name):
            self._found[key] = take, line

    def _end(self) -> None:
        """A request of this process came to its end."""
        self._under_way -= 1
        self._ended.notify_all()

    def _write(self, row: Mapping[str, Any]) -> Line:
        who = self.folder / WHO
        if not who.exists():
            make_folder(self.folder, self.folder.parent.parent)
            temporary = who.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(self.judge, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            os.replace(temporary, who)
        return self._journal.append(row)


class ReplyStore:
    """Every judge's replies, beside the artifacts of a store."""

    _open: dict[tuple[Path, str, bool], Replies] = {}
    """One object for each folder of this process: its locks are the process's, not the object's."""
    _opening = threading.Lock()

    def __init__(
        self,
        root: str | os.PathLike[str],
        lock: LockKind = "flock",
        mirror: Mirror | None = None,
        *,
        asks: bool = True,
    ) -> None:
        self.root = Path(root) / REPLIES
        self.asks = asks
        """False: what is not kept is not asked for; a judging that would ask raises NotKept."""
        self._lock = lock
        self._mirror = mirror

    def of(self, judge: Mapping[str, str]) -> Replies:
        """Those of the judge with this identity."""
        name = judge_hash(judge)
        place = (self.root.resolve(), name, self._mirror is None)  # whoever plans, without one, pulls nothing
        with self._opening:
            found = self._open.get(place)
            if found is None:
                mirrored = None if self._mirror is None else self._mirror.folder(f"{REPLIES}/{name}")
                found = self._open[place] = Replies(self.root / name, judge, self._lock, mirrored)
        found.pull()
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


def _number(content: bytes, name: bytes) -> float | None:
    """A field's number, without reading the whole line as JSON."""
    start = content.find(name)
    if start < 0:
        return None
    return float(content[start + len(name) :].split(b",", 1)[0].rstrip(b"}\n"))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
