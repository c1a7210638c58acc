"""Estimates over training seeds, base models and benchmark questions together: intervals, paired tests, power.

Every replicate (a training seed on a base model) answers the same questions. A mean over replicates then errs in two
ways: other seeds would have trained other policies, and other questions would have been asked. The spread of the
replicates' values shows the first, with the noise of single answers in it; how the values of all replicates move
together when questions are resampled shows the second. The half widths of the two are added in squares, the first with
Student's t for the few seeds. A plain bootstrap that resamples seeds and questions at once counts the noise of answers
three times and knows no t: `tests/stats/test_simulated.py` measures what both cover.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

EXACT_FLIPS = 12
"""Up to so many replicates every pattern of signs is tried; beyond, RANDOM_FLIPS patterns are drawn."""
RANDOM_FLIPS = 4096
MOST_SEEDS = 10_000
"""Where more would be needed, seeds are not what is missing."""


@dataclass(frozen=True)
class Estimate:
    """A mean over replicates with its 95 % interval and the p-value of its being 0.

    Where several share a base model, it is the mean of the base models' means.
    """

    value: float
    error_replicates: float
    """Standard error from the choice of seeds (and base models), with the noise of single answers."""
    df: int
    """Its degrees of freedom."""
    error_questions: float
    """Standard error from the choice of questions; 0 where they are not resampled."""
    low: float
    high: float
    p: float
    """Two-sided; NaN where nothing but questions varies: one seed decides nothing."""
    n_replicates: int
    n_questions: int
    """0: not resampled."""

    @property
    def standard_error(self) -> float:
        """Both errors together."""
        return math.hypot(self.error_replicates, self.error_questions)

    @property
    def detectable(self) -> float:
        """The smallest true difference that a design of these errors finds in 80 of 100 repetitions at p < 0.05."""
        return _detectable(self.error_replicates, self.df, self.error_questions)


def question_draws(n_questions: int, *, rounds: int = 400, seed: int = 0) -> Array:
    """How often each question is in each draw with replacement, (rounds, questions): weights for weighted means."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_questions, np.full(n_questions, 1 / n_questions), size=rounds).astype(np.float64)


def estimate(
    values: ArrayLike,
    *,
    redrawn: ArrayLike | None = None,
    n_questions: int = 0,
    base_models: Sequence[Hashable] | None = None,
    new_base_models: bool = False,
) -> Estimate:
    """The mean of one value per replicate, (n,); where several share a base model, the mean of the base models' means.

    `redrawn`, (draws, n): the same values on redrawn questions, each draw the same for all replicates (weights from
    `question_draws`); None leaves the questions out. Draws with a value that is not finite are left out. `base_models`,
    (n,): each replicate's base model. Where several replicates share one, the interval is about the mean over these
    base models; with `new_base_models` about other ones, too, of which each is then one observation. One replicate
    alone has an interval over questions and no p.
    """
    observed = np.asarray(values, dtype=np.float64)
    if observed.ndim != 1 or not len(observed) or not np.isfinite(observed).all():
        raise ValueError(f"expected at least one finite value per replicate in one dimension, got {observed}")
    n = len(observed)
    draws = np.empty((0, n)) if redrawn is None else np.asarray(redrawn, dtype=np.float64)
    if draws.shape[1:] != (n,):
        raise ValueError(f"expected redrawn values (draws, {n}), got shape {draws.shape}")
    draws = draws[np.isfinite(draws).all(axis=1)]
    draws = draws if len(draws) > 1 else draws[:0]
    labels: list[Hashable] = list(range(n)) if base_models is None else list(base_models)
    if len(labels) != n:
        raise ValueError(f"expected a base model for each of {n} replicates, got {len(labels)}")
    mean, variance, df = _over_replicates(observed, labels, new_base_models)
    errors = math.sqrt(variance), df, math.sqrt(_shared_question_variance(draws)) if len(draws) else 0.0
    half = _half_width(0.975, *errors) if n > 1 or len(draws) else math.nan
    p = math.nan if n == 1 else _two_sided(mean, *errors)
    return Estimate(mean, *errors, mean - half, mean + half, p, n, n_questions if len(draws) else 0)


def _over_replicates(observed: Array, labels: list[Hashable], new_base_models: bool) -> tuple[float, float, int]:
    """Mean over base models of their replicates' means, its squared error from the replicates, degrees of freedom."""
    groups: dict[Hashable, list[float]] = {}
    for label, value in zip(labels, observed.tolist(), strict=True):
        groups.setdefault(label, []).append(value)
    means = np.array([np.mean(group) for group in groups.values()])
    mean, n_groups = float(means.mean()), len(groups)
    if n_groups == len(observed) or (new_base_models and n_groups > 1):
        # Base models that each have one replicate: both kinds of spread are in the values.
        return mean, float(means.var(ddof=1)) / n_groups if n_groups > 1 else 0.0, n_groups - 1
    if new_base_models:
        return mean, math.nan, 0  # one base model says nothing about others
    df = len(observed) - n_groups
    within = sum(float(np.var(group)) * len(group) for group in groups.values()) / df
    return mean, within * sum(1 / len(group) for group in groups.values()) / n_groups**2, df


def _shared_question_variance(draws: Array) -> float:
    """The mean covariance of two replicates over redrawn questions: what all of them owe to the questions.

    With one replicate its variance, in which the noise of single answers is, too.
    """
    n = draws.shape[1]
    covariance = np.cov(draws, rowvar=False).reshape(n, n)
    if n == 1:
        return float(covariance[0, 0])
    return max(0.0, float((covariance.sum() - np.trace(covariance)) / (n * (n - 1))))


def sign_flip_p(differences: ArrayLike, *, seed: int = 0) -> float:
    """Two-sided p of paired differences, (n,), if each were as likely to have the other sign. Needs no normality.

    Exact up to EXACT_FLIPS pairs. With n pairs it cannot fall below 2 / 2**n.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return math.nan
    if len(values) <= EXACT_FLIPS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(values))))
    else:
        generator = np.random.default_rng(seed)
        signs = np.vstack([np.ones(len(values)), generator.choice((1.0, -1.0), size=(RANDOM_FLIPS - 1, len(values)))])
    means = np.abs(signs @ values)
    # Equal up to rounding counts as equal: sums in another order differ in the last bits.
    return float((means >= means[0] * (1 - 1e-12)).mean())


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's corrected p-values (1979): those below 0.05 err in at most 5 of 100 families. NaN stays and is no test."""
    from statsmodels.stats.multitest import multipletests

    tested = [p for p in ps if not math.isnan(p)]
    corrected = iter(multipletests(tested, method="holm")[1].tolist() if tested else [])
    return [p if math.isnan(p) else next(corrected) for p in ps]


def detectable_difference(sd: float, n: int, *, error_questions: float = 0.0) -> float:
    """The smallest difference that n pairs of seeds find in 80 of 100 repetitions at p < 0.05.

    `sd` is of one pair's difference, `error_questions` the standard error that the questions add. n is at least 2.
    """
    if n < 2 or not sd >= 0:
        raise ValueError(f"expected at least two seeds and an sd of at least 0, got {n} and {sd}")
    return _detectable(sd / math.sqrt(n), n - 1, error_questions)


def seeds_needed(difference: float, sd: float, *, error_questions: float = 0.0) -> int | None:
    """The fewest pairs of seeds that find `difference` in 80 of 100 repetitions at p < 0.05.

    None where MOST_SEEDS would not: the questions' own error, which no seed lowers, is too large, or the difference 0.
    """

    def enough(n: int) -> bool:
        return detectable_difference(sd, n, error_questions=error_questions) <= abs(difference)

    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # low does not suffice, high does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _half_width(quantile: float, error_replicates: float, df: int, error_questions: float) -> float:
    """How far the interval reaches to one side; NaN where the replicates' spread is not known."""
    from scipy.special import ndtri, stdtrit

    by_replicates = stdtrit(df, quantile) * error_replicates if error_replicates > 0 else error_replicates
    return float(np.hypot(by_replicates, ndtri(quantile) * error_questions))


def _detectable(error_replicates: float, df: int, error_questions: float) -> float:
    """How far from 0 a true difference must be for the interval to leave 0 out in 80 of 100 repetitions.

    The interval's half width, and beyond it what the estimate falls short of the truth in one of five repetitions.
    """
    from scipy.special import ndtri

    short = _shortfall(df) * error_replicates if error_replicates > 0 else error_replicates
    interval = _half_width(0.975, error_replicates, df, error_questions)
    return interval + float(np.hypot(short, ndtri(0.8) * error_questions))


@lru_cache(maxsize=MOST_SEEDS)
def _shortfall(df: int) -> float:
    """In standard errors, beyond t's 97.5 % quantile: where the noncentral t of so many degrees of freedom exceeds
    that quantile in 80 of 100 cases. 0.84 for many; Student's own 80 % quantile would give a power of 73 % for df 1."""
    from scipy.optimize import brentq
    from scipy.special import stdtrit
    from scipy.stats import nct

    critical = float(stdtrit(df, 0.975))
    return float(brentq(lambda beyond: nct.sf(critical, df, critical + beyond) - 0.8, 0.0, 10.0, xtol=1e-9))


def _two_sided(mean: float, error_replicates: float, df: int, error_questions: float) -> float:
    """The p at which the interval's end is 0."""
    from scipy.optimize import brentq
    from scipy.special import stdtr

    if math.isnan(error_replicates):
        return math.nan
    if mean == 0 or (error_replicates == 0 and error_questions == 0):
        return float(mean == 0)
    if error_questions == 0:
        return float(2 * stdtr(df, -abs(mean) / error_replicates))

    def beyond(log_p: float) -> float:
        return _half_width(1 - math.exp(log_p) / 2, error_replicates, df, error_questions) - abs(mean)

    smallest = math.log(1e-12)
    return math.exp(smallest) if beyond(smallest) < 0 else math.exp(brentq(beyond, smallest, 0.0, xtol=1e-9))
