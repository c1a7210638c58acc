"""Bradley-Terry ratings from battles, as Arena-Hard computes them (utils_math.py and show_result.py at efc012e)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SCALE = 400.0
ANCHOR = 1000.0
"""Rating of the baseline."""

_ONE_SIDED = "all battles end the same way, so the rating has no finite value; report the plain win rate instead"

Battle = tuple[str, str, float]
"""(model_a, model_b, outcome): 1 = model_a won, 0 = model_b won, 0.5 = tie."""


def bradley_terry(battles: Sequence[Battle], *, baseline: str) -> dict[str, float]:
    """Maximum-likelihood ratings, the baseline at 1000, a factor of 10 in odds per 400 points.

    In closed form for two models. More are fitted by scikit-learn's logistic regression without penalty (tolerance
    1e-8), as officially; equal battles are merged into weighted rows first, which leaves the objective as it is.
    Raises ValueError without battles, when the baseline is in none, or when all battles end the same way (one of two
    models wins them all), which has no finite solution.
    """
    names, counts = _count(battles)
    if baseline not in names:
        raise ValueError(f"baseline {baseline!r} is in no battle; models: {names}")
    return _fit(names, counts, baseline)


def win_rate_against(ratings: dict[str, float], baseline: str) -> dict[str, float]:
    """Expected win rate of each model against the baseline, in percent; the baseline's own is 50."""
    own = ratings[baseline]
    return {name: 100 / (1 + 10 ** ((own - rating) / SCALE)) for name, rating in ratings.items()}


def pooled_bootstrap(
    battles: Sequence[Battle], *, baseline: str, rounds: int = 100, seed: int = 42
) -> dict[str, tuple[float, float]]:
    """The official interval of each rating: 2.5 and 97.5 percentiles over resampled battles of all models together.

    It depends on which models are in the pool, and draws battles rather than questions, although one question gives up
    to six of them: see `aipo.benchmarks.arena_hard` for an interval without either flaw. The draws are pandas' own,
    bit for bit, when battles come in the official order (file by file in sorted order, question by question).
    The official bootstrap never receives the baseline's name and anchors each round at gpt-4-0314; ours anchors at
    `baseline`, which is the same for the official baseline.
    """
    names, _ = _count(battles)
    position = {name: index for index, name in enumerate(names)}
    first = np.array([position[battle[0]] for battle in battles])
    second = np.array([position[battle[1]] for battle in battles])
    outcome = np.array([battle[2] for battle in battles])
    generator = np.random.RandomState(seed)
    rows = []
    for _ in range(rounds):
        drawn = generator.choice(len(battles), size=len(battles), replace=True)
        rows.append(_fit(names, _tally(first[drawn], second[drawn], outcome[drawn], len(names)), baseline))
    # A model that a draw leaves out has no rating in it.
    table = [[row.get(name, np.nan) for name in names] for row in rows]
    low, high = np.nanpercentile(table, [2.5, 97.5], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


def _count(battles: Sequence[Battle]) -> tuple[list[str], NDArray[np.float64]]:
    if not battles:
        raise ValueError("expected at least one battle, got none: every verdict is unscored")
    names = list(dict.fromkeys([battle[0] for battle in battles] + [battle[1] for battle in battles]))
    position = {name: index for index, name in enumerate(names)}
    first = np.array([position[battle[0]] for battle in battles])
    second = np.array([position[battle[1]] for battle in battles])
    return names, _tally(first, second, np.array([battle[2] for battle in battles]), len(names))


def _tally(
    first: NDArray[np.int64], second: NDArray[np.int64], outcome: NDArray[np.float64], n_models: int
) -> NDArray[np.float64]:
    """Doubled (2, n, n): [1, a, b] counts how often a, named first, beat b, and [0, a, b] how often it lost."""
    counts = np.zeros((2, n_models, n_models))
    # Twice, so that a tie is one win and one loss: the official code doubles every battle for that.
    np.add.at(counts[1], (first, second), 2 * outcome)
    np.add.at(counts[0], (first, second), 2 * (1 - outcome))
    return counts


def _fit(names: list[str], counts: NDArray[np.float64], baseline: str) -> dict[str, float]:
    if not counts.any(axis=(1, 2)).all():
        raise ValueError(_ONE_SIDED)
    return _fit_two(names, counts, baseline) or _fit_jointly(names, counts, baseline)


def _fit_two(names: list[str], counts: NDArray[np.float64], baseline: str) -> dict[str, float] | None:
    """Two models in closed form: the odds are one's wins over the other's. None where others play as well.

    Three and more against one baseline have such a form, too, but the official fit stops up to 1e-6 points before it.
    """
    won = counts[1] + counts[0].T
    """won[a, b]: how often a beat b, whoever was named first."""
    drawn = np.flatnonzero((won + won.T).any(axis=0))
    if len(drawn) != 2 or won[drawn, drawn].any():
        return None
    if not won[np.ix_(drawn, drawn)].sum(axis=1).all():
        raise ValueError(_ONE_SIDED)
    center = names.index(baseline)
    (other,) = drawn[drawn != center]
    found = {center: ANCHOR, int(other): ANCHOR + SCALE * math.log10(won[other, center] / won[center, other])}
    return {names[index]: found[index] for index in sorted(found)}


def _fit_jointly(names: list[str], counts: NDArray[np.float64], baseline: str) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression

    label, first, second = np.nonzero(counts)
    drawn = sorted({*first, *second})
    features = np.zeros((len(label), len(names)))
    features[np.arange(len(label)), first] = math.log(10)
    features[np.arange(len(label)), second] -= math.log(10)
    model = LogisticRegression(fit_intercept=False, C=np.inf, tol=1e-8)
    model.fit(features[:, drawn], label, sample_weight=counts[label, first, second])
    ratings = SCALE * model.coef_[0] + ANCHOR
    ratings += ANCHOR - ratings[drawn.index(names.index(baseline))]
    return {names[index]: float(rating) for index, rating in zip(drawn, ratings, strict=True)}
