"""The length-only ranker."""

from __future__ import annotations

import pytest

from aipo.rankers.length_only import LengthOnlyRanker
from aipo.records import Message

PROMPT = (Message("user", "Hello"),)


def test_longer_is_better_and_nothing_else_counts() -> None:
    ranker = LengthOnlyRanker()
    assert ranker.rank([PROMPT, PROMPT], [["abc", "", "zz"], ["é"]]) == [[3.0, 0.0, 2.0], [1.0]]
    assert ranker.win_probabilities([PROMPT], [("abc", "a")]) is None


def test_prompts_and_candidates_must_match() -> None:
    with pytest.raises(ValueError, match="shorter"):
        LengthOnlyRanker().rank([PROMPT, PROMPT], [["abc"]])
