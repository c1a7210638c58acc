"""The straight line of score over length, as the paper draws it.

The published lines are ordinary least squares in the Arena-Hard panel and a Huber M-estimate (the defaults of
statsmodels' RLM: t = 1.345, scale by the normalised median absolute deviation) in the AlpacaEval panel: refitting the
published points gives the published lines back, which `python -m analysis paper` checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

FitMethod = Literal["ols", "huber"]

FIT_METHODS: dict[str, FitMethod] = {"arena_hard": "ols", "alpaca_eval": "huber"}
"""By benchmark, from the paper's length figure (arXiv 2409.08845). Benchmarks it does not show get ordinary least
squares."""

FIT_NAMES = {"ols": "ordinary least squares", "huber": "Huber robust regression"}

MINIMUM_POINTS = 3


@dataclass(frozen=True)
class Line:
    """score = slope * length + intercept, for lengths from `x_min` to `x_max`."""

    slope: float
    intercept: float
    x_min: float
    x_max: float
    method: FitMethod
    n: int

    def at(self, length: float) -> float:
        """The line's score at this length."""
        return self.slope * length + self.intercept


def fit_method(benchmark: str) -> FitMethod:
    """How the paper fits this benchmark's line."""
    return FIT_METHODS.get(benchmark, "ols")


def fit_line(lengths: Sequence[float], scores: Sequence[float], method: FitMethod) -> Line | None:
    """The fitted line, or None where the points do not determine one: under three, or all of one length."""
    x = np.asarray(lengths, dtype=float)
    y = np.asarray(scores, dtype=float)
    if len(x) < MINIMUM_POINTS or np.ptp(x) <= 1e-9 * max(1.0, float(np.abs(x).max())):
        return None
    centre = x.mean()
    slope = float(((x - centre) * (y - y.mean())).sum() / ((x - centre) ** 2).sum())
    intercept = float(y.mean() - slope * centre)
    residuals = y - slope * x - intercept
    # The robust scale of an exact fit is zero and its weights undefined; there both methods agree.
    if method == "huber" and np.abs(residuals).max() > 1e-9 * max(1.0, float(np.abs(y).max())):
        # Imported here: it takes over a second, and most figures do not need it.
        from statsmodels.robust.robust_linear_model import RLM

        intercept, slope = (float(value) for value in RLM(y, np.column_stack([np.ones_like(x), x])).fit().params)
    return Line(slope, intercept, float(x.min()), float(x.max()), method, len(x))
