"""The OpenAI-protocol judge against a server that fails in every way it can: nothing lost, nothing asked twice."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest
from faulty_server import FaultyServer

from aipo.judges import JudgeError
from aipo.judges.endpoints import AzureEndpoint, OpenAIEndpoint, Price
from aipo.judges.openai_judge import OpenAIJudge
from aipo.judges.replies import ReplyStore
from aipo.judges.store import judged, stored
from aipo.records import JudgeReply, Judgment, Message

PROMPTS = [f"prompt {number}" for number in range(24)]
CHATS = [(Message("system", "You judge."), Message("user", prompt)) for prompt in PROMPTS]


def judge(url: str, **settings) -> OpenAIJudge:
    defaults = {"first_wait_s": 0.02, "longest_wait_s": 0.1, "timeout_s": 1.0, "max_concurrent": 8}
    return OpenAIJudge("judge", OpenAIEndpoint(url, None), "test judge", **(defaults | settings))


def test_replies_come_in_order_with_the_model_that_answered() -> None:
    server = FaultyServer(lambda prompt, attempt: None)
    with server.running() as url:
        replies = judge(url).reply(CHATS, max_tokens=7, temperature=0.5, top_logprobs=5)
    expected = {"m": -0.25, "M": -1.5}
    assert replies == [JudgeReply(f"verdict on {prompt}", expected, "judge-2024-01-01") for prompt in PROMPTS]
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("judge", 7, 0.5)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 5)
    assert body["messages"][0] == {"role": "system", "content": "You judge."}


def test_log_probs_are_not_asked_for_where_none_are_needed() -> None:
    server = FaultyServer(lambda prompt, attempt: None)
    with server.running() as url:
        (reply,) = judge(url, token_limit="max_completion_tokens").reply(CHATS[:1], max_tokens=7)
    assert reply.top_logprobs is None and "logprobs" not in server.bodies[0]
    assert server.bodies[0]["max_completion_tokens"] == 7 and "max_tokens" not in server.bodies[0]


@pytest.mark.parametrize("fault", ["429", "500", "slow", "not_json", "no_choices", "no_text", "cut"])
def test_a_passing_fault_costs_no_verdict(fault: str, tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: fault if attempt == 0 and int(prompt.split()[1]) % 3 == 0 else None)
    with server.running() as url:
        replies = stored(judge(url), ReplyStore(tmp_path)).reply(CHATS, max_tokens=7)
        assert [reply.text for reply in replies] == [f"verdict on {prompt}" for prompt in PROMPTS]
        assert all(server.requests[prompt] == 1 + (index % 3 == 0) for index, prompt in enumerate(PROMPTS))
        again = stored(judge(url), ReplyStore(tmp_path)).reply(CHATS, max_tokens=7)
    assert again == replies and sum(server.requests.values()) == 24 + 8


def test_retry_after_holds_every_thread_back() -> None:
    server = FaultyServer(lambda prompt, attempt: "429" if prompt == PROMPTS[0] and attempt == 0 else None, 0.05)
    with server.running() as url:
        judge(url, max_concurrent=2, longest_wait_s=1.0).reply(CHATS[:8], max_tokens=7)
    gaps = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    assert max(gaps) >= 0.25  # Retry-After: 0.3, less what was under way


def test_what_is_given_up_is_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    bad = {"prompt 3": "500", "prompt 7": "500"}
    server = FaultyServer(lambda prompt, attempt: bad.get(prompt))
    store = ReplyStore(tmp_path)
    with server.running() as url:
        with pytest.raises(JudgeError, match="2 of 24 requests have no reply; all others are kept"):
            stored(judge(url, max_attempts=3), store).reply(CHATS, max_tokens=7)
        assert server.requests["prompt 3"] == 3 == server.requests["prompt 7"]
        assert store.of(judge(url).identity()).ledger().replies == 22
        bad.clear()
        stored(judge(url), store).reply(CHATS, max_tokens=7)
    assert max(server.answered.values()) == 1 and len(server.answered) == 24


def test_a_refused_request_is_an_unscored_item_with_its_body(tmp_path: Path, caplog) -> None:
    """A prompt too long for the judge, say: the other verdicts do not wait for it, and it is asked again on request."""
    bad = {"prompt 3": "refused"}
    server = FaultyServer(lambda prompt, attempt: bad.get(prompt))
    store = ReplyStore(tmp_path)

    def judging(asked) -> list[Judgment]:
        replies = asked.reply(CHATS, max_tokens=7)
        return [Judgment(prompt, 1, "single", 1.0 if reply.text else None, (reply,), "judge", "")
                for prompt, reply in zip(PROMPTS, replies, strict=True)]  # fmt: skip

    with server.running() as url:
        for _ in range(2):
            judgments = judged(judge(url), store, judging)
            assert [item.question_id for item in judgments if item.value is None] == ["prompt 3"]
        assert server.requests["prompt 3"] == 1 and sum(server.requests.values()) == 24
        (reply,) = judgments[3].replies
        assert "the endpoint refuses this request" in reply.error and "1 of 24 requests have no reply" in caplog.text
        assert store.of(judge(url).identity()).ledger().unreadable == 1
        rows = [json.loads(line) for path in tmp_path.rglob("*.jsonl") for line in path.read_text().splitlines()]
        (raw,) = [base64.b64decode(row["raw_base64"]) for row in rows if "raw_base64" in row]
        assert json.loads(raw)["error"]["message"] == "refused"
        bad.clear()
        assert all(item.value == 1.0 for item in judged(judge(url, asks_per_verdict=2), store, judging))
    assert server.requests["prompt 3"] == 2 and sum(server.requests.values()) == 25


def test_a_few_prompts_that_are_too_long_are_kept_also_alone(tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: "refused")
    error = {"message": "x", "code": "context_length_exceeded"}
    server.raw = lambda prompt, attempt: (400, json.dumps({"error": error}).encode(), {})
    with server.running() as url:
        replies = stored(judge(url), ReplyStore(tmp_path)).reply(CHATS[:3], max_tokens=7)
    assert all(reply.text == "" and "refuses" in reply.error for reply in replies)


def test_an_endpoint_that_refuses_everything_stops_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: "refused", 0.02)
    store = ReplyStore(tmp_path)
    with server.running() as url:
        with pytest.raises(JudgeError, match="24 of 24 .* refuses every request, 8 so far; the last: .* refused"):
            stored(judge(url, max_concurrent=2), store).reply(CHATS, max_tokens=7)
        ledger = store.of(judge(url).identity()).ledger()
    # The last one may be given up before the server has read it; it counts all the same.
    assert ledger.replies == 0 and 8 <= sum(server.requests.values()) <= ledger.requests <= 10


def test_an_unknown_model_stops_at_once(tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: None, 0.05)
    server.raw = lambda prompt, attempt: (404, b'{"error": {"message": "no such model"}}', {})
    with server.running() as url, pytest.raises(JudgeError, match="refuses every request: .* no such model"):
        judge(url, max_concurrent=2).reply(CHATS, max_tokens=7)
    assert sum(server.requests.values()) <= 4


def test_a_missing_key_is_an_error_only_where_something_has_to_be_asked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TEST_JUDGE_KEY", "secret-word")
    server = FaultyServer(lambda prompt, attempt: None)
    with server.running() as url:
        keyed = OpenAIJudge("judge", OpenAIEndpoint(url, "TEST_JUDGE_KEY"), "test judge")
        first = stored(keyed, ReplyStore(tmp_path)).reply(CHATS[:2], max_tokens=7)
    monkeypatch.delenv("TEST_JUDGE_KEY")
    assert stored(keyed, ReplyStore(tmp_path)).reply(CHATS[:2], max_tokens=7) == first
    with pytest.raises(JudgeError, match="TEST_JUDGE_KEY is not set"):
        stored(keyed, ReplyStore(tmp_path)).reply(CHATS[:3], max_tokens=7)


@pytest.mark.parametrize(("fault", "words"), [("unknown_key", "refuses every request"), ("quota", "quota is spent")])
def test_what_nothing_can_mend_stops_at_once(fault: str, words: str) -> None:
    server = FaultyServer(lambda prompt, attempt: fault, 0.05)
    with server.running() as url, pytest.raises(JudgeError, match=words):
        judge(url, max_concurrent=2).reply(CHATS, max_tokens=7)
    assert sum(server.requests.values()) <= 4


def test_the_budget_stops_the_run_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: None)
    store = ReplyStore(tmp_path)
    with server.running() as url:
        with pytest.raises(JudgeError, match="max_requests=10"):
            stored(judge(url, max_requests=10), store).reply(CHATS, max_tokens=7)
        for _ in range(3):
            with pytest.raises(JudgeError, match="max_requests=10 is spent: it counts every request to this judge"):
                stored(judge(url, max_requests=10), store).reply(CHATS, max_tokens=7)
        ledger = store.of(judge(url).identity()).ledger()
        assert sum(server.requests.values()) == 10 == ledger.requests == ledger.replies
        stored(judge(url, max_requests=24), store).reply(CHATS, max_tokens=7)
    assert sum(server.requests.values()) == 24


def test_a_changed_model_name_is_recorded(tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: None)
    store = ReplyStore(tmp_path)
    with server.running() as url:
        stored(judge(url), store).reply(CHATS[:2], max_tokens=7)
        server.model = "judge-2024-06-01"
        replies = stored(judge(url), store).reply(CHATS[:4], max_tokens=7)
    assert [reply.model for reply in replies] == ["judge-2024-01-01"] * 2 + ["judge-2024-06-01"] * 2


def test_requests_run_at_once() -> None:
    server = FaultyServer(lambda prompt, attempt: None, latency_s=0.2)
    with server.running() as url:
        judge(url).reply(CHATS[:1], max_tokens=7)  # imports and the first connection
        start = time.perf_counter()
        judge(url, max_concurrent=24).reply(CHATS, max_tokens=7)
    assert time.perf_counter() - start < 24 * 0.2 / 3


def test_keys_come_from_the_environment_and_stay_there(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEST_JUDGE_KEY", "secret-word")
    server = FaultyServer(lambda prompt, attempt: None)
    store = ReplyStore(tmp_path)
    with server.running() as url:
        keyed = OpenAIJudge("judge", OpenAIEndpoint(url, "TEST_JUDGE_KEY"), "test judge")
        assert keyed.missing() == []  # the server answers, if only that it knows no models
        stored(keyed, store).reply(CHATS[:1], max_tokens=7)
    assert server.headers[0]["authorization"] == "Bearer secret-word"
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 3 and not any("secret-word" in text for text in [*written, json.dumps(keyed.identity())])
    monkeypatch.delenv("TEST_JUDGE_KEY")
    (line,) = keyed.missing()
    assert "TEST_JUDGE_KEY is not set" in line


def test_an_endpoint_without_log_probs_is_refused_at_its_first_reply() -> None:
    server = FaultyServer(lambda prompt, attempt: "no_logprobs", 0.02)
    with server.running() as url, pytest.raises(JudgeError, match="alpaca_eval_text in place of alpaca_eval"):
        judge(url, max_concurrent=2).reply(CHATS, max_tokens=1, top_logprobs=5)
    assert sum(server.requests.values()) <= 4


def test_azure_names_its_deployment() -> None:
    endpoint = AzureEndpoint("https://name.openai.azure.com", "2024-10-21")
    assert endpoint.identity() == "https://name.openai.azure.com 2024-10-21"
    with pytest.raises(ValueError, match="expected a URL"):
        AzureEndpoint("name.openai.azure.com", "2024-10-21")


def test_prices() -> None:
    assert Price(10.0, 30.0, "list").dollars(2000, 100) == pytest.approx(0.023)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="judge.max_concurrent: expected a positive number, got 0"):
        judge("http://127.0.0.1:1/v1", max_concurrent=0)
    with pytest.raises(ValueError, match="max_tokens or max_completion_tokens"):
        judge("http://127.0.0.1:1/v1", token_limit="tokens")
