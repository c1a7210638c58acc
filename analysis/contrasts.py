"""Objectives against a control, paired by seed and base model: length and score, alone and each at equal other."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aipo.stats import (
    Estimate,
    Range,
    common_lengths,
    common_scores,
    estimate,
    holm,
    mean_log_length_over,
    mean_score_over,
    sign_flip_p,
)
from analysis.replicates import CONTROL, Curves, Replicate, control_of, key_of

Array = NDArray[np.float64]

SUBJECT = "aipo"
"""The objective that is also held against every other one."""
HORIZONS = (5, 10, 15)
"""Rounds at which contrasts are read, as far as a sweep goes; its last round is always one."""
QUANTITIES = {
    "log_length": "length / control's",
    "score": "score − control's",
    "score_at_equal_length": "score − control's, at equal length",
    "log_length_at_equal_score": "length / control's, at equal score",
}
"""Names in the CSV -> headers. Contrasts of logarithms are shown as ratios."""
PAPER_ORDER = ("aipo", "alpha_dpo", "dpo_nll", "dpo", "simpo")
"""From the shortest last length to the longest in the paper's figure (arXiv 2409.08845), and its order of merit."""

Statistic = Callable[[Array, Array], float]
"""(lengths, scores), both (rounds,), to a number."""


@dataclass(frozen=True)
class Contrast:
    """One quantity of one objective minus the control's (or of the subject minus this objective's), at one horizon."""

    objective: str
    variant: str
    horizon: int
    """Rounds that enter it."""
    quantity: str
    estimate: Estimate
    """Of natural logarithms for ratios."""
    new_base_models: Estimate | None
    """The same about other base models, too; None where each seed has one of its own, or there is only one."""
    p_holm: float
    """Corrected for the other objectives in this quantity at this horizon."""
    p_sign_flip: float
    """Over seeds alone, without assuming normality."""
    where: Range | None
    """The lengths or scores at which an equal other was read."""


def horizons(curves: Sequence[Curves]) -> list[int]:
    """The rounds at which all series can be read."""
    reached = min(series.rounds for series in curves)
    return sorted({*(horizon for horizon in HORIZONS if horizon < reached), reached})


def paired(curves: Sequence[Curves]) -> list[Curves]:
    """All series on the replicates that every one of them has."""
    shared = set.intersection(*(set(map(key_of, series.replicates)) for series in curves))
    order = [key_of(replicate) for replicate in curves[0].replicates if key_of(replicate) in shared]
    return [series.only(order) for series in curves]


def contrasts(curves: Sequence[Curves], control: str = CONTROL) -> list[Contrast]:
    """Every objective minus the control, at every horizon; [] without the control or without shared replicates."""
    return [contrast for _, contrast in _families(curves, _against(curves, control))]


def compared(curves: Sequence[Curves], control: str = CONTROL) -> list[Curves]:
    """What `contrasts` compares, in the order of `curves`: each series on the replicates that it shares with the
    control, and the control on those that any other has. [] as there. Equal length and score are read off these."""
    return _taking_part(curves, _against(curves, control))[0]


def _against(curves: Sequence[Curves], control: str) -> list[_Pair]:
    against = control_of(curves, control)
    return [pair for other in curves if other is not against and (pair := _pair(other, against))]


def subject_contrasts(curves: Sequence[Curves], subject: str = SUBJECT) -> list[Contrast]:
    """The subject minus every other objective; [] where it has several variants, or none, or fewer than two others.

    `Contrast.objective` and `variant` name the other one.
    """
    mine = [series for series in curves if series.series[0] == subject]
    if len(mine) != 1:
        return []
    pairs = [pair for other in curves if other is not mine[0] and (pair := _pair(mine[0], other, names=other))]
    return [contrast for _, contrast in _families(curves, pairs)] if len(pairs) > 1 else []


def every_pair(curves: Sequence[Curves]) -> list[tuple[Curves, Curves, list[Contrast]]]:
    """Each series against each one before it, at their last common round, corrected over all pairs of a quantity.

    Read where all series of these pairs pass. A contrast bears the name of the first of the two; [] without a pair
    that shares replicates.
    """
    chosen = [(two, one) for one, two in itertools.combinations(curves, 2)]
    pairs = [pair for two, one in chosen if (pair := _pair(two, one)) is not None]
    found = _families(curves, pairs)
    if not found:
        return []
    last = max(contrast.horizon for _, contrast in found)
    rows = [[one for place, one in found if place == number and one.horizon == last] for number in range(len(pairs))]
    return [(pair.minuend, pair.subtrahend, mine) for pair, mine in zip(pairs, rows, strict=True)]


def pair_contrasts(one: Curves, control: Curves) -> dict[str, Contrast]:
    """Quantity -> one objective minus the control at their last common round, at lengths that these two pass.

    So an arm that reaches no length of a third one is still comparable; p is not corrected for other pairs. {} where
    the two share no replicates; a quantity without common lengths or scores is absent.
    """
    pair = _pair(one, control)
    if pair is None:
        return {}
    found = [contrast for _, contrast in _families([one, control], [pair])]
    last = max(contrast.horizon for contrast in found)
    return {contrast.quantity: contrast for contrast in found if contrast.horizon == last}


@dataclass(frozen=True)
class _Pair:
    """Two series on the replicates that they share: one minus another, and whose name the difference bears."""

    minuend: Curves
    minuend_places: list[int]
    subtrahend: Curves
    subtrahend_places: list[int]
    names: tuple[str, str]


def _families(curves: Sequence[Curves], pairs: Sequence[_Pair]) -> list[tuple[int, Contrast]]:
    """Each quantity of all pairs at every horizon, with the pair's place; those of one quantity and horizon are
    corrected together. A pair with a run whose answers are all empty has no ratio of lengths, and is not in it.

    Equal length and score are read where the replicates of these pairs pass: what is compared with nothing narrows
    them for nobody."""
    found: list[tuple[int, Contrast]] = []
    if not pairs:
        return found
    curves, pairs = _taking_part(curves, pairs)
    for horizon, quantity in itertools.product(horizons(curves), QUANTITIES):
        statistic, where = statistic_of(quantity, curves, horizon)
        if statistic is None:
            continue
        read = {id(series): _reading(series, horizon, statistic) for series in curves}
        sides = [
            (read[id(pair.minuend)].only(pair.minuend_places), read[id(pair.subtrahend)].only(pair.subtrahend_places))
            for pair in pairs
        ]
        family = [
            (place, _contrast(pairs[place].names, mine, against, horizon, quantity, where))
            for place, (mine, against) in enumerate(sides)
            if np.isfinite(mine.values).all() and np.isfinite(against.values).all()
        ]
        corrected = holm([contrast.estimate.p for _, contrast in family])
        found += [(place, replace(contrast, p_holm=p)) for (place, contrast), p in zip(family, corrected, strict=True)]
    return found


def _taking_part(curves: Sequence[Curves], pairs: Sequence[_Pair]) -> tuple[list[Curves], list[_Pair]]:
    """Those of the series that are in a pair, each on its replicates that are in any, and the pairs of these."""
    taking: dict[int, set[int]] = {}
    for pair in pairs:
        taking.setdefault(id(pair.minuend), set()).update(pair.minuend_places)
        taking.setdefault(id(pair.subtrahend), set()).update(pair.subtrahend_places)
    parts = {id(series): _part(series, tuple(sorted(taking[id(series)]))) for series in curves if id(series) in taking}
    now_at = {key: {before: now for now, before in enumerate(sorted(places))} for key, places in taking.items()}
    renewed = [
        replace(
            pair,
            minuend=parts[id(pair.minuend)],
            minuend_places=[now_at[id(pair.minuend)][place] for place in pair.minuend_places],
            subtrahend=parts[id(pair.subtrahend)],
            subtrahend_places=[now_at[id(pair.subtrahend)][place] for place in pair.subtrahend_places],
        )
        for pair in pairs
    ]
    return list(parts.values()), renewed


@lru_cache(maxsize=64)  # the same object each time, so that its reading is found again
def _part(series: Curves, places: tuple[int, ...]) -> Curves:
    if len(places) == len(series.replicates):
        return series
    return Curves(series.series, tuple(series.replicates[place] for place in places), series.n_questions)


def _pair(minuend: Curves, subtrahend: Curves | None, names: Curves | None = None) -> _Pair | None:
    """The two on the replicates that both have; None where they share none. Named by the first unless said."""
    places = {key_of(replicate): place for place, replicate in enumerate(subtrahend.replicates)} if subtrahend else {}
    mine = [place for place, replicate in enumerate(minuend.replicates) if key_of(replicate) in places]
    if subtrahend is None or not mine:
        return None
    theirs = [places[key_of(minuend.replicates[place])] for place in mine]
    return _Pair(minuend, mine, subtrahend, theirs, (names or minuend).series)


def levels(curves: Sequence[Curves], horizon: int) -> tuple[dict[tuple[str, str], Estimate], Range]:
    """The mean score at equal length of each series that is compared with the control, over the replicates that all of
    them have, at the lengths of `contrasts`; without any comparison likewise of all series, at the lengths that these
    replicates pass. {} where they have no replicate or no length in common."""
    among = compared(curves)
    together = paired(among or curves)
    statistic, where = statistic_of("score_at_equal_length", among or together, horizon)
    if statistic is None or where is None or not together[0].replicates:
        return {}, Range(math.nan, math.nan)
    return {series.series: over_replicates(series, horizon, statistic) for series in together}, where


def over_replicates(series: Curves, horizon: int, statistic: Statistic) -> Estimate:
    """A statistic of the curve, over the series' replicates and questions."""
    read = _Reading(series, horizon, statistic)
    return estimate(read.values, redrawn=read.redrawn, n_questions=series.n_questions, base_models=series.base_models)


class _Reading:
    """A statistic of every replicate: on its questions, (replicates,), and redrawn, (draws, replicates) or None."""

    def __init__(self, series: Curves, horizon: int, statistic: Statistic) -> None:
        self.n_questions = series.n_questions
        self.base_models = series.base_models
        self.values = np.array([statistic(r.lengths[:horizon], r.scores[:horizon]) for r in series.replicates])
        columns = [_on_redrawn(replicate, horizon, statistic) for replicate in series.replicates]
        known = [column for column in columns if column is not None]
        self.redrawn = np.column_stack(known) if len(known) == len(columns) else None

    def only(self, places: Sequence[int]) -> _Reading:
        """Of the replicates at these places, in this order."""
        part = copy.copy(self)
        part.base_models = [self.base_models[place] for place in places]
        part.values = self.values[list(places)]
        part.redrawn = None if self.redrawn is None else self.redrawn[:, list(places)]
        return part


def _contrast(
    names: tuple[str, str], mine: _Reading, against: _Reading, horizon: int, quantity: str, where: Range | None
) -> Contrast:
    differences = mine.values - against.values
    with np.errstate(invalid="ignore"):  # of two empty draws the logarithms are both minus infinity
        redrawn = None if mine.redrawn is None or against.redrawn is None else mine.redrawn - against.redrawn
    n_questions, bases = min(mine.n_questions, against.n_questions), mine.base_models
    options: dict[str, Any] = {"redrawn": redrawn, "n_questions": n_questions, "base_models": bases}
    several = 1 < len(set(bases)) < len(bases)
    return Contrast(
        *names,
        horizon,
        quantity,
        estimate(differences, **options),
        estimate(differences, **options, new_base_models=True) if several else None,
        math.nan,
        sign_flip_p(differences),
        where,
    )


@lru_cache(maxsize=512)  # redrawn questions make a reading dear, and every family of pairs reads the same curves
def _reading(series: Curves, horizon: int, statistic: Statistic) -> _Reading:
    return _Reading(series, horizon, statistic)


def statistic_of(quantity: str, together: Sequence[Curves], horizon: int) -> tuple[Statistic | None, Range | None]:
    """The function of a curve that the quantity compares, and where; None where curves have nothing in common."""
    return _statistic(quantity, tuple(together), horizon)


@lru_cache(maxsize=128)  # equal questions get the same function, so that a reading is found again
def _statistic(quantity: str, together: tuple[Curves, ...], horizon: int) -> tuple[Statistic | None, Range | None]:
    everyone = [replicate for series in together for replicate in series.replicates]
    if quantity == "log_length":
        return lambda lengths, scores: math.log(lengths[-1]) if lengths[-1] > 0 else -math.inf, None
    if quantity == "score":
        return lambda lengths, scores: float(scores[-1]), None
    if quantity == "score_at_equal_length":
        where = common_lengths([replicate.lengths[:horizon] for replicate in everyone])
        read = mean_score_over
    else:
        where = common_scores([replicate.scores[:horizon] for replicate in everyone])
        read = mean_log_length_over
    if where.is_empty or horizon < 2:
        return None, None
    return lambda lengths, scores: read(lengths, scores, where), where


def _on_redrawn(replicate: Replicate, horizon: int, statistic: Statistic) -> Array | None:
    """The statistic of every draw of questions, (draws,); NaN where a draw has no scored question."""
    if replicate.redrawn_scores is None or replicate.redrawn_lengths is None:
        return None
    return np.array(
        [
            statistic(lengths[:horizon], scores[:horizon]) if np.isfinite(scores[:horizon]).all() else math.nan
            for lengths, scores in zip(replicate.redrawn_lengths, replicate.redrawn_scores, strict=True)
        ]
    )


@dataclass(frozen=True)
class OrderAgreement:
    """How far the measured order of objectives is the paper's."""

    tau: float
    """Kendall's, of the means over base models of their replicates' means: 1 the same order, -1 the reverse."""
    low: float
    """95 % percentile interval over redrawn replicates; so is `high`."""
    high: float
    p: float
    """Exact, two-sided: how often a random order agrees or disagrees as much."""
    share_equal: float
    """Of the redraws, those with exactly the paper's order."""
    order: tuple[str, ...]
    """As measured, the best first."""


def order_agreement(
    curves: Sequence[Curves], statistic: Statistic, *, rising: bool, rounds: int = 2000, seed: int = 0
) -> OrderAgreement | None:
    """Kendall's tau of the paper's objectives by a statistic of their last round.

    None with fewer than three of them, fewer than two replicates that all have, or two equal means: that is no order.

    `rising`: the best has the smallest value (a length), else the largest. Replicates are redrawn, those of each base
    model among themselves where several share one, with one draw of questions, the same for all objectives.
    """
    from scipy.stats import kendalltau

    known = [series for series in curves if series.series[0] in PAPER_ORDER]
    if len(known) < 3 or len({series.series[0] for series in known}) < len(known):
        return None
    together = paired(known)
    n = len(together[0].replicates)
    if n < 2:
        return None
    horizon = min(series.rounds for series in together)
    rank = [PAPER_ORDER.index(series.series[0]) for series in together]
    sign = 1.0 if rising else -1.0
    observed = np.array(
        [[sign * statistic(r.lengths[:horizon], r.scores[:horizon]) for r in series.replicates] for series in together]
    )
    slots = _slots(together[0].base_models)
    weights = np.concatenate([np.full(len(places), 1 / len(slots) / len(places)) for places in slots])
    middle = observed[:, np.concatenate(slots)] @ weights
    if len(set(middle.tolist())) < len(together):
        return None
    columns = [[_on_redrawn(r, horizon, statistic) for r in series.replicates] for series in together]
    generator = np.random.default_rng(seed)
    taus, equal = [], 0
    for _ in range(rounds):
        picks = np.concatenate([places[generator.integers(len(places), size=len(places))] for places in slots])
        if any(column is None for series in columns for column in series):
            means = observed[:, picks] @ weights
        else:
            first: Any = columns[0][0]
            draw = int(generator.integers(len(first)))
            means = np.array([[sign * series[pick][draw] for pick in picks] for series in columns]) @ weights
        tau = _tau(rank, means)
        taus.append(tau)
        equal += tau > 1 - 1e-9
    result = kendalltau(rank, middle)
    low, high = np.percentile(taus, [2.5, 97.5])
    names = [together[index].series[0] for index in np.argsort(middle)]
    return OrderAgreement(
        float(result.statistic), float(low), float(high), float(result.pvalue), equal / rounds, tuple(names)
    )


def _slots(base_models: Sequence[Hashable]) -> list[NDArray[np.intp]]:
    """The places of the replicates that are redrawn together: each base model's, or all where each has its own."""
    labels = list(dict.fromkeys(base_models))
    if len(labels) == len(base_models):
        return [np.arange(len(base_models))]
    return [np.array([place for place, one in enumerate(base_models) if one == label]) for label in labels]


def _tau(rank: Sequence[int], values: Array) -> float:
    pairs = itertools.combinations(range(len(rank)), 2)
    return float(np.mean([np.sign((rank[i] - rank[j]) * (values[i] - values[j])) for i, j in pairs]))
