"""The retry policy and its circuit breaker, against an endpoint that is not there."""

from __future__ import annotations

import socket
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo.judges import JudgeError, OpenAIEndpoint, OpenAIJudge
from aipo.records import Message
from aipo.remote import Attempts, BadReply, Fatal, GivenUp, RetryPolicy, Stopped, may_cost
from aipo.remote.attempts import retry_after_s

CHATS = [(Message("user", str(number)),) for number in range(200)]


def policy(**settings) -> RetryPolicy:
    return RetryPolicy(
        **({"max_attempts": 3, "max_outage_s": 0.2, "first_wait_s": 0.01, "longest_wait_s": 0.02} | settings)
    )


def judge(port: int, **settings) -> OpenAIJudge:
    defaults = {"first_wait_s": 0.02, "longest_wait_s": 0.1, "timeout_s": 0.4, "max_outage_s": 0.5}
    return OpenAIJudge("judge", OpenAIEndpoint(f"http://127.0.0.1:{port}/v1", None), "dead", **(defaults | settings))


def test_a_refusing_port_is_given_up_as_a_whole() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.perf_counter()
    with pytest.raises(JudgeError, match="200 of 200 requests have no reply.*did not answer for .* times in a row"):
        judge(port).reply(CHATS, max_tokens=1)
    assert time.perf_counter() - started < 20
    (line,) = judge(port).missing()
    assert line == f"judge http://127.0.0.1:{port}/v1: it does not answer; start it, or set judge.endpoint"


def test_a_port_that_swallows_everything_is_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aipo.judges.endpoints.PROBE_S", 0.3)
    monkeypatch.setattr("aipo.remote.probe.PROBE_S", 0.3)
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(256)
        port = hole.getsockname()[1]
        started = time.perf_counter()
        with pytest.raises(JudgeError, match="did not answer for .*APITimeoutError"):
            judge(port).reply(CHATS, max_tokens=1)
        assert time.perf_counter() - started < 20
        assert "it does not answer" in judge(port).missing()[0]


def test_silence_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("aipo.remote.attempts.SILENCE_S", 0.05)
    attempts = Attempts(policy(), "judge x")
    attempts.watch(3)
    assert not caplog.records
    time.sleep(0.06)
    attempts.watch(0)
    attempts.watch(3)
    attempts.watch(3)
    assert [record.getMessage() for record in caplog.records] == [
        "judge x has answered nothing for 0 s; 3 requests wait for it"
    ]


def test_a_request_is_given_up_and_the_next_goes_on() -> None:
    attempts, sent = Attempts(policy(max_attempts=2), "x"), []

    def odd() -> None:
        sent.append(1)
        raise BadReply("nonsense", b"raw")

    with pytest.raises(GivenUp, match="given up after 2 attempts; the last: BadReply: nonsense") as caught:
        attempts.call(odd)
    assert len(sent) == 2 and caught.value.odd and attempts.call(lambda: 7) == 7


def test_a_budget_stops_everybody() -> None:
    attempts = Attempts(policy(), "x")

    def spend() -> None:
        raise Fatal("spent")

    with pytest.raises(Fatal, match="spent"):
        attempts.call(lambda: 1, spend)
    with pytest.raises(Fatal, match="spent"):
        attempts.call(lambda: 1)


def test_a_bug_is_not_tried_again() -> None:
    sent = []

    def bug() -> None:
        sent.append(1)
        raise KeyError("name")

    with pytest.raises(KeyError):
        Attempts(policy(), "x").call(bug)
    assert sent == [1]


def test_stopping_ends_a_wait() -> None:
    attempts = Attempts(policy(first_wait_s=60.0, longest_wait_s=60.0, max_outage_s=600.0), "x")
    threading.Timer(0.05, attempts.stop).start()
    with pytest.raises(Stopped):
        attempts.call(lambda: (_ for _ in ()).throw(BadReply("odd")))


def test_a_long_retry_after_is_capped_and_shown(caplog: pytest.LogCaptureFixture) -> None:
    attempts = Attempts(policy(longest_wait_s=60.0), "judge x")
    error = SimpleNamespace(response=SimpleNamespace(headers={"retry-after": "3600"}))
    assert attempts._pause(error, "busy", 1) == 0.0
    assert 59 < attempts._not_before - time.monotonic() <= 60
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("judge x asks to wait 3600 s (") and line.endswith("60 s are waited")


@given(st.text(max_size=40) | st.floats().map(str) | st.integers().map(str) | st.sampled_from(["inf", "nan", "1e999"]))
def test_no_header_breaks_the_policy(value: str) -> None:
    error = SimpleNamespace(response=SimpleNamespace(headers={"retry-after": value}))
    asked = retry_after_s(error)
    assert asked is None or asked >= 0
    attempts = Attempts(policy(), "x")
    assert 0 <= attempts._pause(error, "busy", 1) <= 0.02
    assert attempts._not_before - time.monotonic() <= 0.02


def test_what_was_not_sent_because_all_was_given_up_costs_nothing() -> None:
    attempts, failures = Attempts(policy(), "endpoint"), []

    def spend() -> None:
        attempts.stop_for(Fatal("the quota is spent"))  # by another thread, while this one waits for its turn

    with pytest.raises(Fatal, match="the quota is spent"):
        attempts.call(lambda: pytest.fail("sent"), spend, failures.append)
    assert [may_cost(error) for error in failures] == [False]
