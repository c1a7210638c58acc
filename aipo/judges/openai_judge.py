"""A judge behind any endpoint with the OpenAI protocol. No paid reply is lost, none is asked for twice."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aipo.judges.budget import Budget
from aipo.judges.chat_completion import ChatCompletion, NoLogprobs, read_chat_completion
from aipo.judges.deadline import GRACE_S, read_body, told_as_the_clients, within
from aipo.judges.endpoints import Endpoint, Price
from aipo.judges.judge import Clerk, JudgeError, Receipt
from aipo.judges.refusals import Refusals, Refused, about_the_item
from aipo.judges.unkept import UnkeptReplies
from aipo.records import Chat, JudgeReply
from aipo.remote import Attempts, BadReply, EndpointError, Fatal, GivenUp, RetryPolicy, may_cost, redact
from aipo.terminal import bar

if TYPE_CHECKING:
    from openai import OpenAI

logger = logging.getLogger("aipo")
WATCH_S = 2.0


@dataclass(frozen=True)
class OpenAIJudge:
    """Chat completions of `model`. Rate limits, server errors, time-outs and broken replies are tried again.

    A reply that cannot be read after three attempts, that a content filter withholds, or in whose place the endpoint
    refuses the request (too long a prompt), is a reply with an `error` and without text: no verdict can be read from
    it. An endpoint that finds fault with more than single items is an error, and what it refused is not kept.
    """

    model: str
    endpoint: Endpoint
    name: str
    """In tables, and a part of its identity."""
    max_concurrent: int = 16
    """Requests under way at once."""
    timeout_s: float = 120.0
    """Of one attempt, until the last byte of its reply."""
    max_attempts: int = 10
    """For one reply, while the endpoint answers others."""
    max_outage_s: float = 45.0
    """An endpoint that answers nothing for so long, and fails eight times in a row, is given up."""
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    """Also where the endpoint asks for more."""
    max_requests: int | None = None
    """The budget of this judge (name, model and address) in all runs that share a store, attempts included. None: no
    limit."""
    max_dollars: float | None = None
    """Likewise, in US dollars at `price`. A request is sent only if the most that it can cost is left. None: none."""
    asks_per_verdict: int = 1
    """How often, in all, one request is asked whose reply gives no verdict. 1: never again."""
    price: Price | None = None
    """For the estimate of plan=true, for the ledger and for `max_dollars`."""
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The protocol's name of the reply's limit; OpenAI's reasoning models take the second one only."""

    needs_world: ClassVar[bool] = False
    answers_any_chat: ClassVar[bool] = True
    keeps_replies: ClassVar[bool] = True
    OPERATIONAL: ClassVar[tuple[str, ...]] = (
        *("max_concurrent", "timeout_s", "max_attempts", "max_outage_s", "first_wait_s", "longest_wait_s"),
        *("max_requests", "max_dollars", "price"),
    )

    def __post_init__(self) -> None:
        for name in ("max_concurrent", "timeout_s", "max_attempts", "max_outage_s", "asks_per_verdict"):
            if getattr(self, name) <= 0:
                raise ValueError(f"judge.{name}: expected a positive number, got {getattr(self, name)}")
        if self.max_requests is not None and self.max_requests < 1:
            raise ValueError(f"judge.max_requests: expected 1 or more, or null for no limit, got {self.max_requests}")
        if self.max_dollars is not None and not 0 < self.max_dollars < float("inf"):
            raise ValueError(f"judge.max_dollars: expected a positive number, or null, got {self.max_dollars}")
        if self.max_dollars is not None and self.price is None:
            raise ValueError(
                f"judge.max_dollars={self.max_dollars:g}: what a request costs is not known; set judge.price (US "
                "dollars per million tokens), or judge.max_requests"
            )
        if self.token_limit not in ("max_tokens", "max_completion_tokens"):
            raise ValueError(
                f"judge.token_limit: expected max_tokens or max_completion_tokens, got {self.token_limit!r}"
            )

    def identity(self) -> dict[str, str]:
        """The model that is asked for, and where, as they are typed. With another name or address it is another judge,
        with replies and caps of its own."""
        return {"name": self.name, "model": self.model, "endpoint": self.endpoint.identity()}

    @property
    def budget(self) -> Budget:
        """Its caps."""
        return Budget(self.max_requests, self.max_dollars, self.price)

    def most(self, chat: Chat, max_tokens: int) -> float | None:
        """The most that a request can cost, in US dollars; None without a price.

        No tokenizer makes more tokens of a text than it has bytes; roles and the template get 16 a message and once.
        """
        if self.price is None:
            return None
        prompt = sum(len(message.content.encode("utf-8", "surrogatepass")) + 16 for message in chat) + 16
        return self.price.dollars(prompt, max_tokens)

    def missing(self) -> list[str]:
        """A key that is not in the environment, or an endpoint that does not answer within 5 s."""
        return self.endpoint.missing() or self.endpoint.probe()

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """One reply per chat, kept nowhere. JudgeError when one is given up."""
        clerk = UnkeptReplies(self.budget)
        self.reply_each(chats, clerk, max_tokens=max_tokens, temperature=temperature, top_logprobs=top_logprobs)
        return clerk.in_order(len(chats))

    def reply_each(
        self, chats: Sequence[Chat], clerk: Clerk, *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> None:
        """Ask every chat that `clerk` lets be claimed; each reply is kept by the thread that received it.

        JudgeError at the end when some were given up, at once when none can succeed. When this is interrupted, what is
        under way is waited for and kept, at most a second more than `timeout_s`; nothing more is sent.
        """
        if lacking := self.endpoint.missing():
            raise JudgeError(f"{self.name}: {'; '.join(lacking)}")
        settings: dict[str, Any] = {self.token_limit: max_tokens, "temperature": temperature}
        if top_logprobs:
            settings |= {"logprobs": True, "top_logprobs": top_logprobs}
        with self.endpoint.connect(self.timeout_s) as client:
            call = _Call(self, client, chats, settings, clerk)
            lost = call.run()
        if lost:
            first = next((error for error in lost if isinstance(error, Fatal)), lost[0])
            raise JudgeError(
                f"{self.name} ({self.model} at {redact(self.endpoint.identity())}): {call.open_ones()} of {len(chats)} "
                f"requests have no reply; all others are kept and will not be asked again. {first}"
            )

    def retry_policy(self) -> RetryPolicy:
        """Its patience."""
        return RetryPolicy(self.max_attempts, self.max_outage_s, self.first_wait_s, self.longest_wait_s)


class _Call:
    """The requests of one call to `reply_each`, on threads that take positions from a queue."""

    def __init__(
        self, judge: OpenAIJudge, client: OpenAI, chats: Sequence[Chat], settings: dict[str, Any], clerk: Clerk
    ) -> None:
        self.judge = judge
        self.client = client
        self.chats = chats
        self.settings = settings
        self.clerk = clerk
        self.attempts = Attempts(judge.retry_policy(), f"judge {judge.name} at {redact(judge.endpoint.identity())}")
        self.open: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.saw_logprobs = False
        self.refusals = Refusals(self._keep)
        self.settled = 0
        """Requests that have a reply now, or that another process sees to."""
        self.lock = threading.Lock()

    def open_ones(self) -> int:
        """How many requests have no reply."""
        return len(self.chats) - self.settled

    def run(self) -> list[EndpointError]:
        """The errors of the requests that have no reply."""
        for position in range(len(self.chats)):
            self.open.put(position)
        threads = [
            threading.Thread(target=self._work, name=f"judge-{number}", daemon=True)
            for number in range(min(self.judge.max_concurrent, len(self.chats)))
        ]
        lost: list[EndpointError] = []
        whole = False
        progress = bar(len(self.chats), f"judge {self.judge.name}")
        try:  # from the first thread on: a signal between two statements must not leave replies behind either
            for thread in threads:
                thread.start()
            for number in range(len(self.chats)):
                error = self._next(len(self.chats) - number)
                progress.update()
                if isinstance(error, EndpointError):
                    lost.append(error)
                elif error is not None:
                    raise error
            whole = self.attempts.fatal is None
        finally:
            self.attempts.stop()
            patience = self.judge.timeout_s + GRACE_S
            busy = sum(thread.is_alive() for thread in threads)
            if busy and lost == [] and self.open.qsize():
                told = "judge %s: stopping; up to %d replies under way are waited for, at most %.0f s"
                logger.info(told, self.judge.name, busy, patience)
            until = time.monotonic() + patience
            for thread in threads:
                with suppress(RuntimeError):  # not begun: it will find that this call has stopped
                    thread.join(max(0.0, until - time.monotonic()))
            progress.close()
            if fatal := self.refusals.end(whole=whole):
                lost.append(fatal)
        return lost

    def _next(self, waiting: int) -> BaseException | None:
        while True:
            try:
                return self.ended.get(timeout=WATCH_S)
            except queue.Empty:
                self.attempts.watch(waiting)

    def _work(self) -> None:
        while True:
            try:
                position = self.open.get_nowait()
            except queue.Empty:
                return
            try:
                self._one(position)
                self.ended.put(None)
            except BaseException as error:
                self.ended.put(error)

    def _one(self, position: int) -> None:
        if self.attempts.stopped.is_set():
            raise self.attempts.fatal or EndpointError("stopped")
        if not self.clerk.claim(position):
            self._settle()
            return
        try:
            reply, receipt, refusal = self._reply(self.chats[position])
            if refusal is None:
                self._keep(position, reply, receipt)
                self.refusals.answered()
                return
            about_item = about_the_item(refusal) or self.clerk.refused_before(position)
            if fatal := self.refusals.add(Refused(position, reply, receipt, about_item)):
                raise self.attempts.stop_for(fatal)
        finally:
            self.clerk.release(position)

    def _keep(self, position: int, reply: JudgeReply, receipt: Receipt) -> None:
        self.clerk.keep(position, reply, receipt)
        self._settle()

    def _settle(self) -> None:
        with self.lock:
            self.settled += 1

    def _reply(self, chat: Chat) -> tuple[JudgeReply, Receipt, Exception | None]:
        """Reply, receipt, and with what the endpoint refused the request, if it did."""
        most = self.judge.most(chat, self.settings[self.judge.token_limit])
        try:
            reply, receipt = self.attempts.call(
                lambda: within(self.judge.timeout_s + GRACE_S, lambda: self._ask(chat, most)),
                lambda: self.clerk.spend(most),
                lambda error: self.clerk.failed(most, may_cost(error)),
            )
            return reply, receipt, None
        except GivenUp as error:
            if not error.odd and not error.refused:
                raise
            top: dict[str, float] | None = {} if "logprobs" in self.settings else None
            raw = getattr(getattr(error.last, "response", None), "content", b"")
            raw = error.last.raw if isinstance(error.last, BadReply) else raw
            told = redact(str(error if error.refused else error.last))[:300]
            refusal = error.last if error.refused else None
            return JudgeReply("", top, None, told), Receipt(raw=raw, answers_request=False), refusal

    def _ask(self, chat: Chat, most: float | None) -> tuple[JudgeReply, Receipt]:
        messages: Any = [{"role": message.role, "content": message.content} for message in chat]
        until = time.monotonic() + self.judge.timeout_s
        completions = self.client.chat.completions.with_streaming_response
        asked = completions.create(model=self.judge.model, messages=messages, **self.settings)
        with told_as_the_clients(), asked as response:
            body = read_body(response, until)
        try:
            read = read_chat_completion(body, logprobs="logprobs" in self.settings)
        except NoLogprobs as error:
            if self.saw_logprobs:
                raise
            raise Fatal(
                "log-probabilities were asked for, and the endpoint returned none; use one that returns them, or a "
                "benchmark that reads text: alpaca_eval_text in place of alpaca_eval"
            ) from error
        self.saw_logprobs = self.saw_logprobs or not read.withheld
        return read.reply, self._receipt(read, body, most)

    def _receipt(self, read: ChatCompletion, body: bytes, most: float | None) -> Receipt:
        raw, price = body if read.withheld else None, self.judge.price
        if price is None or not (read.input_tokens or read.output_tokens):  # not told: what was reserved stands
            return Receipt(read.input_tokens, read.output_tokens, None, raw)
        dollars = price.dollars(read.input_tokens, read.output_tokens)
        return Receipt(read.input_tokens, read.output_tokens, dollars, raw, up_to=most)
