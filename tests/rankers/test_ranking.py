"""What a ranker adds to pairs."""

from __future__ import annotations

import math

import pytest

from aipo.rankers.length_only import LengthOnlyRanker
from aipo.rankers.ranker import Compared
from aipo.rankers.ranking import Recalled, rank, with_win_probabilities, with_win_shares
from aipo.records import Candidates, Completion, Message, Pair, Prompt


class Chances(LengthOnlyRanker):
    """P(first beats second) = 1 / (1 + e^(second - first)) of the numbers that the texts are; counts its questions."""

    def __init__(self) -> None:
        object.__setattr__(self, "asked", [])

    def win_probabilities(self, prompts, pairs):
        self.asked.extend(pairs)
        return [1 / (1 + math.exp(float(second) - float(first))) for first, second in pairs]


class Comparing(Chances):
    """The same from comparisons of all candidates; a score is the number that the text is."""

    def compare(self, prompts, candidates):
        found = []
        for texts in candidates:
            rows = tuple(self._against(one, texts) for one in texts)
            found.append(Compared(tuple(map(float, texts)), rows))
        return found

    def _against(self, one, texts):
        return tuple(1 / (1 + math.exp(float(other) - float(one))) for other in texts)


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


def test_what_was_compared_is_not_asked_again() -> None:
    ranker, rows = Comparing(), [row("0", "1", "2"), row("5", "5", "4", prompt_id="q")]
    # Prompts of the same wording are the same question.
    rows[1] = Candidates(Prompt("q", (Message("user", "y"),), "pool"), rows[1].completions)
    ranked, kept = rank(ranker, rows)
    assert [one.scores for one in ranked] == [(0.0, 1.0, 2.0), (5.0, 5.0, 4.0)]
    assert [one.prompt_id for one in kept] == ["p", "q"] and len(kept[0].chances) == 9
    recalled = Recalled(ranker, rows, kept)
    pairs = [pair(rows[0], 2, 0), pair(rows[1], 1, 2)]
    chats = {"p": rows[0].prompt.chat, "q": rows[1].prompt.chat}
    by_id = {"p": rows[0], "q": rows[1]}
    made = with_win_shares(recalled, with_win_probabilities(recalled, pairs, chats), by_id)
    assert ranker.asked == []
    assert made == with_win_shares(ranker, with_win_probabilities(ranker, pairs, chats), by_id)
    assert made[0].win_probability == pytest.approx(1 / (1 + math.exp(-2)))


def test_only_what_was_not_compared_is_asked() -> None:
    ranker, rows = Comparing(), [row("0", "1")]
    recalled = Recalled(ranker, rows, rank(ranker, rows)[1])
    chat = rows[0].prompt.chat
    other = (Message("user", "other"),)
    found = recalled.win_probabilities([chat, chat, other], [("0", "1"), ("0", "3"), ("1", "0")])
    assert ranker.asked == [("0", "3"), ("1", "0")]
    assert found == pytest.approx([1 / (1 + math.exp(gap)) for gap in (1, 3, -1)])


def test_a_ranker_that_does_not_compare_keeps_nothing() -> None:
    ranked, kept = rank(LengthOnlyRanker(), [row("a", "bcd")])
    assert ranked[0].scores == (1.0, 3.0) and kept == []


class Answering(LengthOnlyRanker):
    """Gives what it was told to, whatever it is asked."""

    def __init__(self, scores: object) -> None:
        object.__setattr__(self, "scores", scores)

    def rank(self, prompts, candidates):
        return self.scores


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([[1.0, 2.0]], "expected scores of 2 prompts, got 1"),
        (None, "expected scores of 2 prompts, got None"),
        ([[1.0, 2.0], [1.0]], "prompt q: expected 2 scores, one per candidate, got 1"),
        ([[1.0, 2.0], [1.0, 2.0, 3.0]], "prompt q: expected 2 scores, one per candidate, got 3"),
        ([[1.0, 2.0], 3.0], "prompt q: expected 2 scores, one per candidate, got 3.0"),
        ([[1.0, 2.0], "12"], "prompt q: expected 2 scores, one per candidate, got '12'"),
        ([[1.0, INFINITE], [1.0, 2.0]], "prompt p: expected finite numbers, NaN for what is not ranked, got inf"),
        ([[1.0, 2.0], [-INFINITE, 2.0]], "prompt q: expected finite numbers, NaN for what is not ranked, got -inf"),
        ([[1.0, "2"], [1.0, 2.0]], "prompt p: expected finite numbers, NaN for what is not ranked, got '2'"),
        ([[1.0, 2.0], [None, 2.0]], "prompt q: expected finite numbers, NaN for what is not ranked, got None"),
    ],
)
def test_what_is_no_score_is_told_before_it_is_kept(scores: object, said: str) -> None:
    """It was stored as a whole ranking, which the pairs' stage refused ever after, with the ranker mended too."""
    with pytest.raises(ValueError) as caught:
        rank(Answering(scores), [row("a", "b"), row("c", "d", prompt_id="q")])
    assert str(caught.value).startswith(f"ranker length_only: {said}; "), caught.value


def test_numbers_of_any_kind_are_scores() -> None:
    import numpy as np
    import torch

    given = [np.array([1, 2], dtype=np.float32), [NAN, 2], torch.tensor([0.5, 1.0])]
    rows = [row("a", "b"), row("c", "d", prompt_id="q"), row("e", "f", prompt_id="r")]
    ranked, kept = rank(Answering(given), rows)
    assert [one.scores for one in ranked] == [(1.0, 2.0), (pytest.approx(NAN, nan_ok=True), 2.0), (0.5, 1.0)]
    assert {type(score) for one in ranked for score in one.scores} == {float} and kept == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Compared((1.0, INFINITE), ((0.5, 0.4), (0.6, 0.5))), "expected finite numbers, NaN for what is not ranked"),
        (Compared((1.0, 2.0), ((0.5, 0.4),)), "expected 2 x 2 win probabilities, got 1 row(s)"),
        (Compared((1.0, 2.0), ((0.5, 0.4), (0.6,))), "expected 2 x 2 win probabilities, got 2 row(s)"),
    ],
)
def test_comparisons_are_asked_for_as_much(found: Compared, said: str) -> None:
    class Fixed(Comparing):
        def compare(self, prompts, candidates):
            return [found]

    with pytest.raises(ValueError) as caught:
        rank(Fixed(), [row("0", "1")])
    assert str(caught.value).startswith(f"ranker length_only: prompt p: {said}"), caught.value
