"""Tokens that an endpoint does not say, or said while no price was set, count against the cap in US dollars."""

from __future__ import annotations

from pathlib import Path

import pytest
from faulty_server import FaultyServer

from aipo.judges import JudgeError, OpenAIEndpoint, OpenAIJudge, Price, ReplyStore, stored
from aipo.judges.__main__ import main
from aipo.judges.chat_completion import read_chat_completion
from aipo.judges.replies import open_replies
from aipo.records import Message

CHATS = [(Message("user", f"item {number:03}"),) for number in range(60)]
PRICE = Price(10.0, 1000.0, "made up")
MOST = (8 + 16 + 16) * 1e-5 + 5 * 1e-3
"""Of a request: 8 bytes, 16 tokens for the message and 16 for the template, and five tokens of a reply."""


def judge(url: str, **settings) -> OpenAIJudge:
    return OpenAIJudge(
        "judge", OpenAIEndpoint(url, None), "judge", **({"max_concurrent": 4, "price": PRICE} | settings)
    )


def counting(usage: object) -> FaultyServer:
    server = FaultyServer(lambda prompt, attempt: None)
    completion = server._completion
    server._completion = lambda prompt, body: completion(prompt, body) | {"usage": usage}
    return server


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 2000.0}, (10, 2000)),
        ({"prompt_tokens": 10.0, "completion_tokens": 3}, (10, 3)),
        ({"prompt_tokens": 10, "completion_tokens": 0}, (10, 0)),
        ({"prompt_tokens": 10}, (0, 0)),
        ({"prompt_tokens": 10, "completion_tokens": 2.5}, (0, 0)),
        ({"prompt_tokens": 10, "completion_tokens": True}, (0, 0)),
        ({"prompt_tokens": 10, "completion_tokens": float("nan")}, (0, 0)),
        ({"prompt_tokens": 10, "completion_tokens": float("inf")}, (0, 0)),
        ({"prompt_tokens": -1, "completion_tokens": 3}, (0, 0)),
        ({"prompt_tokens": "10", "completion_tokens": 3}, (0, 0)),
        (None, (0, 0)),
    ],
)
def test_both_counts_are_read_or_none(usage: object, expected: tuple[int, int]) -> None:
    import json

    body = {"choices": [{"message": {"content": "x"}}], "usage": usage}
    read = read_chat_completion(json.dumps(body).encode(), logprobs=False)
    assert (read.input_tokens, read.output_tokens) == expected


def test_half_a_count_keeps_the_reservation(tmp_path: Path) -> None:
    server = counting({"prompt_tokens": 10})
    with server.running() as url, pytest.raises(JudgeError, match="max_dollars"):
        stored(judge(url, max_dollars=7.5 * MOST), ReplyStore(tmp_path)).reply(CHATS, max_tokens=5)
    (replies,) = open_replies(tmp_path)
    assert sum(server.requests.values()) == 7
    assert replies.ledger().unsettled_dollars == pytest.approx(7 * MOST)
    assert replies.account.committed(judge(url).budget) == pytest.approx(7 * MOST)


def test_a_count_that_is_a_whole_float_is_paid(tmp_path: Path) -> None:
    """A reply costs 0.0051 dollars of the 0.0054 that are reserved for it."""
    server = counting({"prompt_tokens": 10, "completion_tokens": 5.0})
    with server.running() as url, pytest.raises(JudgeError, match=r"replies cost \$0.051, "):
        stored(judge(url, max_dollars=0.0515), ReplyStore(tmp_path)).reply(CHATS, max_tokens=5)
    assert sum(server.requests.values()) == 10


@pytest.mark.parametrize("begins", [True, False])
def test_what_came_without_a_price_counts_at_the_one_that_is_set_later(
    tmp_path: Path, begins: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the same process, and in one that reads the journal (`begins`)."""
    server = counting({"prompt_tokens": 10, "completion_tokens": 5})
    with server.running() as url:
        stored(judge(url, price=None), ReplyStore(tmp_path)).reply(CHATS[:10], max_tokens=5)
        if begins:
            ReplyStore._open.clear()
        priced = judge(url, max_dollars=0.0515 + MOST)
        with pytest.raises(JudgeError, match="max_dollars"):
            stored(priced, ReplyStore(tmp_path)).reply(CHATS[10:], max_tokens=5)
    assert sum(server.requests.values()) == 11, "ten replies of $0.0051 were free"
    (replies,) = open_replies(tmp_path)
    ledger = replies.ledger()
    assert (ledger.unpriced_input_tokens, ledger.unpriced_output_tokens) == (100, 50)
    assert ledger.dollars == pytest.approx(0.0051) and ledger.input_tokens == 110
    assert main(["spent", str(tmp_path)]) == 0
    assert "- judge: 100 input and 50 output tokens came while no judge.price was set" in capsys.readouterr().out
