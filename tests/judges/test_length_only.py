"""The length-only judge on prompts of our own in the official formats."""

from __future__ import annotations

import math

import pytest

from aipo.judges import JudgeError
from aipo.judges.length_only import LengthOnlyJudge
from aipo.records import Message

PAIR = (
    '{{"instruction": """Q""",\n}}\n"model_identifier": "m",\n "output": """{a}"""\n    }},\n    {{\n'
    '"model_identifier": "M",\n "output": """{b}"""\n    }}'
)
GAME = (
    "<|User Prompt|>\nQ\n\n<|The Start of Assistant A's Answer|>\n{a}\n<|The End of Assistant A's Answer|>\n\n"
    "<|The Start of Assistant B's Answer|>\n{b}\n<|The End of Assistant B's Answer|>"
)
RATING = "[Question]\nQ\n\n[The Start of Assistant's Answer]\n{a}\n[The End of Assistant's Answer]"


def ask(template: str, a: str, b: str = "", **decoding) -> object:
    chat = (Message("user", template.format(a=a, b=b)),)
    return LengthOnlyJudge(characters_per_point=10).reply([chat], max_tokens=8, **decoding)[0]


def test_the_longer_answer_wins_in_either_order():
    assert ask(GAME, "four", "two").text == "[[A>B]]"
    assert ask(GAME, "two", "four").text == "[[B>A]]"
    assert ask(GAME, "one", "two").text == "[[A=B]]"
    assert ask(PAIR, "four", "two").text == "m"
    assert ask(PAIR, "two", "four").text == "M"


def test_log_probs_are_certain_or_even():
    assert ask(PAIR, "four", "two", top_logprobs=5).top_logprobs == {"m": 0.0}
    even = ask(PAIR, "one", "two", top_logprobs=5).top_logprobs
    assert math.exp(even["m"]) == pytest.approx(0.5) and math.exp(even["M"]) == pytest.approx(0.5)
    assert ask(PAIR, "four", "two").top_logprobs is None


@pytest.mark.parametrize(("characters", "rating"), [(0, 1), (9, 1), (10, 2), (89, 9), (90, 10), (500, 10)])
def test_a_rating_counts_characters(characters, rating):
    assert ask(RATING, "x" * characters).text == f"Rating: [[{rating}]]"


def test_a_prompt_of_another_structure_is_refused():
    with pytest.raises(JudgeError, match="markers"):
        LengthOnlyJudge().reply([(Message("user", "Which is better?"),)], max_tokens=8)
