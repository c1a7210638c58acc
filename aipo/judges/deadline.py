"""An attempt that ends. The time-out of an HTTP client counts from byte to byte: what drips would never meet it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from aipo.remote import BadReply

T = TypeVar("T")
LARGEST_BODY = 32 * 2**20
GRACE_S = 1.0
"""For the client's own time-outs to come first: they tell what was never sent."""


class Body(Protocol):
    """A response whose body is still to be read, as `with_streaming_response` of the openai client gives it."""

    @property
    def http_request(self) -> Any: ...

    def iter_bytes(self) -> Iterator[bytes]:
        """Its parts, as they come."""
        ...


def read_body(response: Body, until: float, largest: int = LARGEST_BODY) -> bytes:
    """The whole body. openai.APITimeoutError when it still drips at `until` on the monotonic clock, BadReply when it is
    too large. What has come whole when this process looks at the clock is a reply, however late it looks."""
    import openai

    body, late = bytearray(), False
    for part in response.iter_bytes():
        if late:
            raise openai.APITimeoutError(request=response.http_request)
        body += part
        if len(body) > largest:
            raise BadReply(f"expected a body of at most {largest:,} bytes, got more", bytes(body[:1000]))
        late = time.monotonic() > until
    return bytes(body)


@contextmanager
def told_as_the_clients() -> Iterator[None]:
    """Faults of HTTP as errors of the openai client, which tells them so only where it reads a body itself."""
    import openai

    try:
        yield
    except Exception as error:
        if not any(kind.__module__.partition(".")[0] in ("httpx", "httpx2") for kind in type(error).__mro__):
            raise
        nothing: Any = None
        told = f"{type(error).__name__}: {error}"
        raise openai.APIConnectionError(message=told, request=nothing) from error


def within(seconds: float, attempt: Callable[[], T]) -> T:
    """The attempt's result. openai.APITimeoutError when it takes longer; its thread is then left behind, and ends with
    the next byte that reaches it, or when the client is closed."""
    import openai

    ended: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            ended.put((attempt(), None))
        except BaseException as error:
            ended.put((None, error))

    threading.Thread(target=run, name=f"{threading.current_thread().name}-attempt", daemon=True).start()
    try:
        result, error = ended.get(timeout=seconds)
    except queue.Empty:
        nothing: Any = None
        raise openai.APITimeoutError(request=nothing) from None
    if error is not None:
        raise error
    found: Any = result
    return found
