"""How well a ranker's scores follow known truth: agreement over pairs of candidates, and what a word is worth to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rated:
    """The candidates of one prompt, of equal number in every field."""

    gold: tuple[float, ...]
    """Share of constraints met."""
    words: tuple[int, ...]
    scores: tuple[float, ...]
    """Of the ranker that is measured."""


def agreement(scores: Sequence[Sequence[float]], truth: Sequence[Sequence[float]]) -> tuple[float | None, int]:
    """Share of the pairs within prompts, unequal in truth, that scores order the same way, and how many pairs.

    A pair with equal scores counts half. None where there is no pair.
    """
    points, pairs = 0.0, 0
    for found, true in zip(scores, truth, strict=True):
        for first in range(len(true)):
            for second in range(first):
                if true[first] != true[second]:
                    gap = (found[first] - found[second]) * (1 if true[first] > true[second] else -1)
                    points += 0.5 if gap == 0 else float(gap > 0)
                    pairs += 1
    return (points / pairs if pairs else None), pairs


def worth_of_a_word(rated: Sequence[Rated]) -> float | None:
    """Gold points that one word more is worth: the ratio of the coefficients of words and gold in a least-squares fit.

    The fit is of scores within prompts (each prompt has its own constant), so it needs no common scale of scores. None
    where gold or words do not vary within any prompt, or where the scores do not rise with gold.
    """
    rows = [
        np.column_stack([np.asarray(column, dtype=float) - np.mean(column) for column in columns])
        for found in rated
        for columns in [(found.gold, found.words, found.scores)]
    ]
    table = np.concatenate(rows) if rows else np.zeros((0, 3))
    if len(table) < 3 or np.linalg.matrix_rank(table[:, :2]) < 2:
        return None
    (per_gold, per_word), *_ = np.linalg.lstsq(table[:, :2], table[:, 2], rcond=None)
    return float(per_word / per_gold) if per_gold > 0 else None
