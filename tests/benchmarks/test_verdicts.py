"""Verdict parsers: the official cases, the real texts, and the cases where we differ on purpose."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo.benchmarks.verdicts import (
    GAME_PREFERENCE,
    parse_first_token,
    parse_game,
    parse_identifier,
    parse_rating,
    parse_winner,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rating: [[7]]", 7.0),
        ("[[7.5]]", 7.5),
        ("[3] is cited, [[9]]", 9.0),
        ("only [4]", 4.0),
        ("[[2]] ... [[9]]", 2.0),
        ("[[10]]", 10.0),
        ("[[1.]]", 1.0),
        ("[[11]]", None),
        ("[[0]]", None),
        ("x[100] y", None),
        ("[[08]]", None),
        ("[[08.5]]", 8.5),
        ("[[8/10]]", None),
        ("[[ 8 ]]", None),
        ("[[-3]]", None),
        ("$ERROR$", None),
        ("", None),
    ],
)
def test_rating(text: str, expected: float | None) -> None:
    assert parse_rating(text) == expected


@given(st.text(max_size=60))
def test_rating_is_in_range_or_unscored(text: str) -> None:
    rating = parse_rating(text)
    assert rating is None or 1 <= rating <= 10


def test_official_mt_bench_cases(data: Path) -> None:
    cases = json.loads((data / "fixtures/mt_bench/parser_cases.json").read_text())
    for case in cases:
        if case["output_format"] == "[[A]]":
            assert (parse_winner(case["text"]) or "error") == case["result"], case
        else:
            official = case["result"]
            assert parse_rating(case["text"]) == (official if 1 <= official <= 10 else None), case
    assert len(cases) == 50


def test_real_judge_texts(data: Path) -> None:
    with gzip.open(data / "mt_bench/real_judge_texts_shared.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    outside = [row for row in rows if not 1 <= row["score_fastchat"] <= 10]
    assert [parse_rating(row["judgment"]) for row in outside] == [None] * len(outside)
    inside = [row for row in rows if 1 <= row["score_fastchat"] <= 10]
    assert [parse_rating(row["judgment"]) for row in inside] == [row["score_fastchat"] for row in inside]
    assert (len(rows), len(outside)) == (900, 7)


def test_official_arena_hard_cases(data: Path) -> None:
    for case in json.loads((data / "fixtures/arena_hard/get_score_cases.json").read_text()):
        assert parse_game(case["text"]) == (case["score"], case["try_again"]), case


def test_game_labels_that_mean_nothing_have_no_preference() -> None:
    assert parse_game("so [[A<B]]") == ("A<B", False)
    assert "A<B" not in GAME_PREFERENCE
    assert parse_game("[[A>B]] no, [[B>A]]") == (None, False)
    assert parse_game("nothing") == (None, True)


def test_official_first_token_cases(data: Path) -> None:
    cases = json.loads((data / "fixtures/alpaca_parser_prompt.json").read_text())["logprob_parser"]
    for case in cases:
        value = parse_first_token(dict(map(tuple, case["top_logprobs"])))
        if case["preference_unswitched"] is None:
            assert value is None
        else:
            assert 1 + value == pytest.approx(case["preference_unswitched"], abs=1e-14)
            assert 2 - value == pytest.approx(case["preference_if_switched"], abs=1e-14)
    assert len(cases) == 40


def test_published_preferences_from_real_log_probs(data: Path) -> None:
    with gzip.open(data / "alpaca_eval/judge_logprobs_shared.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        second = parse_first_token(dict(map(tuple, row["top_logprobs"])))
        preference = second if not row["is_switched_outputs"] else 1 - second
        assert 1 + preference == pytest.approx(row["preference"], abs=5.1e-11), row
    assert len(rows) == 2403


def test_first_token_by_hand() -> None:
    assert parse_first_token({"m": math.log(0.3), "M": math.log(0.1), "The": -0.5}) == pytest.approx(0.25)
    assert parse_first_token({"M": -9.0}) == 1.0
    assert parse_first_token({"m": -9.0}) == 0.0
    assert parse_first_token({"The": -0.1}) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m", 0.0),
        (" M\n", 1.0),
        ("**M**", 1.0),
        ("'m'.", 0.0),
        ("M.", 1.0),
        ("m or M", None),
        ("Model M", None),
        ("", None),
    ],
)
def test_identifier(text: str, expected: float | None) -> None:
    assert parse_identifier(text) == expected
