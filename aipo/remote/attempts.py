"""When a request is sent again, when it is given up, when the whole endpoint is, and how long to wait: for judges and
samplers alike, one policy for all threads."""

from __future__ import annotations

import email.utils
import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from aipo.remote.redaction import redact

T = TypeVar("T")
logger = logging.getLogger("aipo")

REFUSED = "the endpoint refuses this request"
"""How the error of such a request begins."""
ODD_ATTEMPTS = 3
"""How often a request is sent whose replies cannot be read: each may have cost money."""
LONGEST_BUSY_S = 600.0
"""How long an endpoint may refuse everything for its rate limit before the run is stopped."""
TELL_WAIT_S = 5.0
"""Waits that an endpoint asks for are shown from here on."""
SILENCE_S = 30.0
"""A line is shown when nothing has been answered for so long."""

Kind = Literal["down", "busy", "fault", "odd", "refused", "fatal", "bug"]


class EndpointError(RuntimeError):
    """A request has no result."""


class Fatal(EndpointError):
    """No request of this run can succeed: a refused key, an unknown model, a spent budget, a dead server."""


class Stopped(EndpointError):
    """Not sent, or not sent again, because the run is being stopped."""


class GivenUp(EndpointError):
    """This request alone has no result. `last` is what it failed with at last; `odd`: a reply that cannot be read;
    `refused`: the endpoint finds fault with the request itself."""

    def __init__(self, message: str, last: Exception, *, odd: bool = False, refused: bool = False) -> None:
        super().__init__(message)
        self.last = last
        self.odd = odd
        self.refused = refused


class BadReply(RuntimeError):
    """The endpoint answered, but with nothing that its protocol promises. `raw`: the body, where there was one."""

    def __init__(self, message: str, raw: bytes = b"") -> None:
        super().__init__(message)
        self.raw = raw


@dataclass(frozen=True)
class RetryPolicy:
    """How patient one is with an endpoint.

    After the k-th failure of a request its thread waits between half and the whole of `first_wait_s` * 2^(k-1), at most
    `longest_wait_s`. Where the endpoint names a time (Retry-After), every thread waits that long, at most
    `longest_wait_s`.
    """

    max_attempts: int
    """Of one request, while the endpoint answers others. Failures of an endpoint that answers nobody do not count."""
    max_outage_s: float
    """An endpoint that answers nothing for so long is given up, with everything that waits for it."""
    first_wait_s: float
    longest_wait_s: float
    min_failures: int = 8
    """And not before it has failed so often in a row."""
    tell_after_s: float = 10.0
    """An outage is shown from here on."""
    awaits_server: bool = False
    """Status 404, 502, 503 and 504 are those of a server that is being started, or does not serve this model yet. Else
    404 is what nothing will mend, and the others count against the request."""


class Attempts:
    """The requests of one call to an endpoint. Safe for threads. `name` stands in messages."""

    def __init__(self, policy: RetryPolicy, name: str) -> None:
        self.policy = policy
        self.name = name
        self.stopped = threading.Event()
        self.fatal: Fatal | None = None
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._failures = 0
        self._only_busy = True
        self._down_since: float | None = None
        self._told = False
        self._told_wait_until = 0.0
        self._last_answer = time.monotonic()
        self._told_silence = self._last_answer

    def call(
        self,
        request: Callable[[], T],
        spend: Callable[[], None] = lambda: None,
        failed: Callable[[Exception], None] = lambda error: None,
    ) -> T:
        """The request's result; `spend` is called before each attempt, which may wait there, and `failed` after one
        that has no result. Raises Fatal, GivenUp or Stopped."""
        counted = sent = odd = 0
        while True:
            self._wait_for_turn()
            try:
                spend()
            except Fatal as error:
                raise self.stop_for(error) from None
            if self.stopped.is_set():
                failed(Stopped("not sent"))
                raise self.fatal or Stopped("stopped")
            started = time.monotonic()
            sent += 1
            try:
                result = request()
            except Exception as error:
                failed(error)
                kind = kind_of(error, self.policy.awaits_server)
                if kind == "bug":
                    raise
                reason = describe(error)
                if kind == "fatal":
                    raise self.stop_for(
                        error if isinstance(error, Fatal) else Fatal(_fatal_text(error, reason))
                    ) from error
                if kind == "refused":
                    raise GivenUp(f"{REFUSED}: {reason}", error, refused=True) from error
                self._failed(kind, started, reason)
                odd += kind == "odd"
                counted += kind in ("fault", "odd") or (kind in ("down", "busy") and self._last_answer > started)
                if counted >= self.policy.max_attempts or odd >= ODD_ATTEMPTS:
                    raise GivenUp(
                        f"given up after {sent} attempts; the last: {reason}", error, odd=kind == "odd"
                    ) from error
                pause = self._pause(error, kind, sent)
            else:
                self._answered(started)
                return result
            if self.stopped.wait(pause):
                raise self.fatal or Stopped("stopped")

    def stop(self) -> None:
        """Send nothing more. Requests under way go on to their end."""
        self.stopped.set()

    def stop_for(self, error: Fatal) -> Fatal:
        """Stop, because nothing can succeed; returns the first such error."""
        with self._lock:
            if self.fatal is None:
                self.fatal = error
        self.stopped.set()
        return self.fatal

    def watch(self, waiting: int) -> None:
        """Called every few seconds while `waiting` requests have no result: says so when nothing is answered."""
        now = time.monotonic()
        with self._lock:
            silent = now - max(self._last_answer, self._told_silence)
            if waiting == 0 or silent < SILENCE_S or now < self._not_before:
                return
            self._told_silence = now
            since = now - self._last_answer
        logger.warning("%s has answered nothing for %.0f s; %d requests wait for it", self.name, since, waiting)

    def _wait_for_turn(self) -> None:
        while (left := self._not_before - time.monotonic()) > 0:
            if self.stopped.wait(left):
                break
        if self.stopped.is_set():
            raise self.fatal or Stopped("stopped")

    def _answered(self, started: float) -> None:
        with self._lock:
            now = time.monotonic()
            self._last_answer = now
            if self._down_since is None or started < self._down_since:
                return
            down, told = now - self._down_since, self._told
            self._failures, self._only_busy, self._down_since, self._told = 0, True, None, False
        if told:
            logger.info("%s answers again, after %.0f s", self.name, down)

    def _failed(self, kind: Kind, started: float, reason: str) -> None:
        """Count a failure of the endpoint; Fatal when it has failed for too long."""
        policy = self.policy
        with self._lock:
            now = time.monotonic()
            if started < self._last_answer:  # others got through after this request was sent
                return
            self._failures += 1
            self._only_busy = self._only_busy and kind == "busy"
            if self._down_since is None:
                self._down_since = started
            outage = now - self._down_since
            limit = max(LONGEST_BUSY_S, policy.max_outage_s) if self._only_busy else policy.max_outage_s
            over = self._failures >= policy.min_failures and outage >= limit
            tell = kind != "busy" and not self._told and not over and outage >= policy.tell_after_s
            self._told = self._told or tell
        if over:
            what = "refuses everything for its rate limit" if self._only_busy else "did not answer"
            error = Fatal(
                f"{self.name} {what} for {outage:.0f} s, {self._failures} times in a row; the last: {reason}. What was "
                "answered is kept: see to the server, then start the run again"
            )
            raise self.stop_for(error)
        if tell:
            logger.warning("%s does not answer (%s): waiting up to %.0f s for it", self.name, reason, limit)

    def _pause(self, error: Exception, kind: Kind, sent: int) -> float:
        """Seconds until this request's next attempt."""
        policy = self.policy
        wait = min(policy.first_wait_s * 2.0 ** min(sent - 1, 60), policy.longest_wait_s)
        asked = retry_after_s(error)
        if asked is None:
            return wait * random.uniform(0.5, 1)
        capped = min(asked, policy.longest_wait_s)
        with self._lock:
            until = time.monotonic() + capped
            tell = capped >= TELL_WAIT_S and until > self._told_wait_until
            if tell:
                self._told_wait_until = until + capped
            self._not_before = max(self._not_before, until)
        if tell:
            less = f", {capped:.0f} s are waited" if capped < asked else ""
            logger.warning("%s asks to wait %.0f s (%s)%s", self.name, asked, describe(error)[:80], less)
        return 0.0


def kind_of(error: Exception, awaits_server: bool = False) -> Kind:
    """What a failure says about the request and its endpoint."""
    import openai

    if isinstance(error, Fatal):
        return "fatal"
    if isinstance(error, BadReply | openai.APIResponseValidationError):
        return "odd"
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        if status == 429:
            return "fatal" if getattr(error, "code", None) == "insufficient_quota" else "busy"
        if status == 404:
            return "down" if awaits_server else "fatal"
        if status in (401, 402, 403):
            return "fatal"
        if status in (502, 503, 504) and awaits_server:
            return "down"
        return "fault" if status >= 500 or status in (408, 409) or status < 400 else "refused"
    if isinstance(error, openai.APIError):
        # A body that cannot be decompressed has arrived, whatever the client calls it.
        return "odd" if type(error.__cause__).__name__ == "DecodingError" else "down"
    if isinstance(error, UnicodeEncodeError):  # a lone surrogate in the prompt
        return "refused"
    return "bug"


def may_cost(error: Exception) -> bool:
    """Whether a failed request may have to be paid: not where the endpoint answered with an error, nor where nothing
    was sent."""
    import openai

    if isinstance(error, openai.APIStatusError | Stopped | UnicodeEncodeError):
        return False
    return type(error.__cause__).__name__ not in ("ConnectError", "ConnectTimeout", "PoolTimeout")


def describe(error: Exception) -> str:
    """One line, without keys."""
    return redact(" ".join(f"{type(error).__name__}: {error}".split()))[:500]


def retry_after_s(error: Any) -> float | None:
    """Seconds that the response's Retry-After header asks for, a number or a date; None where it says nothing sane."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    if math.isnan(seconds) or seconds < 0:
        return None
    return seconds


def _fatal_text(error: Exception, reason: str) -> str:
    if getattr(error, "code", None) == "insufficient_quota":
        return f"the account's quota is spent: {reason}"
    return f"the endpoint refuses every request: {reason}"
