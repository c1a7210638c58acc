"""AlpacaEval's length-controlled win rate: what the win rate would be if both sides wrote equally long outputs.

A logistic model without intercept explains each preference by the length difference, how hard the instruction is and
which policy it is; setting the length difference to zero gives the controlled win rate. Definition:
alpaca_eval 0.6.6, metrics/glm_winrate.py (`length_controlled_v1`; Dubois et al., arXiv 2404.04475). Each row of the
fit stands twice, as a win with weight p and as a loss with weight 1 - p.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aipo.stats.l1_logistic import fit_exactly

STRENGTHS = np.logspace(-4, 4, 10)
"""Inverse regularization strengths C that cross-validation chooses from (scikit-learn's default grid)."""
N_FOLDS = 5
SEED = 123
"""Seeds liblinear's coordinate order, as the official code does: its result depends on it in the 4th decimal."""
GAMED_WEIGHT = 0.1
"""Weight of a gamed row: the official 0.2, divided by the two gamed baselines (verbose and concise)."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LengthControl:
    """A fitted length model."""

    lc_win_rate: float
    """Percent: mean predicted preference at equal length, over all items, unscored ones included."""
    standard_error: float
    """Percent: the official figure. It is the spread of predictions over items and knows no error of the fit."""
    ci95: tuple[float, float] | None
    """Percent: percentile interval from refits on resampled items at the chosen C; None without bootstrap rounds."""
    coefficients: dict[str, float]
    """`length`, `difficulty` (absent without difficulties) and `policy`."""
    strength: float
    """The chosen C."""
    cv_scores: tuple[float, ...]
    """Mean weighted log-likelihood of the held-out folds per C, larger is better."""
    predictions: tuple[float, ...]
    """P(policy wins) at equal length, per item."""


def length_controlled(
    preferences: ArrayLike,
    chars: ArrayLike,
    baseline_chars: ArrayLike,
    *,
    difficulty: ArrayLike | None = None,
    gamed: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    bootstrap_rounds: int = 0,
    seed: int = 0,
) -> LengthControl:
    """Fit the length model of one policy against one baseline.

    `preferences`: P(policy wins) in [0, 1] per item, (n,); NaN is unscored: left out of the fit, kept in the average.
    `chars`, `baseline_chars`: characters of both outputs, (n,). `difficulty`: per item, (n,); None leaves the term out
    (the official `length_controlled_minimal`). `gamed`: (preference, standardized length difference, difficulty), each
    (m,), of the gamed baselines; None fits without them (the official `length_controlled_noreg`).
    `bootstrap_rounds` > 0 adds an interval; `seed` is for that alone. Raises ValueError below 5 scored items.
    """
    scored_preferences = np.asarray(preferences, dtype=np.float64)
    difference = np.asarray(baseline_chars, dtype=np.float64) - np.asarray(chars, dtype=np.float64)
    n_scored = int((~np.isnan(scored_preferences)).sum())
    if n_scored < N_FOLDS:
        raise ValueError(f"the length model needs at least {N_FOLDS} scored items, got {n_scored}")
    spread = difference.std(ddof=1)
    # Not centred, as in the official code. Equal differences everywhere carry no information about length.
    length = np.tanh(difference / spread) if spread > 0 else np.zeros_like(difference)
    names = ["length", "difficulty", "policy"] if difficulty is not None else ["length", "policy"]
    hardness = np.zeros_like(length) if difficulty is None else np.asarray(difficulty, dtype=np.float64)
    columns = [0, 1, 2] if difficulty is not None else [0, 2]
    features = np.column_stack([length, hardness, np.ones_like(length)])
    equal_length = np.column_stack([np.zeros_like(length), hardness, np.ones_like(length)])[:, columns]
    weights = np.ones_like(length)
    targets = scored_preferences
    if gamed is not None:
        gamed_preferences, gamed_length, gamed_difficulty = (np.asarray(part, dtype=np.float64) for part in gamed)
        gamed_features = np.column_stack([np.tanh(gamed_length), gamed_difficulty, np.zeros_like(gamed_length)])
        features = np.concatenate([gamed_features, features])
        targets = np.concatenate([gamed_preferences, targets])
        weights = np.concatenate([np.full(len(gamed_preferences), GAMED_WEIGHT), weights])
    is_item = np.arange(len(targets)) >= len(targets) - len(length)
    kept = ~np.isnan(targets)
    data = _Rows(features[kept][:, columns], targets[kept], weights[kept])
    fitter = _Liblinear()
    scores = _cross_validate(fitter, data, weighted=gamed is not None)
    strength = float(STRENGTHS[int(scores.argmax())])
    coefficients = fitter.fit(data, strength, np.random.RandomState(SEED))
    predictions = _sigmoid(equal_length @ coefficients)
    interval = None
    if bootstrap_rounds:
        interval = _interval(data, is_item[kept], strength, equal_length, bootstrap_rounds, seed)
    return LengthControl(
        lc_win_rate=100 * float(predictions.mean()),
        standard_error=100 * float(predictions.std(ddof=1) / np.sqrt(len(predictions))),
        ci95=interval,
        coefficients=dict(zip(names, coefficients.tolist(), strict=True)),
        strength=strength,
        cv_scores=tuple(scores.tolist()),
        predictions=tuple(predictions.tolist()),
    )


@dataclass(frozen=True)
class _Rows:
    """Training rows: features (n, k), preferences and sample weights (n,)."""

    features: Array
    preferences: Array
    weights: Array

    def where(self, chosen: NDArray[np.bool_]) -> _Rows:
        return _Rows(self.features[chosen], self.preferences[chosen], self.weights[chosen])


class _Liblinear:
    """scikit-learn's liblinear with an L1 penalty and no intercept, on preferences instead of labels."""

    def __init__(self) -> None:
        from sklearn.linear_model import LogisticRegression

        # scikit-learn 1.8 renamed the choice of penalty; 1.7 reads only the old name.
        renamed = LogisticRegression().get_params()["penalty"] == "deprecated"
        self._penalty = {"l1_ratio": 1.0} if renamed else {"penalty": "l1"}
        self._kind = LogisticRegression

    def fit(self, rows: _Rows, strength: float, random_state: np.random.RandomState) -> Array:
        """Coefficients, (k,). Advances `random_state` by one draw, as scikit-learn's path over C does."""
        from sklearn import config_context

        wins = len(rows.preferences)
        model = self._kind(
            C=strength, solver="liblinear", fit_intercept=False, random_state=random_state, **self._penalty
        )
        with config_context(assume_finite=True, skip_parameter_validation=True), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # liblinear warns where C is too small to converge; such a C never wins
            model.fit(
                np.concatenate([rows.features, rows.features]),
                np.repeat([1, 0], wins),
                sample_weight=np.concatenate([rows.preferences, 1 - rows.preferences]) * np.tile(rows.weights, 2),
            )
        return model.coef_[0]


def _cross_validate(fitter: _Liblinear, data: _Rows, *, weighted: bool) -> Array:
    """Mean held-out score per C, (10,). Row i of N belongs to fold (N - 1 - i) mod 5: scikit-learn's GroupKFold."""
    n_rows = len(data.preferences)
    folds = (n_rows - 1 - np.arange(n_rows)) % N_FOLDS
    scores = np.zeros((N_FOLDS, len(STRENGTHS)))
    for fold in range(N_FOLDS):
        train, held_out = data.where(folds != fold), data.where(folds == fold)
        random_state = np.random.RandomState(SEED)
        for position, strength in enumerate(STRENGTHS):
            coefficients = fitter.fit(train, float(strength), random_state)
            scores[fold, position] = _log_likelihood(held_out, coefficients, weighted=weighted)
    return scores.mean(axis=0)


def _log_likelihood(rows: _Rows, coefficients: Array, *, weighted: bool) -> float:
    predicted = np.clip(_sigmoid(rows.features @ coefficients), 1e-15, 1 - 1e-15)
    per_row = rows.preferences * np.log(predicted) + (1 - rows.preferences) * np.log(1 - predicted)
    # Every row stands twice in the official data, with the same score both times: the mean is the same.
    return float(np.mean(per_row * rows.weights if weighted else per_row))


def _interval(
    data: _Rows, is_item: NDArray[np.bool_], strength: float, equal_length: Array, rounds: int, seed: int
) -> tuple[float, float]:
    """Refit on resampled items. Gamed rows stay as they are: they are part of the instrument, not of the sample."""
    generator = np.random.default_rng(seed)
    n_items = int(is_item.sum())
    factors = np.ones((rounds, len(is_item)))
    draws = generator.integers(n_items, size=(rounds, n_items))
    factors[:, is_item] = np.stack([np.bincount(draw, minlength=n_items) for draw in draws])
    coefficients = fit_exactly(data.features, data.preferences, data.weights * factors, strength)
    rows = generator.integers(len(equal_length), size=(rounds, len(equal_length)))
    predictions = _sigmoid(coefficients @ equal_length.T)
    means = 100 * np.take_along_axis(predictions, rows, axis=1).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _sigmoid(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))
