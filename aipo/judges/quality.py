"""How far a judge can be trusted: position bias, liking for length, agreement with another judge or with itself.

Everything is computed from verdicts on disk; nothing is asked. Intervals are 95 % percentile bootstraps over questions,
so that two verdicts on one question never count as two independent ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aipo.records import Judgment

ROUNDS = 1000


class QualityError(ValueError):
    """The verdicts do not allow this measurement."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % bootstrap interval over `n` questions. NaN where it is undefined."""

    name: str
    value: float
    ci95: tuple[float, float]
    n: int


def position(judgments: Sequence[Judgment], *, seed: int = 0) -> list[Estimate]:
    """From questions judged in both orders: `flip_rate`, the share whose winner changes with the order (%); and
    `first_shown_preference`, the mean preference for the answer shown first (%; 50 for a fair judge).

    Ties are verdicts of their own: a win in one order and a tie in the other is a change of half a flip.
    """
    both = _both_orders(judgments)
    if not both:
        raise QualityError(
            "no question was judged in both orders; set both_orders=true on the benchmark, or use arena_hard or "
            "mt_bench_pairwise, which always do"
        )
    flips = {
        question: [abs(np.sign(a - 0.5) - np.sign(b - 0.5)) / 2 for a, b in pairs] for question, pairs in both.items()
    }
    # Preference for the policy when it comes first, and for the baseline when that does.
    firsts = {question: [value for a, b in pairs for value in (a, 1 - b)] for question, pairs in both.items()}
    return [
        _mean_estimate("flip_rate", flips, seed),
        _mean_estimate("first_shown_preference", firsts, seed),
    ]


def length_preference(
    judgments: Sequence[Judgment],
    chars: Mapping[tuple[str, int], int],
    baseline_chars: Mapping[tuple[str, int], int] | None,
    *,
    seed: int = 0,
) -> Estimate:
    """Spearman's correlation of the verdict with the length in characters: with the policy's minus the baseline's where
    two answers are compared, with the answer's own where it is rated. Keys are (question, turn).
    """
    rows: dict[str, list[tuple[float, float]]] = {}
    for judgment in judgments:
        if judgment.value is None:
            continue
        key = (judgment.question_id, judgment.turn)
        gap = chars[key] - (baseline_chars[key] if baseline_chars is not None else 0)
        rows.setdefault(judgment.question_id, []).append((judgment.value, float(gap)))
    return _bootstrap("length_correlation", rows, _spearman, seed)


def agreement(first: Sequence[Judgment], second: Sequence[Judgment], *, seed: int = 0) -> list[Estimate]:
    """Of two judges on the same requests, or of one judge asked twice: `agreement` (%), Cohen's `kappa`.

    Verdicts are compared as win, tie or loss; ratings as whole points, with kappa weighted by squared distance.
    """
    theirs = {_key(judgment): judgment.value for judgment in second if judgment.value is not None}
    shared = [
        (judgment.question_id, judgment.value, theirs[_key(judgment)])
        for judgment in first
        if judgment.value is not None and _key(judgment) in theirs
    ]
    if not shared:
        raise QualityError("the two sets of judgments share no scored request (question, turn and order)")
    rated = first[0].order == "single"
    rows: dict[str, list[tuple[float, float]]] = {}
    for question, mine, other in shared:
        pair = (round(mine), round(other)) if rated else (float(np.sign(mine - 0.5)), float(np.sign(other - 0.5)))
        rows.setdefault(question, []).append(pair)
    return [
        _bootstrap("agreement", rows, lambda table: 100 * float(np.mean(table[:, 0] == table[:, 1])), seed),
        _bootstrap("kappa", rows, lambda table: _kappa(table, rated=rated), seed),
    ]


def _key(judgment: Judgment) -> tuple[str, int, str]:
    return judgment.question_id, judgment.turn, judgment.order


def _both_orders(judgments: Sequence[Judgment]) -> dict[str, list[tuple[float, float]]]:
    """(policy first, baseline first) preferences for the policy, by question."""
    values = {_key(judgment): judgment.value for judgment in judgments}
    both: dict[str, list[tuple[float, float]]] = {}
    for (question, turn, order), value in values.items():
        other = values.get((question, turn, "baseline_first"))
        if order == "policy_first" and value is not None and other is not None:
            both.setdefault(question, []).append((value, other))
    return both


def _mean_estimate(name: str, rows: Mapping[str, Sequence[float]], seed: int) -> Estimate:
    table = {question: [(value, 0.0) for value in values] for question, values in rows.items()}
    return _bootstrap(name, table, lambda drawn: 100 * float(drawn[:, 0].mean()), seed)


def _bootstrap(
    name: str,
    rows: Mapping[str, Sequence[tuple[float, float]]],
    statistic: Callable[[np.ndarray[Any, Any]], float],
    seed: int,
) -> Estimate:
    groups = [np.array(values, dtype=float) for values in rows.values()]
    if not groups:
        return Estimate(name, float("nan"), (float("nan"), float("nan")), 0)
    rng = np.random.default_rng(seed)
    draws = [
        statistic(np.concatenate([groups[index] for index in rng.integers(0, len(groups), len(groups))]))
        for _ in range(ROUNDS)
    ]
    defined = [draw for draw in draws if not np.isnan(draw)]
    interval = tuple(np.percentile(defined, [2.5, 97.5]).tolist()) if defined else (float("nan"), float("nan"))
    return Estimate(name, statistic(np.concatenate(groups)), (interval[0], interval[1]), len(groups))


def _spearman(table: np.ndarray[Any, Any]) -> float:
    from scipy.stats import rankdata

    first, second = rankdata(table[:, 0]), rankdata(table[:, 1])
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _kappa(table: np.ndarray[Any, Any], *, rated: bool) -> float:
    """NaN where both judges give one and the same verdict throughout: chance alone then agrees as well.

    Every whole number between the extremes is a label, also one that nobody gave: sklearn takes the distance of two
    labels from their places in the list. Labels beyond the extremes would change nothing.
    """
    from sklearn.metrics import cohen_kappa_score

    whole = table.astype(int)
    if whole.min() == whole.max():
        return float("nan")
    labels, weights = np.arange(whole.min(), whole.max() + 1), "quadratic" if rated else None
    return float(cohen_kappa_score(whole[:, 0], whole[:, 1], weights=weights, labels=labels))
