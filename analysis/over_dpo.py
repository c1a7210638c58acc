"""Lengths and scores held against DPO's: of runs with the same seed and base model, as `analysis.replicates` pairs."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aipo.jobs import BASE_ITERATION
from analysis.collect import Run, Sweep
from analysis.fits import FitMethod, fit_line
from analysis.replicates import Series, base_model_of
from analysis.summary import of_each

if TYPE_CHECKING:
    import pandas as pd

DPO = "dpo"
Keys = Mapping[str, tuple[int, Hashable]]
"""Job -> what pairs it with a run of another objective: its seed and the fingerprint of its base model."""


def keys_of(sweep: Sweep) -> Keys:
    """Of every run. One whose base model has no point has that of a run with the same settings of the model."""
    started = {_model(run): base_model_of(run) for run in sweep.runs if _has_base(run)}
    known = {run.job: base_model_of(run) for run in sweep.runs if _has_base(run)}
    return {run.job: (run.seed, known.get(run.job) or started.get(_model(run), run.model)) for run in sweep.runs}


def _has_base(run: Run) -> bool:
    return any(point.iteration == BASE_ITERATION for point in run.points)


def _model(run: Run) -> str:
    return json.dumps([run.model, run.record.settings["model"]], sort_keys=True)


def dpo_variant(
    variants: Mapping[str, Collection[tuple[int, Hashable]]], mine: Collection[tuple[int, Hashable]], same: str
) -> str:
    """The variant of DPO to hold a series with the keys `mine` against: the only one on its base models, else `same`.

    `variants`: the keys of each variant of DPO.
    """
    bases = {base for _, base in mine}
    here = [name for name, keys in variants.items() if bases & {base for _, base in keys}]
    return here[0] if len(here) == 1 else same


def length_ratio(frame: pd.DataFrame, row: dict[str, Any], keys: Keys) -> tuple[float, float]:
    """Mean and sd of length over DPO's, unless that is 0: of one round, seed, base model and variant (or only).

    `frame`: rows of `summary.points`; `row`: one of `summary.over_seeds`. NaN where DPO has no run of the same.
    """
    here = frame[frame["iteration"] == row["iteration"]]
    dpo: dict[str, dict[tuple[int, Hashable], float]] = {}
    for one in here[here["objective"] == DPO].itertuples():
        dpo.setdefault(one.variant, {})[keys[one.job]] = one.length
    mine = here[(here["objective"] == row["objective"]) & (here["variant"] == row["variant"])]
    own = {keys[one.job]: one.length for one in mine.itertuples()}
    theirs = dpo.get(dpo_variant(dpo, own, row["variant"]), {})
    ratios = [length / theirs[key] for key, length in own.items() if theirs.get(key, 0.0) > 0]
    mean, sd = mean_and_sd([ratio for ratio in ratios if not math.isnan(ratio)])
    # DPO's own ratio is 1 by definition: no spread to state.
    return mean, math.nan if row["objective"] == DPO else sd


def scores_over_dpo(scores: Mapping[Series, Mapping[tuple[int, Hashable], float]], series: Series) -> list[float]:
    """The scores of a series minus DPO's of the same seed and base model; none for DPO itself.

    `scores`: of each series, by key.
    """
    if series[0] == DPO:
        return []
    own = scores[series]
    dpo = {variant: found for (objective, variant), found in scores.items() if objective == DPO}
    theirs = dpo.get(dpo_variant(dpo, own, series[1]), {})
    return [own[key] - theirs[key] for key in own if key in theirs]


def score_of_each(
    frame: pd.DataFrame, series: Series, method: FitMethod, length: float, keys: Keys
) -> dict[tuple[int, Hashable], float]:
    """Seed and base model -> score at `length` on its own line, for those whose points determine one."""
    mine = frame[(frame["objective"] == series[0]) & (frame["variant"] == series[1]) & frame["score"].notna()]
    scores = {}
    for _, group in of_each(mine):
        line = fit_line(group["length"].tolist(), group["score"].tolist(), method)
        if line is not None:
            scores[keys[group["job"].iloc[0]]] = line.at(length)
    return scores


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample sd; NaN where there are too few values."""
    mean = statistics.fmean(values) if values else math.nan
    return mean, statistics.stdev(values) if len(values) > 1 else math.nan
