"""Replies that no endpoint should send: each is an item without a verdict, kept with its bytes; none stops the rest."""

from __future__ import annotations

import base64
import itertools
import json
import time
from pathlib import Path

import pytest
from faulty_server import FaultyServer
from malformed import responses

from aipo.benchmarks.verdicts import parse_first_token, parse_rating
from aipo.judges import JudgeError, ReplyStore, stored
from aipo.judges.chat_completion import read_chat_completion
from aipo.judges.endpoints import OpenAIEndpoint
from aipo.judges.openai_judge import OpenAIJudge
from aipo.records import Message, read_jsonl
from aipo.remote import BadReply

ODD = list(responses())


def judge(url: str, **settings) -> OpenAIJudge:
    defaults = {"first_wait_s": 0.001, "longest_wait_s": 0.01, "timeout_s": 2.0, "max_attempts": 4}
    return OpenAIJudge("judge", OpenAIEndpoint(url, None), "test judge", **(defaults | settings))


def test_every_malformed_response_costs_one_verdict_at_most(tmp_path: Path) -> None:
    """And is kept as it came; the next start asks for none that were answered."""
    assert len(ODD) >= 200 and len({name for name, *_ in ODD}) == len(ODD)
    server = FaultyServer(lambda prompt, attempt: None)

    def respond(prompt: str, attempt: int) -> tuple[int, bytes, dict[str, str]] | None:
        if not prompt.isdigit() or (ODD[int(prompt)][1] == 429 and attempt > 0):
            return None
        return ODD[int(prompt)][1:]

    server.raw = respond
    good = [f"good {number}" for number in range(40)]
    prompts = [str(number) for number in range(len(ODD))] + good
    chats = [(Message("user", prompt),) for prompt in prompts]
    store = ReplyStore(tmp_path)
    with server.running() as url:
        with pytest.raises(JudgeError, match="requests have no reply; all others are kept"):
            stored(judge(url), store).reply(chats, max_tokens=5, top_logprobs=5)
        kept = store.of(judge(url).identity())
        rows = [row for path in tmp_path.rglob("*.jsonl") for row in read_jsonl(path) if "key" in row]
        refused = len(prompts) - len(rows)
        never_200 = sum(status != 200 for _, status, _, _ in ODD)
        assert refused <= never_200, "a reply that arrived is not kept"
        odd = [row for row in rows if row["reply"]["error"]]
        bodies = {body for _, _, body, _ in ODD}
        assert len(odd) > 150 and all(base64.b64decode(row["raw_base64"]) in bodies for row in odd)
        assert kept.ledger().unreadable == len(odd)
        before = server.requests.copy()
        with pytest.raises(JudgeError):
            stored(judge(url), store).reply(chats, max_tokens=5, top_logprobs=5)
        assert len(server.requests - before) == refused, "what has a reply was asked again"
    assert all(server.requests[prompt] == 1 for prompt in good)
    for row in odd:
        assert parse_rating(row["reply"]["text"]) is None and parse_first_token(row["reply"]["top_logprobs"]) is None


@pytest.mark.parametrize(("name", "body"), [(name, body) for name, status, body, _ in ODD if status == 200])
def test_a_body_is_read_or_is_a_bad_reply(name: str, body: bytes) -> None:
    started = time.perf_counter()
    try:
        read = read_chat_completion(body, logprobs=True)
    except BadReply as error:
        assert error.raw == body and str(error)
    else:
        json.dumps(read.reply.text).encode("ascii")
        assert all(isinstance(value, float) for value in (read.reply.top_logprobs or {}).values())
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("order", list(itertools.permutations([("m", -0.1), ("M", -3.0), ("m", -9.0)])))
def test_of_a_token_that_comes_twice_the_likelier_counts(order: tuple[tuple[str, float], ...]) -> None:
    top = [{"token": token, "logprob": logprob} for token, logprob in order]
    choice = {"message": {"content": "m"}, "logprobs": {"content": [{"token": "m", "top_logprobs": top}]}}
    read = read_chat_completion(json.dumps({"choices": [choice]}).encode(), logprobs=True)
    assert read.reply.top_logprobs == {"m": -0.1, "M": -3.0}
    # e^-3 / (e^-0.1 + e^-3) = 1 / (1 + e^2.9) = 1 / 19.174145
    assert parse_first_token(read.reply.top_logprobs) == pytest.approx(0.0521536, abs=1e-7)


def test_a_withheld_reply_is_kept_at_once(tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: "filtered")
    with server.running() as url:
        for _ in range(2):
            (reply,) = stored(judge(url), ReplyStore(tmp_path)).reply([(Message("user", "a"),)], max_tokens=5)
    assert reply.text == "" and "content filter" in (reply.error or "") and server.requests["a"] == 1


def test_unreadable_replies_are_asked_again_on_request(tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: "no_choices" if attempt < 3 else None)
    chats = [(Message("user", "a"),)]
    with server.running() as url:
        asked = stored(judge(url, asks_per_verdict=2), ReplyStore(tmp_path))
        (bad,) = asked.reply(chats, max_tokens=5)
        assert "expected choices" in (bad.error or "") and server.requests["a"] == 3
        assert stored(judge(url), ReplyStore(tmp_path)).reply(chats, max_tokens=5) == [bad]
        assert asked.ask_again([bad]) == 1
        (good,) = stored(judge(url), ReplyStore(tmp_path)).reply(chats, max_tokens=5)
    assert good.text == "verdict on a" and server.requests["a"] == 4


def test_a_prompt_that_cannot_be_sent_costs_only_itself(tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: None)
    chats = [(Message("user", text),) for text in ("a", "\ud800", "b")]
    with server.running() as url:
        replies = stored(judge(url), ReplyStore(tmp_path)).reply(chats, max_tokens=5)
    assert [reply.text for reply in replies] == ["verdict on a", "", "verdict on b"]
    assert "refuses this request: UnicodeEncodeError" in replies[1].error
    assert server.answered == {"a": 1, "b": 1}
