"""An attempt ends after judge.timeout_s, and Ctrl-C with it, also where the server sends a byte now and then."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import openai
import pytest

from aipo.judges import JudgeError, OpenAIEndpoint, OpenAIJudge, Price, ReplyStore, stored
from aipo.judges.deadline import LARGEST_BODY, read_body, within
from aipo.judges.openai_judge import _Call
from aipo.records import Message
from aipo.remote import BadReply

CHATS = [(Message("user", "a"),)]
PRICE = Price(10.0, 1000.0, "made up")
MOST = (1 + 16 + 16) * 1e-5 + 5 * 1e-3
HEAD = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "body": (HEAD % 200, b"1\r\n\n\r\n"),
    "error": (HEAD % 500, b"1\r\n\n\r\n"),
    "headers": (b"HTTP/1.1 200 X\r\nX-Long: ", b"x"),
}


@contextmanager
def dripping(head: bytes, drip: bytes) -> Iterator[str]:
    """The base URL of a server that answers with `head`, and then with `drip` ten times a second for 20 s."""
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(head)
            for _ in range(200):
                if over.wait(0.1):
                    return
                connection.sendall(drip)

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)


def judge(url: str, **settings) -> OpenAIJudge:
    """One that gives an endpoint up with its eighth failure, or a request with its second."""
    defaults = {"first_wait_s": 0.01, "longest_wait_s": 0.02, "timeout_s": 0.4, "max_outage_s": 0.1, "price": PRICE}
    return OpenAIJudge("judge", OpenAIEndpoint(url, None), "judge", **(defaults | settings))


@pytest.mark.parametrize("where", DRIPS)
def test_an_attempt_that_drips_is_given_up_and_counts_as_paid(tmp_path: Path, where: str) -> None:
    """Two attempts fit into the cap."""
    with dripping(*DRIPS[where]) as url:
        asking = judge(url, max_dollars=2.5 * MOST)
        started = time.monotonic()
        with pytest.raises(JudgeError, match="max_dollars"):
            stored(asking, ReplyStore(tmp_path)).reply(CHATS, max_tokens=5)
        assert time.monotonic() - started < 8  # two attempts of 0.4 s, or of 1.4 s where the client does not see it
        ledger = ReplyStore(tmp_path).of(asking.identity()).ledger()
    assert (ledger.requests, ledger.replies) == (2, 0) and ledger.unsettled_dollars == pytest.approx(2 * MOST)


def test_an_interruption_waits_no_longer_than_an_attempt_may_take(tmp_path: Path, monkeypatch, caplog) -> None:
    caplog.set_level("INFO", "aipo")

    def interrupted(call: _Call, waiting: int) -> BaseException | None:
        time.sleep(0.3)
        raise KeyboardInterrupt

    monkeypatch.setattr(_Call, "_next", interrupted)
    with dripping(*DRIPS["headers"]) as url:
        started = time.monotonic()
        chats = [(Message("user", str(number)),) for number in range(3)]
        with pytest.raises(KeyboardInterrupt):
            stored(judge(url, timeout_s=1.0, max_concurrent=2), ReplyStore(tmp_path)).reply(chats, max_tokens=5)
        assert 2 < time.monotonic() - started < 5  # 0.3 s, 1 s, and the second of patience; the server goes on for 20 s
    assert "up to 2 replies under way are waited for, at most 2 s" in caplog.text


class Parts:
    """A response that comes in these parts."""

    http_request = None

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts

    def iter_bytes(self) -> Iterator[bytes]:
        yield from self.parts


def test_a_body_beyond_the_largest_is_a_bad_reply() -> None:
    later = time.monotonic() + 60
    assert read_body(Parts(b"ab", b"c"), later, largest=3) == b"abc"
    with pytest.raises(BadReply, match="expected a body of at most 3 bytes, got more") as caught:
        read_body(Parts(b"ab", b"cd"), later, largest=3)
    assert caught.value.raw == b"abcd"


def test_what_has_come_whole_is_a_reply_however_late_it_is_looked_at() -> None:
    """A machine that was busy for longer than the time-out threw a paid reply away."""
    past = time.monotonic() - 1
    assert read_body(Parts(b"abc"), past) == b"abc"
    with pytest.raises(openai.APITimeoutError):
        read_body(Parts(b"ab", b"c"), past)


def test_a_huge_body_is_kept_as_unreadable_and_not_whole(tmp_path: Path) -> None:
    with huge() as url:
        (reply,) = stored(judge(url, timeout_s=60.0), ReplyStore(tmp_path)).reply(CHATS, max_tokens=5)
    assert reply.text == "" and f"at most {LARGEST_BODY:,} bytes" in (reply.error or "")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.jsonl")) < 10_000


@contextmanager
def huge() -> Iterator[str]:
    from faulty_server import FaultyServer

    server = FaultyServer(lambda prompt, attempt: None)
    server.raw = lambda prompt, attempt: (200, b" " * (LARGEST_BODY + 2**20), {})
    with server.running() as url:
        yield url


def test_a_result_and_an_error_come_through_in_time() -> None:
    assert within(5.0, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5.0, lambda: 1 // 0)
