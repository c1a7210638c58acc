"""The cap in US dollars: never exceeded, whatever fails, restarts or runs beside."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from faulty_server import FaultyServer

from aipo.judges import JudgeError, OpenAIEndpoint, OpenAIJudge, Price, ReplyStore, stored
from aipo.judges.budget import Account, Budget
from aipo.records import Message

CHATS = [(Message("user", f"item {number:03}"),) for number in range(60)]
PRICE = Price(10.0, 1000.0, "made up")
"""The server counts one token in and one out: a reply costs 0.00101 dollars."""
REPLY = 0.00101
MOST = (8 + 16 + 16) * 1e-5 + 5 * 1e-3
"""Eight bytes, 16 tokens for the message and 16 for the template, and five tokens of a reply."""


def judge(url: str, **settings) -> OpenAIJudge:
    defaults = {"first_wait_s": 0.01, "longest_wait_s": 0.05, "timeout_s": 0.4, "max_concurrent": 8, "price": PRICE}
    return OpenAIJudge("judge", OpenAIEndpoint(url, None), "judge", **(defaults | settings))


def test_the_most_that_a_request_can_cost() -> None:
    asking = judge("http://127.0.0.1:1/v1")
    assert asking.most(CHATS[0], 5) == pytest.approx(MOST)
    assert asking.most((Message("user", "\u00e9\ud800"),), 5) == pytest.approx((5 + 32) * 1e-5 + 5e-3)
    assert judge("http://127.0.0.1:1/v1", price=None).most(CHATS[0], 5) is None


def test_a_cap_needs_a_price() -> None:
    with pytest.raises(ValueError, match="judge.max_dollars=5: what a request costs is not known; set judge.price"):
        judge("http://127.0.0.1:1/v1", price=None, max_dollars=5.0)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="judge.max_dollars: expected a positive number"):
            judge("http://127.0.0.1:1/v1", max_dollars=wrong)


def test_an_account_by_hand() -> None:
    account, budget = Account(), Budget(dollars=1.0)
    account.reserve(0.6)
    assert account.lacks_dollars(budget, 0.4) is None and account.lacks_dollars(budget, 0.41) is not None
    account.settle(0.6, 0.1)
    assert account.committed(budget) == pytest.approx(0.1) and account.lacks_dollars(budget, 0.9) is None
    account.reserve(0.5)  # never answered
    assert account.committed(budget) == pytest.approx(0.6) and account.requests == 2


@pytest.mark.parametrize("kept", [True, False])
def test_the_cap_is_used_up_and_not_exceeded(tmp_path: Path, kept: bool) -> None:
    """Requests under way reserve the most that they can cost; what they leave is used by those that wait."""
    server = FaultyServer(lambda prompt, attempt: None, latency_s=0.02)
    cap = 30 * REPLY
    with server.running() as url, pytest.raises(JudgeError, match="judge.max_dollars=0.0303 is spent, over all runs"):
        asking = judge(url, max_dollars=cap)
        (stored(asking, ReplyStore(tmp_path)) if kept else asking).reply(CHATS, max_tokens=5)
    sent = sum(server.requests.values())
    assert sent * REPLY <= cap and cap - sent * REPLY < MOST


@pytest.mark.parametrize("lock", ["flock", "lease"])
def test_the_cap_holds_over_restarts_and_faults(tmp_path: Path, lock) -> None:
    """Refused and failed requests are free, those that time out or cannot be read may have to be paid."""
    rng = random.Random(0)
    server = FaultyServer(lambda prompt, attempt: rng.choice(["429", "500", "not_json", "cut", None, None, None, None]))
    caps, asking = (10 * MOST, 15 * MOST, 20 * MOST), None
    with server.running() as url:
        for cap in caps:
            asking = judge(url, max_dollars=cap, max_attempts=20)
            for _ in range(2):
                store = ReplyStore(tmp_path, lock)
                ReplyStore._open.clear()  # as a process that begins
                with pytest.raises(JudgeError, match="max_dollars"):
                    stored(asking, store).reply(CHATS, max_tokens=5)
            ledger = store.of(asking.identity()).ledger()
            assert ledger.dollars == pytest.approx(REPLY * (ledger.replies - ledger.unreadable))
            assert cap - MOST < ledger.dollars + ledger.unsettled_dollars <= cap * (1 + 1e-9)
        ReplyStore._open.clear()
        assert len(stored(judge(url, max_attempts=20), ReplyStore(tmp_path, lock)).reply(CHATS, max_tokens=5)) == 60


def test_a_reply_without_usage_counts_as_the_most_it_can_cost(tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: None)
    completion = server._completion
    server._completion = lambda prompt, body: completion(prompt, body) | {"usage": None}
    with server.running() as url, pytest.raises(JudgeError, match="max_dollars"):
        stored(judge(url, max_dollars=7.5 * MOST), ReplyStore(tmp_path)).reply(CHATS, max_tokens=5)
    assert sum(server.requests.values()) == 7


def test_a_dead_endpoint_reserves_nothing(tmp_path: Path) -> None:
    asking = judge("http://127.0.0.1:1/v1", max_dollars=1.5 * MOST, max_outage_s=0.1)
    with pytest.raises(JudgeError, match="did not answer"):
        stored(asking, ReplyStore(tmp_path)).reply(CHATS[:2], max_tokens=5)
    deadline = time.monotonic() + 20
    while (ledger := ReplyStore(tmp_path).of(asking.identity()).ledger()).unsettled_dollars:
        assert time.monotonic() < deadline, ledger  # the other thread's last request ends a moment later
        time.sleep(0.05)
    assert ledger.requests >= 8
