"""The grading ranker: its prompt, its parser, and what happens to replies without a score."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import pytest
from composing import composed
from hypothesis import given
from hypothesis import strategies as st

from aipo.judges import ReplyStore
from aipo.judges.scripted import ScriptedJudge
from aipo.rankers.llm_judge import LLMJudgeRanker, UnparsableScores, judge_prompt, parse_points
from aipo.records import Chat, Message

ASK: Chat = (Message("user", "Say {x}"),)


def by_length(chat: Chat) -> str:
    reply = chat[-1].content.split("<reply>\n")[1].split("\n</reply>")[0]
    return f"Reasons. Score: {len(reply)}"


def test_points_are_the_scores() -> None:
    ranker = LLMJudgeRanker(ScriptedJudge(by_length))
    assert ranker.rank([ASK, ASK], [["ab", "", "abcde"], ["a"]]) == [[2.0, 0.0, 5.0], [1.0]]
    assert ranker.rank([], []) == [] and ranker.rank([ASK], [[]]) == [[]]
    assert ranker.win_probabilities([ASK], [("a", "b")]) is None
    with pytest.raises(ValueError, match="shorter"):
        ranker.rank([ASK, ASK], [["a"]])


def test_equal_texts_are_asked_about_once() -> None:
    asked: list[Chat] = []

    def reply(chat: Chat) -> str:
        asked.append(chat)
        return f"Score: {len(asked)}"

    assert LLMJudgeRanker(ScriptedJudge(reply)).rank([ASK], [["a", "b", "a"]]) == [[1.0, 2.0, 1.0]]
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("Score: 4", 4.0), ("score:0", 0.0), ("Score: 3.5", 3.5), ("**Score: 5**", 5.0), ("Score: **2**", 2.0),
        ("Score: 4/5", 4.0), ("Score: 1\nOn reflection:\nScore: 3.", 3.0),
        ("Score: 6", None), ("Score: 10", None), ("Score: -1", None), ("Score: five", None), ("4", None), ("", None),
        ("Score: 4\nScore: 9", None),
    ],
)  # fmt: skip
def test_parser(text: str, points: float | None) -> None:
    assert parse_points(text) == points


def test_a_few_replies_without_a_score_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    judge = ScriptedJudge(lambda chat: "no idea" if "<reply>\nbad\n" in chat[-1].content else "Score: 1", "mute")
    ranker = LLMJudgeRanker(judge, max_unparsable=0.25)
    with caplog.at_level(logging.WARNING, "aipo"):
        (scores,) = ranker.rank([ASK], [["a", "bad", "b", "c"]])
    assert math.isnan(scores[1]) and [scores[0], *scores[2:]] == [1.0] * 3
    assert "1 of 4 replies of mute have no score from 0 to 5" in caplog.text
    with pytest.raises(UnparsableScores, match=r"1 of 3 replies .*max_unparsable=0\.25 allows.*'no idea'"):
        ranker.rank([ASK], [["a", "bad", "b"]])


@given(st.text(), st.text())
def test_texts_are_quoted_as_they_are(prompt: str, reply: str) -> None:
    written = judge_prompt((Message("system", "S"), Message("user", prompt)), reply)
    assert f"<conversation>\n[system]\nS\n\n[user]\n{prompt}\n</conversation>" in written
    assert f"<reply>\n{reply}\n</reply>" in written


@pytest.mark.parametrize(
    ("key", "value"), [("max_tokens", 0), ("temperature", -1.0), ("max_unparsable", 1.0), ("max_unparsable", -0.1)]
)
def test_bad_settings_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"ranker.{key} must be"):
        LLMJudgeRanker(ScriptedJudge(by_length), **{key: value})


def test_what_the_judge_misses_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.utils import instantiate

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    node = composed("ranker=llm_judge").ranker
    ranker = instantiate(node, _convert_="all")
    assert any("ranker.judge: " in line and "OPENAI_API_KEY" in line for line in ranker.missing())
    assert ranker.identity() == ranker.judge.identity() | {"asks_per_verdict": "1"}
    assert LLMJudgeRanker(ScriptedJudge(lambda chat: "Score: 3")).missing() == []


def test_a_ranking_that_was_interrupted_pays_for_no_reply_twice(tmp_path) -> None:
    from collections import Counter

    asked: Counter[str] = Counter()

    def script(chat) -> str:
        asked[chat[-1].content] += 1
        return "Score: 3"

    prompts, candidates = [(Message("user", "Why?"),)], [["one", "two"]]
    for _ in range(2):
        judge = ScriptedJudge(script, keeps_replies=True)
        LLMJudgeRanker(judge).stored(ReplyStore(tmp_path)).rank(prompts, candidates)
    assert len(asked) == 2 and set(asked.values()) == {1}


def test_replies_without_a_score_alone_are_asked_again_when_that_is_allowed(tmp_path) -> None:
    asked: list[str] = []

    def script(chat) -> str:
        asked.append(chat[-1].content)
        return "Score: 3" if "<reply>\ntwo" in chat[-1].content or len(asked) > 2 else "no idea"

    prompts, candidates = [(Message("user", "Why?"),)], [["one", "two"]]
    ranker = LLMJudgeRanker(ScriptedJudge(script, keeps_replies=True), max_unparsable=0.6).stored(ReplyStore(tmp_path))
    first, second = ranker.rank(prompts, candidates)[0]
    assert math.isnan(first) and second == 3 and len(asked) == 2
    again = replace(ranker, judge=replace(ranker.judge, asks_per_verdict=2))
    assert again.rank(prompts, candidates) == [[3, 3]] and len(asked) == 3
    assert again.identity() != ranker.identity()
