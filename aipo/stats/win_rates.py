"""Win rates from preferences, and percentile bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class WinRate:
    """Win rate of a policy against a baseline. All rates are percent; unscored items are in no rate."""

    win_rate: float
    """Mean preference."""
    standard_error: float
    """Of the mean preference, from the sample standard deviation (n - 1); NaN for a single item."""
    discrete_win_rate: float
    """Every preference rounded to a win or a loss first; a preference of exactly 0.5 is half of each."""
    n_wins: int
    n_losses: int
    n_ties: int
    n_scored: int
    n_unscored: int


def win_rate(preferences: ArrayLike) -> WinRate:
    """Win rate of `preferences`, P(policy beats baseline) in [0, 1] per item, (n,); NaN is unscored.

    Definitions are AlpacaEval's (metrics/winrate.py, metrics/helpers.py, alpaca_eval 0.6.6). Raises ValueError for
    values outside [0, 1] and when nothing is scored.
    """
    values = _checked(preferences)
    scored = values[~np.isnan(values)]
    n = len(scored)
    wins, losses = int((scored > 0.5).sum()), int((scored < 0.5).sum())
    ties = n - wins - losses
    error = float(scored.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return WinRate(
        win_rate=100 * float(scored.mean()),
        standard_error=100 * error,
        discrete_win_rate=100 * (wins + ties / 2) / n,
        n_wins=wins,
        n_losses=losses,
        n_ties=ties,
        n_scored=n,
        n_unscored=len(values) - n,
    )


def _checked(preferences: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(preferences, dtype=np.float64)
    if values.ndim != 1 or np.isnan(values).all():
        raise ValueError(f"expected at least one scored preference in one dimension, got shape {values.shape}")
    outside = values[~np.isnan(values) & ((values < 0) | (values > 1))]
    if len(outside):
        raise ValueError(f"preferences are P(policy wins) in [0, 1]; got {outside[:3].tolist()}")
    return values


def bootstrap_mean_interval(
    values: ArrayLike, *, weights: ArrayLike | None = None, rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the (weighted) mean of `values`, (n,), by resampling items with replacement.

    NaN values are left out first. `weights`, (n,), counts an item's value that often within one draw of it.
    """
    array = np.asarray(values, dtype=np.float64)
    mass = np.ones_like(array) if weights is None else np.asarray(weights, dtype=np.float64)
    kept = ~np.isnan(array) & (mass > 0)
    array, mass = array[kept], mass[kept]
    if not len(array):
        raise ValueError("expected at least one scored value for an interval, got none")
    picks = np.random.default_rng(seed).integers(len(array), size=(rounds, len(array)))
    means = (array * mass)[picks].sum(axis=1) / mass[picks].sum(axis=1)
    return _percentiles(means)


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float], n_items: int, *, rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of `statistic(indices)`, where `indices`, (n_items,), are drawn with replacement.

    Draws for which the statistic is NaN (a correlation without variance, for example) are left out; the interval is
    (NaN, NaN) when every draw is.
    """
    if n_items < 1:
        raise ValueError(f"expected at least one item for an interval, got {n_items}")
    generator = np.random.default_rng(seed)
    values = np.array([statistic(generator.integers(n_items, size=n_items)) for _ in range(rounds)])
    return _percentiles(values[~np.isnan(values)])


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
