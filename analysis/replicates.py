"""Curves with their replicates: per objective, what every seed reached round by round, question by question.

The statistics over seeds and questions together are made from these. Questions come from the `questions.parquet` beside
a score's metrics; a benchmark whose primary metric is no mean over questions (a length-controlled rate) has none, and
its intervals are over seeds alone.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aipo.stats import question_draws
from analysis import style
from analysis.collect import BASE_ITERATION, AnalysisError, Run, Sweep
from analysis.summary import metric_names, points

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Series = tuple[str, str]
"""Objective and variant."""

CONTROL = "dpo"
"""The objective that the others are held against."""
DRAWS = 100
"""Of questions; their spread, the smaller part of an error, is then known to seven percent."""


@dataclass(frozen=True, eq=False)
class Replicate:
    """One run's curve on one benchmark: the rounds from the first on, the base model left out."""

    job: str
    seed: int
    base_model: Hashable
    """The fingerprint of the model it started from."""
    scores: Array
    """(rounds,), and so are the following; NaN where it was not measured."""
    lengths: Array
    kl_base: Array
    """Nats per completion."""
    kl_base_error: Array
    """The standard errors of `kl_base`."""
    kl_previous: Array
    proxy: Array
    """The ranker's mean score of the answers."""
    base_score: float
    base_length: float
    base_proxy: float
    redrawn_scores: Array | None
    """(draws, rounds): on redrawn questions, the same draw in all replicates; None where questions are not known."""
    redrawn_lengths: Array | None


@dataclass(frozen=True, eq=False)
class Curves:
    """An objective (and variant) with its replicates, ordered by base model and seed."""

    series: Series
    replicates: tuple[Replicate, ...]
    n_questions: int
    """0: not resampled."""

    @property
    def base_models(self) -> list[Hashable]:
        return [replicate.base_model for replicate in self.replicates]

    @property
    def rounds(self) -> int:
        """How many rounds all replicates reached."""
        return min(len(replicate.scores) for replicate in self.replicates)

    def only(self, keys: Sequence[tuple[int, Hashable]]) -> Curves:
        """The replicates of these (seed, base model), in this order."""
        by_key = {key_of(replicate): replicate for replicate in self.replicates}
        return Curves(self.series, tuple(by_key[key] for key in keys), self.n_questions)


def key_of(replicate: Replicate) -> tuple[int, Hashable]:
    """What pairs the replicates of two objectives: the same seed on the same base model."""
    return replicate.seed, replicate.base_model


def control_of(found: Sequence[Curves], control: str = CONTROL) -> Curves | None:
    """The series that the others are held against: of several variants of the control, the first of the sweep's."""
    return next((one for one in found if one.series[0] == control), None)


def control_name(found: Sequence[Curves]) -> str:
    """What the control is called: with its variant where there are several of them."""
    series = [one.series for one in found if one.series[0] == CONTROL]
    return style.series_name(*series[0]) if len(series) > 1 else style.objective_name(CONTROL)


def base_model_of(run: Run) -> str:
    """The fingerprint of the model that a run started from; its option's name where the run has no such point."""
    return next((point.policy for point in run.points if point.iteration == BASE_ITERATION), run.model)


def curves(sweep: Sweep, benchmark: str) -> list[Curves]:
    """Every series, in the order of the sweep's runs; runs that reached fewer rounds than the longest are left out."""
    return _collected(sweep, benchmark)[0]


def left_out(sweep: Sweep, benchmark: str) -> list[str]:
    """What no contrast shows, a sentence each: series without any run that can be compared, how many runs of the others
    are left out, series that share no seed and base model with the control, and series with a run whose last answers
    are all empty, to whose length nothing has a ratio."""
    found, incomplete = _collected(sweep, benchmark)
    known = {one.series for one in found}
    incomplete = dict(sorted(incomplete.items(), key=lambda item: style.series_order(*item[0])))
    rounds = max((one.rounds for one in found), default=0)
    reach = f"all {rounds} rounds scored"
    sentences = []
    if absent := [series for series in incomplete if series not in known]:
        names = ", ".join(style.series_name(*series) for series in absent)
        sentences.append(f"Not compared, for none of its runs has {reach} so far: {names}.")
    if partly := {series: n for series, n in incomplete.items() if series in known}:
        names = ", ".join(f"{style.series_name(*series)} {n}" for series, n in partly.items())
        sentences.append(f"Runs left out, for they do not have {reach} so far: {names}.")
    if apart := _apart(found):
        names = ", ".join(style.series_name(*series) for series in apart)
        sentences.append(f"Not compared with {control_name(found)}, for they share no seed and base model: {names}.")
    if empty := [one.series for one in found if any(run.lengths[-1] == 0 for run in one.replicates)]:
        names = ", ".join(style.series_name(*series) for series in sorted(empty, key=lambda s: style.series_order(*s)))
        sentences.append(f"No ratio of lengths, for the last answers of a run are all empty: {names}.")
    return sentences


def _apart(found: Sequence[Curves]) -> list[Series]:
    """The series without any seed and base model of the control's, where there is one."""
    control = control_of(found)
    keys = set(map(key_of, control.replicates)) if control else set()
    apart = [one.series for one in found if control and keys.isdisjoint(map(key_of, one.replicates))]
    return sorted(apart, key=lambda series: style.series_order(*series))


@lru_cache(maxsize=16)
def _collected(sweep: Sweep, benchmark: str) -> tuple[list[Curves], dict[Series, int]]:
    """The series with their whole runs, and how many runs of each series are not whole."""
    frame = points(sweep, benchmark)
    by_job = {run.job: run for run in sweep.runs}
    base = _base_rows(sweep, benchmark)
    found: dict[Series, list[Replicate]] = {}
    sizes: dict[Series, int] = {}
    configured = (run for run in sweep.runs if benchmark in run.primary)
    incomplete = Counter((run.objective, run.variant) for run in configured)
    for (objective, variant, job), rows in frame[frame["objective"] != ""].groupby(
        ["objective", "variant", "job"], sort=False
    ):
        rows = rows[rows["score"].notna()].sort_values("iteration")
        if rows.empty or rows["iteration"].tolist() != list(range(len(rows))):
            continue  # a round is missing; the report's list says so
        replicate, n_questions = _replicate(by_job[job], benchmark, rows, base.get(job))
        found.setdefault((objective, variant), []).append(replicate)
        sizes[objective, variant] = min(sizes.get((objective, variant), n_questions), n_questions)
    longest = max((len(replicate.scores) for group in found.values() for replicate in group), default=0)
    whole = {series: [r for r in group if len(r.scores) == longest] for series, group in found.items()}
    incomplete.subtract({series: len(replicates) for series, replicates in whole.items()})
    found_curves = [
        Curves(series, tuple(sorted(replicates, key=lambda r: (str(r.base_model), r.seed))), sizes[series])
        for series, replicates in whole.items()
        if replicates
    ]
    return found_curves, {series: n for series, n in incomplete.items() if n > 0}


def _base_rows(sweep: Sweep, benchmark: str) -> dict[str, dict[str, Any]]:
    """Job -> score, length and fingerprint of the model it started from."""
    primary, length = metric_names(sweep, benchmark)
    rows = sweep.scores[
        (sweep.scores["benchmark"] == benchmark)
        & (sweep.scores["diagnostic"] == "")
        & (sweep.scores["iteration"] == BASE_ITERATION)
    ]
    found: dict[str, dict[str, Any]] = {}
    for row in rows.itertuples():
        if row.metric in (primary, length):
            found.setdefault(row.job, {})["score" if row.metric == primary else "length"] = row.value
    return found


def _replicate(run: Run, benchmark: str, rows: pd.DataFrame, base: dict[str, Any] | None) -> tuple[Replicate, int]:
    by_iteration = {point.iteration: point for point in run.points}
    measured = [by_iteration[iteration] for iteration in rows["iteration"]]
    kls = [_kl(run.store, point.kl) for point in measured]
    proxies = [_proxy(run.store, point, benchmark) for point in (by_iteration.get(BASE_ITERATION), *measured)]
    redrawn = _redrawn(run.store, rows["fingerprint"].tolist(), run.primary[benchmark], run.length[benchmark])
    replicate = Replicate(
        job=run.job,
        seed=run.seed,
        base_model=base_model_of(run),
        scores=rows["score"].to_numpy(dtype=np.float64),
        lengths=rows["length"].to_numpy(dtype=np.float64),
        kl_base=np.array([base_kl for base_kl, *_ in kls]),
        kl_base_error=np.array([error for _, error, _ in kls]),
        kl_previous=np.array([previous for *_, previous in kls]),
        proxy=np.array(proxies[1:]),
        base_score=(base or {}).get("score", math.nan),
        base_length=(base or {}).get("length", math.nan),
        base_proxy=proxies[0],
        redrawn_scores=redrawn[0] if redrawn else None,
        redrawn_lengths=redrawn[1] if redrawn else None,
    )
    return replicate, redrawn[2] if redrawn else 0


def _kl(store: Path, digest: str | None) -> tuple[float, float, float]:
    """Nats from the base model, their standard error, and nats from the policy before."""
    if digest is None:
        return math.nan, math.nan, math.nan
    path = store / "kl" / digest / "kl.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        base, previous = found["base"], found["previous"]
        return float(base["nats"]), float(base["standard_error"]), float(previous["nats"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AnalysisError(f"{path} cannot be read ({error}); run the sweep again to remake it") from error


def _proxy(store: Path, point: Any, benchmark: str) -> float:
    """The ranker's mean score of the answers at this point; NaN where it was not asked."""
    import pyarrow.parquet as pq

    proxies = point.proxies if point else ()
    digest = next((record.fingerprint for record in proxies if record.benchmark == benchmark), None)
    if digest is None:
        return math.nan
    path = store / "proxy" / digest / "proxy.parquet"
    try:
        scores = pq.read_table(path, columns=["scores"])["scores"].to_pylist()
    except OSError as error:
        raise AnalysisError(f"{path} cannot be read ({error}); run the sweep again to remake it") from error
    return float(np.mean([row[0] for row in scores]))


def _redrawn(store: Path, digests: list[str], primary: str, length: str) -> tuple[Array, Array, int] | None:
    """Scores and lengths on redrawn questions, (draws, rounds) each, and how many questions there are."""
    tables = [questions(store, digest) for digest in digests]
    known = [table for table in tables if table is not None and table["metric"] == primary]
    ids = {table["ids"] for table in known}
    column = {"mean_tokens": "tokens", "mean_chars": "chars"}.get(length)
    if len(known) != len(tables) or len(ids) != 1 or column is None:
        return None
    n = len(known[0]["ids"])
    draws = question_draws(n, rounds=DRAWS)
    scores, lengths = [], []
    for table in known:
        weights = table["weights"]
        mass = draws @ weights
        scores.append(draws @ (table["values"] * weights) / np.where(mass > 0, mass, np.nan))
        lengths.append(draws @ table[column] / n)
    return np.column_stack(scores), np.column_stack(lengths), n


@cache
def questions(store: Path, digest: str) -> dict[str, Any] | None:
    """The columns of a score's questions, or None where it has none; unscored ones at weight 0."""
    import pyarrow.parquet as pq

    path = store / "scores" / digest / "questions.parquet"
    if not path.exists():
        return None
    table = pq.read_table(path)
    if not table.num_rows:
        return None
    values = table["value"].to_numpy(zero_copy_only=False).astype(np.float64)
    return {
        "metric": table["metric"][0].as_py(),
        "ids": tuple(table["question_id"].to_pylist()),
        "values": np.nan_to_num(values),
        "weights": np.where(np.isnan(values), 0.0, table["weight"].to_numpy(zero_copy_only=False)),
        "chars": table["n_chars"].to_numpy(zero_copy_only=False),
        "tokens": table["n_tokens"].to_numpy(zero_copy_only=False),
    }
