"""Parsers of what models and endpoints write: any text has a verdict, none, or a typed error, within a second."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import pytest
from fuzzing import PIECES, Tally, damaged_bytes, damaged_text

from aipo.benchmarks.verdicts import parse_game, parse_identifier, parse_rating, parse_winner
from aipo.judges import JudgeError
from aipo.judges.chat_completion import read_chat_completion
from aipo.judges.reading import read_judge_prompt
from aipo.miniature.judge_prompts import ALPACA_EVAL_PROMPT, ARENA_HARD_PROMPT, MT_BENCH_PROMPTS
from aipo.rankers.llm_judge import parse_points
from aipo.records import Message, parse_json
from aipo.remote import BadReply, redact
from aipo.remote.attempts import retry_after_s

REPLIES = ("Rating: [[7]]", "[[A>B]]", "Score: **4.5**", "[[A]]", '"m".', "I cannot say. [[10]] or [3.5]")
PROMPTS = (
    *(row["prompt_template"] for row in MT_BENCH_PROMPTS.values()),
    ALPACA_EVAL_PROMPT,
    ARENA_HARD_PROMPT,
)
BODY = {
    "model": "judge",
    "choices": [
        {
            "finish_reason": "stop",
            "message": {"content": "[[7]]"},
            "logprobs": {"content": [{"token": "m", "top_logprobs": [{"token": "m", "logprob": -0.1}]}]},
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}
BODIES = (json.dumps(BODY).encode(), b'{"question_id": 1, "score": 1e5, "list": [1, null, "\\ud83d\\ude00"]}')


def parse_header(value: str) -> None:
    retry_after_s(SimpleNamespace(response=SimpleNamespace(headers={"retry-after": value})))


PARSERS = (
    *((parser, REPLIES, ()) for parser in (parse_rating, parse_game, parse_winner, parse_identifier, parse_points)),
    (redact, (*REPLIES, "Bearer abcdefgh", "http://user:key@host/v1?key=abcdef"), ()),
    (parse_header, ("10", "Wed, 21 Oct 2026 07:28:00 GMT"), ()),
    (lambda text: read_judge_prompt((Message("user", text),)), PROMPTS, (JudgeError,)),
)


def fuzz(inputs: int, seed: int) -> Tally:
    rng, tally = random.Random(seed), Tally()
    for number in range(inputs):
        kind = number % (len(PARSERS) + 2)
        if kind == len(PARSERS):
            tally.try_(lambda data: read_chat_completion(data, logprobs=True), damaged_bytes(rng, BODIES), (BadReply,))
        elif kind == len(PARSERS) + 1:
            tally.try_(parse_json, damaged_bytes(rng, BODIES), (ValueError,))
        else:
            parser, good, typed = PARSERS[kind]
            tally.try_(parser, damaged_text(rng, good), typed)
    return tally


def test_parsers_quickly() -> None:
    fuzz(8_000, seed=0).check()


@pytest.mark.slow
def test_parsers_a_million_times() -> None:
    fuzz(1_000_000, seed=1).check()


@pytest.mark.parametrize("parser", [parser for parser, *_ in PARSERS])
def test_a_long_run_of_any_two_pieces_is_read_quickly(parser) -> None:
    tally = Tally()
    for first in PIECES[:12] if parser not in (PARSERS[-1][0],) else PIECES:
        for second in ("", *PIECES[-8:], "[", " "):
            typed = (JudgeError,)
            tally.try_(parser, (first + second) * (30_000 // len(first + second)), typed)
    tally.check()
    assert tally.slowest_s < 0.5
