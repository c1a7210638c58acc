"""Which two candidates become a pair: each rule by hand, and what holds for all of them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo.data.selection import BestAgainstWorst, LengthMatched, RandomPair, Scored, ShorterOfNearBest

RULES = [BestAgainstWorst(), RandomPair(0), LengthMatched(1.1), ShorterOfNearBest(0.1)]


def scored(*rows: tuple[float, int] | tuple[float, int, bool]) -> list[Scored]:
    return [Scored(place, row[0], row[1], row[2] if len(row) == 3 else True) for place, row in enumerate(rows)]


def places(picked: tuple[Scored, Scored] | None) -> tuple[int, int] | None:
    return None if picked is None else (picked[0].place, picked[1].place)


def test_best_against_worst() -> None:
    assert places(BestAgainstWorst().choose("p", scored((1, 5), (3, 9), (3, 2), (0, 4), (0, 1)))) == (1, 3)
    assert places(BestAgainstWorst().choose("p", scored((1, 5), (3, 9, False), (0, 4)))) == (0, 2)
    assert BestAgainstWorst().choose("p", scored((1, 5, False), (3, 9, False))) is None


def test_length_matched_takes_the_widest_gap_among_like_lengths() -> None:
    # 10 and 11 tokens are within 1.1, 10 and 12 are not
    rows = scored((5, 30), (4, 11), (1, 10), (2, 12), (0, 60))
    assert places(LengthMatched(1.1).choose("p", rows)) == (1, 2)
    assert places(LengthMatched(1.2).choose("p", rows)) == (1, 2)
    assert places(LengthMatched(6.0).choose("p", rows)) == (0, 4)
    assert LengthMatched(1.0).choose("p", rows) is None
    assert places(LengthMatched(1.0).choose("p", scored((0, 0), (1, 0), (2, 9)))) == (1, 0)  # no tokens at all


def test_the_shortest_of_the_nearly_best() -> None:
    rows = scored((10, 40), (9.5, 20), (9.2, 25), (8.9, 5), (0, 30))  # range 10: at least 9
    assert places(ShorterOfNearBest(0.1).choose("p", rows)) == (1, 4)
    assert places(ShorterOfNearBest(0.0).choose("p", rows)) == (0, 4)
    assert places(ShorterOfNearBest(0.2).choose("p", rows)) == (3, 4)
    assert places(ShorterOfNearBest(0.1).choose("p", scored((9.5, 20), (10, 20), (0, 1)))) == (1, 2)


def test_random_pairs_are_even_and_depend_on_seed_and_prompt_alone() -> None:
    rows = scored((0, 1), (1, 1), (1, 2), (2, 1))
    drawn = Counter(places(RandomPair(0).choose(f"p{number}", rows)) for number in range(3000))
    # five pairs of different scores; 600 each, sd 22
    assert set(drawn) == {(1, 0), (2, 0), (3, 0), (3, 1), (3, 2)}
    assert all(abs(count - 600) < 100 for count in drawn.values())
    again = [places(RandomPair(0).choose(f"p{number}", rows)) for number in range(50)]
    assert again == [places(RandomPair(0).choose(f"p{number}", rows)) for number in range(50)]
    assert again != [places(RandomPair(1).choose(f"p{number}", rows)) for number in range(50)]
    assert RandomPair(0).choose("p", scored((1, 1), (1, 2))) is None


rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 40), st.booleans()), min_size=2, max_size=6)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@given(rows=rows)
def test_a_pair_is_ordered_and_its_chosen_side_may_win(rule, rows) -> None:
    candidates = scored(*rows)
    picked = rule.choose("p", candidates)
    if picked is None:
        return
    chosen, rejected = picked
    assert chosen in candidates and rejected in candidates
    assert chosen.may_win and chosen.score >= rejected.score


@pytest.mark.parametrize("rule", RULES[:1] + RULES[3:], ids=lambda rule: type(rule).__name__)
@given(rows=rows)
def test_a_pair_is_found_where_one_may_win(rule, rows) -> None:
    assert (rule.choose("p", scored(*rows)) is None) == (not any(row[2] for row in rows))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LengthMatched(0.9), "largest_ratio must be at least 1, got 0.9"),
        (lambda: LengthMatched(float("nan")), "largest_ratio must be at least 1"),
        (lambda: ShorterOfNearBest(1.0), r"within must be in \[0, 1\), got 1.0"),
    ],
)
def test_impossible_rules_are_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
