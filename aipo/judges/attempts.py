"""When a request to a judge is sent again, when it is given up, and how long to wait: one policy for all threads."""

from __future__ import annotations

import email.utils
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aipo.judges.judge import JudgeError

T = TypeVar("T")


class Fatal(JudgeError):
    """No request of this run can succeed: a refused key, an unknown model, a spent budget."""


class BadReply(RuntimeError):
    """The endpoint answered, but with nothing that its protocol promises. Worth another attempt."""


@dataclass
class Attempts:
    """Counts requests against a budget and spaces them after failures. Safe for threads.

    After the k-th failure of an item its thread waits between half and the whole of `first_wait_s` * 2^(k-1), at most
    `longest_wait_s`. Where the endpoint names a time (Retry-After), every thread waits that long.
    """

    max_attempts: int
    first_wait_s: float
    longest_wait_s: float
    max_requests: int | None
    stopped: threading.Event = field(default_factory=threading.Event)
    requests: int = 0
    _not_before: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, request: Callable[[], T]) -> T:
        """The request's result. Fatal, or JudgeError when this item alone is given up."""
        failures: list[str] = []
        while True:
            self._wait_for_turn()
            self._spend()
            try:
                return request()
            except Exception as error:
                pause = self._pause_after(error, len(failures) + 1)
                failures.append(f"{type(error).__name__}: {str(error)[:200]}")
            if len(failures) == self.max_attempts:
                raise JudgeError(f"given up after {self.max_attempts} attempts; the last: {failures[-1]}")
            if self.stopped.wait(pause):
                raise JudgeError("stopped")

    def _wait_for_turn(self) -> None:
        while (left := self._not_before - time.monotonic()) > 0:
            if self.stopped.wait(left):
                break
        if self.stopped.is_set():
            raise JudgeError("stopped")

    def _spend(self) -> None:
        with self._lock:
            if self.max_requests is not None and self.requests >= self.max_requests:
                self.stopped.set()
                raise Fatal(
                    f"the budget of judge.max_requests={self.max_requests} requests is spent; what was answered is "
                    "kept. Raise it and start the run again"
                )
            self.requests += 1

    def _pause_after(self, error: Exception, failures: int) -> float:
        """Seconds to wait before the item's next attempt; raises what no attempt can mend."""
        import openai

        if isinstance(error, Fatal):
            self.stopped.set()
            raise error
        if isinstance(error, openai.RateLimitError) and error.code == "insufficient_quota":
            self.stopped.set()
            raise Fatal(f"the account's quota is spent: {error.message}") from error
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError | openai.NotFoundError):
            self.stopped.set()
            raise Fatal(f"the endpoint refuses every request: {error}") from error
        again = (408, 409, 429)
        if isinstance(error, openai.APIStatusError) and error.status_code < 500 and error.status_code not in again:
            raise JudgeError(f"the endpoint refuses this request: {error}") from error
        if not isinstance(error, openai.APIError | BadReply | json.JSONDecodeError):
            raise error
        wait = min(self.first_wait_s * 2 ** (failures - 1), self.longest_wait_s) * random.uniform(0.5, 1)
        asked = _retry_after_s(error)
        if asked is not None:
            with self._lock:
                self._not_before = max(self._not_before, time.monotonic() + asked)
        return wait


def _retry_after_s(error: Any) -> float | None:
    """Seconds that the response's Retry-After header asks for: a number, or a date."""
    value = getattr(getattr(error, "response", None), "headers", {}).get("retry-after")
    if value is None:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:
        return None
