"""A price for length on another ranker's scores."""

from __future__ import annotations

import math

import pytest

from aipo.miniature import MiniatureSource, ProxyRanker
from aipo.rankers import LengthOnlyRanker, LengthPenalizedRanker
from aipo.records import Message

PROMPT = (Message("user", "Hello"),)


class Fixed(LengthOnlyRanker):
    def rank(self, prompts, candidates):
        return [[1.0, math.nan, 2.0][: len(texts)] for texts in candidates]

    def identity(self):
        return {"weights": "abc"}

    def missing(self):
        return ["a file"]

    @property
    def judge(self):
        return "the judge"

    def stored(self, store):
        return store


def test_scores_by_hand() -> None:
    texts = ["One, two.", "x", "three four"]  # four words with the marks, one, two; 9, 1 and 10 characters
    (scores,) = LengthPenalizedRanker(Fixed(), 0.25).rank([PROMPT], [texts])
    assert scores[0] == 0.0 and math.isnan(scores[1]) and scores[2] == 1.5
    (scores,) = LengthPenalizedRanker(Fixed(), 0.5, "chars").rank([PROMPT], [texts])
    assert scores[0] == -3.5 and scores[2] == -3.0
    assert LengthPenalizedRanker(Fixed(), 0.25).win_probabilities([PROMPT], [("a", "b")]) is None


def test_the_proxys_own_bias_as_price_leaves_the_unbiased_order() -> None:
    examples, _ = MiniatureSource(50, rating_length_bias_per_token=0.0, rating_noise_sd=0.1, seed=0).load()
    prompts = [example.prompt.chat for example in examples]
    texts = [example.responses for example in examples]
    biased = ProxyRanker(length_bias_per_token=0.02, noise_sd=0.15)
    priced = LengthPenalizedRanker(biased, 0.02).rank(prompts, texts)
    unbiased = ProxyRanker(length_bias_per_token=0.0, noise_sd=0.15).rank(prompts, texts)
    for one, other in zip(priced, unbiased, strict=True):
        assert one == pytest.approx(other, abs=1e-12)
    assert biased.rank(prompts, texts) != priced


def test_everything_else_is_the_wrapped_rankers() -> None:
    ranker = LengthPenalizedRanker(Fixed(), 0.1)
    assert ranker.identity() == {"weights": "abc"} and ranker.missing() == ["a file"]
    assert ranker.stored("store").ranker == "store" and ranker.judge == "the judge"
    plain = LengthPenalizedRanker(LengthOnlyRanker(), 0.1)
    assert plain.missing() == [] and plain.stored("store") is plain and plain.judge is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, "ranker.weight must be at least 0 and finite, got -1.0"),
        ({"weight": math.nan}, "finite"),
        ({"weight": 1.0, "unit": "tokens"}, "ranker.unit must be one of words, chars, got 'tokens'"),
    ],
)
def test_impossible_prices_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        LengthPenalizedRanker(LengthOnlyRanker(), **settings)
