"""A judge that pays for every reply once: it asks only what the reply store does not hold.

A key is the SHA-256 of the judge's identity, the prompt, the decoding and the number of earlier identical requests in
the same judging. So identical requests of one judging get a reply each, and two judgings that ask the same things
share. A model under another name, or at an address that is typed otherwise, is another judge: it is paid anew, and has
caps of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from aipo.judges.budget import Budget
from aipo.judges.judge import Judge, PaidJudge, Receipt
from aipo.judges.kin import kin
from aipo.judges.refusals import REFUSED_AT_ONCE
from aipo.judges.replay import ReplayJudge
from aipo.judges.replies import Replies, ReplyStore, reply_key
from aipo.records import Chat, JudgeReply, Judgment
from aipo.remote.attempts import REFUSED

logger = logging.getLogger("aipo")
POLL_S = 0.5


class NotKept(Exception):
    """A judging that may use kept replies alone would send a request."""


class StoredJudge:
    """One judging by `judge`: replies come from `replies` where they are there, and are kept there as they arrive.

    With `asks=False` nobody is asked and nothing is written: NotKept is raised instead.
    """

    keeps_replies = True

    def __init__(self, judge: PaidJudge, replies: Replies, *, asks: bool = True) -> None:
        self.name = judge.name
        self.needs_world = judge.needs_world
        self.answers_any_chat = judge.answers_any_chat
        self.asks_per_verdict = judge.asks_per_verdict
        self._judge = judge
        self._replies = replies
        self._asks = asks
        self._asked: Counter[str] = Counter()
        self._given: dict[int, tuple[str, JudgeReply]] = {}
        """Key and reply by the reply's id(): what was handed out."""

    def identity(self) -> dict[str, str]:
        """The wrapped judge's."""
        return self._judge.identity()

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """One reply per chat, from the store where it is there, else from the judge, else from the process that is
        asking the same. Raises JudgeError."""
        decoding = {"max_tokens": max_tokens, "temperature": temperature, "top_logprobs": top_logprobs}
        identity = self.identity()
        keys = [reply_key(identity, chat, decoding, self._asked) for chat in chats]
        try:
            self._answer(chats, keys, decoding)
        finally:
            self._replies.push()
        found = [self._replies.get(key) for key in keys]
        self._given |= {id(reply): (key, reply) for reply, key in zip(found, keys, strict=True)}
        if self._asks and (unreadable := [reply for reply in found if reply.error is not None]):
            logger.warning(
                "judge %s: %d of %d requests have no reply that can be read, the first: %s",
                *(self.name, len(unreadable), len(found), unreadable[0].error),
            )
        return found

    def _answer(self, chats: Sequence[Chat], keys: Sequence[str], decoding: Mapping[str, Any]) -> None:
        """Until the store has a reply under every key."""
        told = False
        while open_ones := [index for index, key in enumerate(keys) if key not in self._replies]:
            if not self._asks:
                raise NotKept
            self._tell_kin()
            clerk = StoreClerk(self._replies, [keys[index] for index in open_ones], decoding, self._judge.budget)
            clerk.few_are_left = len(open_ones) < min(len(keys), REFUSED_AT_ONCE) and self._any_answered(keys)
            asked = [chats[index] for index in open_ones]
            try:
                self._judge.reply_each(asked, clerk, **decoding)
            finally:
                self._replies.sync()
            if clerk.claimed == 0 and any(keys[index] not in self._replies for index in open_ones):
                if not told:
                    logger.info("judge %s: waiting for replies that another process asks for", self.name)
                told = True
                time.sleep(POLL_S)
                self._replies.refresh()

    def _any_answered(self, keys: Iterable[str]) -> bool:
        return any(self._replies.get(key).error is None for key in keys if key in self._replies)

    def _tell_kin(self) -> None:
        """Before the first request of a judge: what may be meant as the same one, and has replies."""
        if self._replies.account.requests:
            return
        for different in kin(self._replies.folder.parent, self.identity()):
            logger.warning(
                "judge %s: this store has replies of the same model as another judge, with %s; a name and an address "
                "count as they are typed. Nothing of it is used: everything is asked anew, under caps of its own",
                *(self.name, different),
            )

    def ask_again(self, without_verdict: Iterable[JudgeReply]) -> int:
        """Let the next judging ask anew for replies that gave no verdict, up to `asks_per_verdict` times in all.
        Returns how many. The old replies stay in the store."""
        keys = {self._given[id(reply)][0] for reply in without_verdict if id(reply) in self._given}
        if not self._asks:
            if any(self._replies.may_ask_again(key, self.asks_per_verdict) for key in keys):
                raise NotKept
            return 0
        return sum(self._replies.ask_again(key, self.asks_per_verdict) for key in sorted(keys))


class StoreClerk:
    """Books of one call that go into the store."""

    def __init__(self, replies: Replies, keys: Sequence[str], decoding: Mapping[str, Any], budget: Budget) -> None:
        self.claimed = 0
        self.few_are_left = False
        """Fewer than a row of refusals would be, of requests of which others were answered before: a refusal is then
        an item's last word, or the judging could never end."""
        self._replies = replies
        self._keys = keys
        self._decoding = decoding
        self._budget = budget
        self._lock = threading.Lock()

    def claim(self, position: int) -> bool:
        """Unless another process asks the same, or has just been answered."""
        key = self._keys[position]
        if not self._replies.claim(key):
            return False
        self._replies.refresh()
        if key in self._replies:
            self._replies.release(key)
            return False
        with self._lock:
            self.claimed += 1
        return True

    def spend(self, up_to: float | None = None) -> None:
        """A line in the ledger."""
        self._replies.spend(self._budget, up_to)

    def failed(self, up_to: float | None, may_cost: bool) -> None:
        """Another line, where something was reserved that was not spent."""
        self._replies.failed(up_to, may_cost)

    def keep(self, position: int, reply: JudgeReply, receipt: Receipt) -> None:
        """A line in the journal."""
        self._replies.keep(self._keys[position], self._decoding, reply, receipt)
        self._replies.push_in_time()

    def refused_before(self, position: int) -> bool:
        """Where a judging with `asks_per_verdict` of 2 and more asks it anew, or where these are the last few."""
        if self.few_are_left:
            return True
        last = self._replies.last(self._keys[position])
        return last is not None and (last.error or "").startswith(REFUSED)

    def release(self, position: int) -> None:
        """Others may ask it, where it got no reply."""
        self._replies.release(self._keys[position])


def stored(judge: Judge, store: ReplyStore) -> Judge:
    """The judge of one judging: with its replies kept in `store`, where they are worth it."""
    if isinstance(judge, ReplayJudge):
        return replace(judge)  # which counts identical requests from 0
    if not judge.keeps_replies:
        return judge
    return StoredJudge(cast(PaidJudge, judge), store.of(judge.identity()), asks=store.asks)


def judged(judge: Judge, store: ReplyStore, judging: Callable[[Judge], list[Judgment]]) -> list[Judgment]:
    """What `judging` makes of the judge's replies. Those without a verdict are asked for anew, as often as the judge's
    `asks_per_verdict` allows; everything else then comes from the store."""
    while True:
        asked = stored(judge, store)
        judgments = judging(asked)
        if not isinstance(asked, StoredJudge) or not asked.ask_again(without_verdict(judgments)):
            return judgments


def without_verdict(judgments: Iterable[Judgment]) -> list[JudgeReply]:
    """The replies from which no verdict could be read: the last one of each unscored judgment that has any."""
    return [judgment.replies[-1] for judgment in judgments if judgment.value is None and judgment.replies]
