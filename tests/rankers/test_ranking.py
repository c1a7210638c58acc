"""What a ranker adds to pairs."""

from __future__ import annotations

import math

import pytest

from aipo.rankers.length_only import LengthOnlyRanker
from aipo.rankers.ranking import with_win_shares
from aipo.records import Candidates, Completion, Message, Pair, Prompt


class Chances(LengthOnlyRanker):
    """P(first beats second) = 1 / (1 + e^(second - first)) of the numbers that the texts are; counts its questions."""

    def __init__(self) -> None:
        object.__setattr__(self, "asked", [])

    def win_probabilities(self, prompts, pairs):
        self.asked.extend(pairs)
        return [1 / (1 + math.exp(float(second) - float(first))) for first, second in pairs]


def row(*texts: str, prompt_id: str = "p") -> Candidates:
    completions = tuple(Completion(text, (1, 2), "stop") for text in texts)
    return Candidates(Prompt(prompt_id, (Message("user", "x"),), "pool"), completions)


def pair(of: Candidates, best: int, worst: int) -> Pair:
    prompt_id = of.prompt.prompt_id
    return Pair(prompt_id, prompt_id, (1,), of.completions[best], of.completions[worst], 1.0, 0.0)


def test_win_shares_by_hand() -> None:
    # 0, 1, 2, 3: sigmoid of the differences, itself 1/2
    ranker, rows = Chances(), row("0", "1", "2", "3")
    (made,) = with_win_shares(ranker, [pair(rows, 3, 0)], {"p": rows})
    one, two, three = (1 / (1 + math.exp(-gap)) for gap in (1, 2, 3))
    assert made.chosen_win_share == pytest.approx((0.5 + one + two + three) / 4, abs=1e-15)
    assert made.rejected_win_share == pytest.approx((0.5 + 3 - one - two - three) / 4, abs=1e-15)
    assert len(ranker.asked) == 5  # 2 (N - 1), the pair itself once


def test_equal_texts_are_even_and_every_prompt_has_its_own_candidates() -> None:
    ranker = Chances()
    rows = {"p": row("1", "1", "0"), "q": row("1", "0", prompt_id="q")}
    first, second = with_win_shares(ranker, [pair(rows["p"], 0, 2), pair(rows["q"], 0, 1)], rows)
    chance = 1 / (1 + math.exp(-1))
    assert first.chosen_win_share == pytest.approx((0.5 + 0.5 + chance) / 3)
    assert first.rejected_win_share == pytest.approx((0.5 + 2 * (1 - chance)) / 3)
    assert (second.chosen_win_share, second.rejected_win_share) == pytest.approx(
        ((0.5 + chance) / 2, (1.5 - chance) / 2)
    )


def test_a_ranker_without_probabilities_is_refused() -> None:
    rows = row("a", "b")
    with pytest.raises(ValueError, match="ranker length_only gives no win probabilities.*choose ranker=pairrm"):
        with_win_shares(LengthOnlyRanker(), [pair(rows, 0, 1)], {"p": rows})
