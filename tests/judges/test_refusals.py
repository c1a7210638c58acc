"""Refused requests: an item's own is kept, what the settings or the account are refused for is asked again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from faulty_server import FaultyServer

from aipo.judges import JudgeError, OpenAIEndpoint, OpenAIJudge, ReplyStore, stored
from aipo.judges.judge import Receipt
from aipo.judges.openai_judge import _Call
from aipo.judges.refusals import Refusals, Refused, about_the_item
from aipo.records import JudgeReply, Message

TOO_LONG = {"message": "This model's maximum context length is 4096 tokens.", "code": 400}
CREDIT = {"message": "Your credit balance is too low", "type": "invalid_request_error"}


def chats(count: int) -> list[tuple[Message, ...]]:
    return [(Message("user", str(number)),) for number in range(count)]


def judge(url: str, **settings) -> OpenAIJudge:
    return OpenAIJudge("judge", OpenAIEndpoint(url, None), "judge", **({"max_concurrent": 1} | settings))


def refusal(error: dict, status: int = 400) -> tuple[int, bytes, dict[str, str]]:
    return status, json.dumps({"error": error}).encode(), {}


def texts(replies: list[JudgeReply]) -> list[str]:
    return [reply.text for reply in replies]


def rows(root: Path) -> list[dict]:
    found = [json.loads(line) for path in root.rglob("*.jsonl") for line in path.read_text().splitlines()]
    return [row for row in found if "key" in row]


@pytest.mark.parametrize("count", [1, 6])
def test_a_small_batch_that_is_refused_whole_is_asked_again_with_the_cause_mended(tmp_path: Path, count: int) -> None:
    server = FaultyServer(lambda prompt, attempt: None)
    error = {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.", "param": "max_tokens"}
    server.raw = lambda prompt, attempt: refusal(error) if "max_tokens" in server.bodies[-1] else None
    with server.running() as url:
        words = f"{count} of {count} requests have no reply.* refuses every request, {count} so far; .*Unsupported"
        with pytest.raises(JudgeError, match=words):
            stored(judge(url), ReplyStore(tmp_path)).reply(chats(count), max_tokens=5)
        assert rows(tmp_path) == []
        mended = judge(url, token_limit="max_completion_tokens")
        replies = stored(mended, ReplyStore(tmp_path)).reply(chats(count), max_tokens=5)
    assert texts(replies) == [f"verdict on {number}" for number in range(count)]


@pytest.mark.parametrize("threads", [1, 4])
def test_an_account_that_runs_dry_stops_the_stage_and_the_same_command_goes_on(tmp_path: Path, threads: int) -> None:
    server, credit = FaultyServer(lambda prompt, attempt: None), [20]
    server.raw = lambda prompt, attempt: refusal(CREDIT) if sum(server.requests.values()) > credit[0] else None
    with server.running() as url:
        asking, store = judge(url, max_concurrent=threads), ReplyStore(tmp_path)
        with pytest.raises(JudgeError, match=r"requests have no reply; .* 8 in a row; .* credit balance") as caught:
            stored(asking, store).reply(chats(100), max_tokens=5)
        ledger = store.of(asking.identity()).ledger()
        assert 20 - threads < ledger.replies <= 20 + threads
        # One by one: a refusal may come back before the answer to an earlier request.
        assert ledger.unreadable < threads
        assert f"{100 - ledger.replies} of 100 requests have no reply" in str(caught.value)
        assert sum(server.requests.values()) <= 20 + 8 + 2 * threads
        credit[0] = 10**6
        replies = stored(asking, store).reply(chats(100), max_tokens=5)
    assert sum(reply.error is None for reply in replies) >= 100 - ledger.unreadable


def test_the_last_few_of_a_judging_are_refused_for_good_where_others_were_answered(tmp_path: Path) -> None:
    """A run that was stopped before its one odd item, which is refused in words that nobody knows, must come to an
    end."""
    server = FaultyServer(lambda prompt, attempt: None)
    server.raw = lambda prompt, attempt: refusal({"message": "no"}) if prompt == "3" else None
    with server.running() as url:
        stored(judge(url), ReplyStore(tmp_path)).reply(chats(3), max_tokens=5)
        replies = stored(judge(url), ReplyStore(tmp_path)).reply(chats(4), max_tokens=5)
        assert texts(replies)[:3] == [f"verdict on {number}" for number in range(3)]
        assert replies[3].text == "" and "no" in (replies[3].error or "")
        # Without an answer to another one it may be the settings.
        with pytest.raises(JudgeError, match="refuses every request, 1 so far"):
            stored(judge(url), ReplyStore(tmp_path / "other")).reply(chats(4)[3:], max_tokens=5)


def test_prompts_that_are_too_long_stop_nothing_however_many_they_are_in_a_row(tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: None)
    server.raw = lambda prompt, attempt: refusal(TOO_LONG) if int(prompt) > 0 else None
    with server.running() as url:
        for _ in range(2):
            replies = stored(judge(url), ReplyStore(tmp_path)).reply(chats(20), max_tokens=5)
            assert texts(replies) == ["verdict on 0", *[""] * 19]
    assert sum(server.requests.values()) == 20


def test_of_other_refusals_fewer_than_eight_in_a_row_are_kept(tmp_path: Path) -> None:
    """Of items that are too long between them the row takes no notice: neither is it longer, nor does it end."""
    server = FaultyServer(lambda prompt, attempt: None)
    odd = {"message": "no"}
    server.raw = lambda prompt, attempt: refusal(odd) if 1 <= int(prompt) <= 7 or 9 <= int(prompt) <= 15 else None
    with server.running() as url:
        replies = stored(judge(url), ReplyStore(tmp_path)).reply(chats(17), max_tokens=5)
        assert [number for number, reply in enumerate(replies) if reply.text] == [0, 8, 16]
        server.raw = lambda prompt, attempt: (
            None if prompt == "0" else refusal(TOO_LONG if int(prompt) % 2 == 0 else odd)
        )
        asking = judge(url, max_attempts=2)
        with pytest.raises(JudgeError, match="8 in a row"):
            stored(asking, ReplyStore(tmp_path / "other")).reply(chats(30), max_tokens=5)
    kept = rows(tmp_path / "other")
    assert len(kept) == 1 + 7  # 1, 3, ..., 15 are refused, and 2, 4, ..., 14 too long
    assert sum("maximum context length" in (row["reply"]["error"] or "") for row in kept) == 7


def test_an_interrupted_call_keeps_no_refusal_that_may_be_the_settings(tmp_path: Path, monkeypatch) -> None:
    server = FaultyServer(lambda prompt, attempt: None)
    server.raw = lambda prompt, attempt: refusal(TOO_LONG if prompt == "0" else CREDIT)
    seen = []
    following = _Call._next

    def interrupted(call: _Call, waiting: int) -> BaseException | None:
        seen.append(following(call, waiting))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return seen[-1]

    monkeypatch.setattr(_Call, "_next", interrupted)
    with server.running() as url, pytest.raises(KeyboardInterrupt):
        stored(judge(url), ReplyStore(tmp_path)).reply(chats(4), max_tokens=5)
    assert ["maximum context" in row["reply"]["error"] for row in rows(tmp_path)] == [True]


def test_an_item_that_is_refused_once_more_is_kept_also_alone(tmp_path: Path) -> None:
    """judge.asks_per_verdict=2 asks anew for what has no verdict: then nothing else may be in the batch."""
    server = FaultyServer(lambda prompt, attempt: None)
    server.raw = lambda prompt, attempt: refusal({"message": "no"}) if prompt == "1" else None
    with server.running() as url:
        asking = stored(judge(url, asks_per_verdict=2), ReplyStore(tmp_path))
        refused = asking.reply(chats(2), max_tokens=5)[1]
        assert asking.ask_again([refused]) == 1
        again = stored(judge(url), ReplyStore(tmp_path)).reply(chats(2), max_tokens=5)
    assert texts(again) == ["verdict on 0", ""] and server.requests == {"0": 1, "1": 2}


def test_what_comes_back_after_the_stop_is_not_kept() -> None:
    kept: list[int] = []
    refusals = Refusals(lambda position, reply, receipt: kept.append(position))
    one = JudgeReply("", None, None, "no")
    for number in range(8):
        fatal = refusals.add(Refused(number, one, Receipt(), about_item=False))
    assert fatal is not None and refusals.add(Refused(8, one, Receipt(), about_item=True)) is fatal
    refusals.answered()
    assert refusals.end(whole=False) is None and kept == []


def test_threads_lose_no_refusal() -> None:
    kept: list[int] = []
    refusals = Refusals(lambda position, reply, receipt: kept.append(position))
    refusals.answered()

    def some(start: int) -> None:
        for number in range(start, start + 200):
            refusals.add(Refused(number, JudgeReply("", None, None, "no"), Receipt(), about_item=True))

    threads = [threading.Thread(target=some, args=(200 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(kept) == list(range(800))


@pytest.mark.parametrize(
    ("expected", "status", "error"),
    [
        (True, 400, {"message": "x", "code": "context_length_exceeded"}),
        (True, 400, {"message": "x", "code": "string_above_max_length"}),
        (True, 400, {"message": "x", "type": "exceed_context_size_error"}),
        (True, 400, {"message": "The prompt triggered the content management policy", "code": "content_filter"}),
        (True, 400, {"message": "Your request was rejected by our safety system"}),
        (True, 400, {"message": "prompt is too long: 210000 tokens > 200000 maximum"}),
        (True, 400, {"message": "The input token count exceeds the maximum number of tokens allowed"}),
        (True, 400, TOO_LONG),
        (True, 413, {"message": "Request Entity"}),
        (False, 400, CREDIT),
        (False, 400, {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'."}),
        (False, 400, {"message": "max_tokens is too large: 9000. This model supports at most 4096 completion tokens"}),
        (False, 400, {"message": "Unknown parameter: 'safety_identifier'"}),
        (False, 422, {"message": "Extra inputs are not permitted", "input": "is this prompt too long"}),
    ],
)
def test_what_a_refusal_is_about(expected: bool, status: int, error: dict) -> None:
    server = FaultyServer(lambda prompt, attempt: None)
    server.raw = lambda prompt, attempt: refusal(error, status)
    import openai

    with server.running() as url, openai.OpenAI(api_key="none", base_url=url, max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}])
    assert about_the_item(caught.value) is expected


def test_a_prompt_that_is_no_text_is_the_items_own() -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        "\ud800".encode()
    assert about_the_item(caught.value)
