"""The verifiable ranker by hand: gold, its liking for length, its noise, and what it must be told first."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest

from aipo.constraints import Constraint, meta_of
from aipo.rankers import LengthPenalizedRanker, VerifiableRanker
from aipo.rankers.noise import content_noise
from aipo.rankers.ranking import rank
from aipo.rankers.verifiable import UnknownTruthError
from aipo.records import Candidates, Completion, Message, Prompt, read_parquet, write_parquet

ASKED = (Constraint("use", ("river",)), Constraint("no_comma"))
CHAT = (Message("user", 'Describe a walk. Use the word "river". Do not use any commas.'),)
PROMPT = Prompt("p", CHAT, "pool", meta_of(ASKED))
TEXTS = ["a river by the road", "a river, a road", "a road, a wood", ""]


def told(bias: float = 0.0, noise: float = 0.0) -> VerifiableRanker:
    return VerifiableRanker(length_bias_per_word=bias, noise_sd=noise, seed=3).knowing([PROMPT])


def test_without_dials_the_score_is_gold():
    assert told().rank([CHAT], [TEXTS]) == [[1.0, 0.5, 0.0, 0.0]]


def test_the_dials_add_words_and_noise():
    assert told(bias=0.01).rank([CHAT], [TEXTS]) == [[pytest.approx(s) for s in (1.05, 0.54, 0.04, 0.0)]]
    noise = content_noise(CHAT[0].content, TEXTS[0], seed=3)
    assert told(noise=0.5).score(CHAT, TEXTS[0]) == pytest.approx(1 + 0.5 * noise)
    assert told(noise=0.5).score(CHAT, TEXTS[0]) == told(noise=0.5).score(CHAT, TEXTS[0])


def test_win_probabilities_are_the_gaps_and_agree_with_the_order():
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[0]), (TEXTS[2], TEXTS[2])]
    assert told().win_probabilities([CHAT] * 3, pairs) == [1.0, 0.0, 0.5]
    ranker = told(bias=0.01, noise=0.2)
    first, second, same = ranker.win_probabilities([CHAT] * 3, pairs)
    gap = ranker.score(CHAT, TEXTS[0]) - ranker.score(CHAT, TEXTS[1])
    assert first == pytest.approx(NormalDist().cdf(gap / (math.sqrt(2) * 0.2))) and first + second == pytest.approx(1)
    assert same == 0.5 and (first > 0.5) == (gap > 0)


def test_the_ranking_stage_tells_it_the_constraints_that_came_with_the_prompts(tmp_path):
    rows = [Candidates(PROMPT, tuple(Completion(text, (1,), "stop") for text in TEXTS))]
    write_parquet(tmp_path / "rows.parquet", rows)
    rows = read_parquet(tmp_path / "rows.parquet", Candidates)
    assert rows[0].prompt == PROMPT
    from aipo.rankers.ranking import informed

    for ranker in (VerifiableRanker(0.0, 0.0), LengthPenalizedRanker(VerifiableRanker(0.01, 0.0), weight=0.01)):
        (row,), _ = rank(informed(ranker, [PROMPT]), rows)
        assert row.scores == pytest.approx((1.0, 0.5, 0.0, 0.0), abs=0.011)


def test_a_prompt_without_constraints_is_refused_by_name():
    with pytest.raises(UnknownTruthError, match="prompt q has no constraints.*data/source=constraints"):
        VerifiableRanker(0.0, 0.0).knowing([Prompt("q", CHAT, "pool")])
    with pytest.raises(UnknownTruthError, match="was not told"):
        VerifiableRanker(0.0, 0.0).rank([CHAT], [TEXTS])
    other = Prompt("q", CHAT, "pool", meta_of(ASKED[:1]))
    with pytest.raises(UnknownTruthError, match="two lists of constraints"):
        VerifiableRanker(0.0, 0.0).knowing([PROMPT, other])


@pytest.mark.parametrize("dials", [(math.nan, 0.0), (0.0, -0.1), (0.0, math.inf)])
def test_dials_out_of_range_are_refused(dials):
    with pytest.raises(ValueError, match="ranker"):
        VerifiableRanker(*dials)
