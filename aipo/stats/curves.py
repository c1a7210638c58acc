"""Curves of score and length over training rounds, compared at equal length and at equal score.

A curve is what one run traces, round by round. It is read by interpolation between its measured points: no line is
fitted through it, for score over length is concave, and a line through a longer range lies lower.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

GRID = 41


@dataclass(frozen=True)
class Range:
    """Where curves can be compared: lengths (or scores) that all of them reach."""

    low: float
    high: float

    @property
    def is_empty(self) -> bool:
        """Nothing in common."""
        return not self.low < self.high

    def grid(self) -> Array:
        """Evenly spaced places, ends included."""
        return np.linspace(self.low, self.high, GRID)


def common_lengths(curves: list[Array]) -> Range:
    """The lengths that all curves pass after their first round; `curves` hold lengths over rounds, (rounds,).

    A curve passes what its longest round has, also where it falls back afterwards; `mean_score_over` pools such rounds,
    and holds the score of the longest pool up to there. Of no curves, or where they pass none in common, it is empty.
    """
    return _shared_range(curves)


def common_scores(curves: list[Array]) -> Range:
    """The scores that all curves pass after their first round and before their peak; empty as `common_lengths` is."""
    return _shared_range(curves)


def _shared_range(curves: list[Array]) -> Range:
    if not curves:
        return Range(math.nan, math.nan)
    return Range(max(float(curve[0]) for curve in curves), min(float(curve.max()) for curve in curves))


def mean_score_over(lengths: ArrayLike, scores: ArrayLike, where: Range) -> float:
    """The mean score at the lengths of `where`, on the curve through (length, score), both (rounds,).

    Lengths that fall back for a round are pooled with their neighbours (isotonic regression over rounds), and the
    scores of pooled rounds with them, so that every length has one score. Beyond an end of the curve that end's score
    holds. NaN where `where` is empty, or the curve has no point.
    """
    x, y = _rising(np.asarray(lengths, dtype=np.float64), np.asarray(scores, dtype=np.float64))
    return _mean_between(x, y, where)


def score_at_length(lengths: ArrayLike, scores: ArrayLike, at: float) -> float:
    """The score at one length on the curve that `mean_score_over` reads; an end's own score beyond it."""
    x, y = _rising(np.asarray(lengths, dtype=np.float64), np.asarray(scores, dtype=np.float64))
    return float(_interpolated(x, y, np.array([at]))[0])


def mean_log_length_over(lengths: ArrayLike, scores: ArrayLike, where: Range) -> float:
    """The mean natural logarithm of the length at which the curve first reaches the scores of `where`.

    Read on the way up to the best score; what comes after it reaches no score for the first time. Minus infinity where
    a length of 0 reaches one of them.
    """
    score = np.asarray(scores, dtype=np.float64)
    best = int(score.argmax()) + 1
    x, y = _rising(score[:best], np.asarray(lengths, dtype=np.float64)[:best])
    with np.errstate(divide="ignore"):
        return _mean_between(x, y, where, of=np.log)


def _rising(x: Array, y: Array) -> tuple[Array, Array]:
    """Points in rising order of x: neighbours that fall back are one point, at the mean of both coordinates."""
    from scipy.optimize import isotonic_regression

    if len(x) < 2:
        return x, y
    fitted = isotonic_regression(x)
    starts = fitted.blocks[:-1]
    sizes = np.diff(fitted.blocks)
    return np.asarray(fitted.x)[starts], np.add.reduceat(y, starts) / sizes


def _mean_between(x: Array, y: Array, where: Range, of: Callable[[Array], Array] = np.asarray) -> float:
    if where.is_empty or not len(x):
        return math.nan
    # Beyond an end by rounding or by a redrawn question, the end's own value holds.
    grid = where.grid()
    return float(np.trapezoid(of(_interpolated(x, y, grid)), grid) / (where.high - where.low))


def _interpolated(x: Array, y: Array, at: Array) -> Array:
    """A monotone cubic through the points (no overshoot; less biased on a concave curve than straight pieces)."""
    from scipy.interpolate import PchipInterpolator

    inside = np.clip(at, x[0], x[-1])
    return np.interp(inside, x, y) if len(x) < 3 else np.asarray(PchipInterpolator(x, y)(inside))


@dataclass(frozen=True)
class OveroptimizationFit:
    """score - base score = d (alpha - beta ln d) with d = sqrt(KL from the base model)."""

    alpha: float
    """Gain per unit of d at d = 1."""
    beta: float
    """How fast the gain per unit falls; the curve has a peak only where it is positive."""

    def at(self, d: ArrayLike) -> Array:
        """The gain over the base model's score at these distances, 0 at 0."""
        distance = np.asarray(d, dtype=np.float64)
        safe = np.where(distance > 0, distance, 1.0)
        return np.where(distance > 0, safe * (self.alpha - self.beta * np.log(safe)), 0.0)

    @property
    def peak(self) -> float:
        """The distance of the best score, exp(alpha / beta - 1); infinite without a peak."""
        if self.beta <= 0:
            return math.inf
        return math.exp(min(self.alpha / self.beta - 1, 700.0))


def distance_travelled(kl_nats: ArrayLike) -> Array:
    """sqrt(KL), of the same shape; 0 where an estimate of a KL near 0 came out below it."""
    return np.sqrt(np.maximum(np.asarray(kl_nats, dtype=np.float64), 0.0))


def fit_overoptimization(kl_nats: ArrayLike, gains: ArrayLike) -> OveroptimizationFit:
    """Least squares of the form that Gao et al. 2022 (arXiv 2210.10760, section 3.1) fit to reinforcement learning.

    `kl_nats` (points,) and `gains` (points,): score minus the base model's. Points at KL 0, or whose estimate is below
    it, carry nothing and are left out; raises ValueError when fewer than two are left.
    """
    distance = distance_travelled(kl_nats)
    kept = distance > 0
    if kept.sum() < 2:
        raise ValueError(f"expected at least two points away from the base model, got {int(kept.sum())}")
    x = distance[kept]
    design = np.column_stack([x, -x * np.log(x)])
    alpha, beta = np.linalg.lstsq(design, np.asarray(gains, dtype=np.float64)[kept], rcond=None)[0]
    return OveroptimizationFit(float(alpha), float(beta))
