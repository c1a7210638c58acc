"""The reader of judge prompts on the official templates' own renderings."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from aipo.judges.reading import read_judge_prompt
from aipo.records import Message

DATA = Path(os.environ.get("AIPO_VERIFICATION_DATA", Path(__file__).parents[3] / "shared" / "data")) / "fixtures"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"verification data is not at {DATA}")


def chat(messages):
    return tuple(Message(message["role"], message["content"]) for message in messages)


def test_mt_bench():
    rows = json.loads((DATA / "mt_bench" / "rendered_requests.json").read_text(encoding="utf-8"))
    singles = [row for row in rows if row["kind"] == "single"]
    assert {row["turn"] for row in singles} == {1, 2}
    for row in singles:
        prompt = read_judge_prompt(chat(row["messages"]))
        ((conversation, answer),) = prompt.answers
        assert prompt.verdict == "rating"
        assert answer == row["answer_turns"][row["turn"] - 1]
        assert len(conversation) == 2 * row["turn"] - 1
        assert conversation[-1].role == "user"


def test_mt_bench_pairs():
    rows = json.loads((DATA / "mt_bench" / "rendered_requests.json").read_text(encoding="utf-8"))
    games = [row[game] for row in rows if row["kind"] != "single" for game in ("game1_messages", "game2_messages")]
    assert games
    for game in games:
        prompt = read_judge_prompt(chat(game))
        assert prompt.verdict == "winner"
        assert len(prompt.answers) == 2
        assert prompt.answers[0][0][0] == prompt.answers[1][0][0], "both sides answer the same first question"


def test_alpaca_eval():
    rows = json.loads((DATA / "alpaca_parser_prompt.json").read_text(encoding="utf-8"))["prompts"]
    # The official code fills {output_2} inside an instruction too: there no reader can tell what was what.
    for row in (row for row in rows if "{output_2}" not in row["instruction"]):
        prompt = read_judge_prompt(chat(row["chatml_messages"]))
        assert prompt.verdict == "identifier"
        assert [message.content for message in prompt.answers[0][0]] == [row["instruction"]]
        assert {answer for _, answer in prompt.answers} == {row["output_1"], row["output_2"]}


def test_arena_hard():
    cases = json.loads((DATA / "arena_hard" / "rendered_requests.json").read_text(encoding="utf-8"))["cases"]
    for case in cases:
        sides = [case["baseline_answer"], case["model_answer"]]
        for request in case["requests"]:
            prompt = read_judge_prompt(chat(request))
            assert prompt.verdict == "game"
            assert prompt.answers[0][0][0].content == case["question"]["turns"][0]["content"]
            assert sorted(answer for _, answer in prompt.answers) == sorted(sides)
