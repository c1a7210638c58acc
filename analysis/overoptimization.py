"""What training climbs and what is true, over the distance travelled: proxy and gold score over sqrt(KL) and rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aipo.stats import OveroptimizationFit, distance_travelled, estimate, fit_overoptimization
from analysis import plots, style
from analysis.legend import draw_legend
from analysis.replicates import Curves, curves
from analysis.summary import metric_names, points, title, unique
from analysis.table import Table, digits_for, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analysis.collect import Sweep

FEWEST_ROUNDS = 3
"""Two parameters are fitted to each curve."""


def measured(sweep: Sweep, benchmark: str) -> list[Curves]:
    """The series whose policies' KL from the base model is known in every round."""
    known = [
        series
        for series in curves(sweep, benchmark)
        if all(np.isfinite(replicate.kl_base).all() for replicate in series.replicates)
    ]
    return sorted(known, key=lambda series: style.series_order(*series.series))


def figure(sweep: Sweep, benchmark: str, path: Path, *, pdf: bool = False) -> list[Path]:
    """Gold and proxy score over sqrt(KL) and over rounds, a colour per objective, means over seeds.

    Solid: the benchmark's score; dashed: the ranker's score of the same answers, where it was asked. Both begin at the
    base model. The fit of Gao et al. 2022 is in the table, not drawn: the curves are measured.
    """
    with plots.style_context():
        canvas = plots.new_figure(9.0, 4.4)
        left, right = canvas.subplots(1, 2, sharey=True)
        looks: dict[str, dict[str, Any]] = {}
        series = measured(sweep, benchmark)
        known = plots.looks_of(points(sweep, benchmark))
        for one in series:
            look = known[one.series]
            looks[style.series_name(*one.series)] = look
            distance, score, proxy = _means(one)
            rounds = list(range(len(distance)))
            _curve(left, distance, score, proxy, look)
            _curve(right, rounds, score, proxy, look)
        left.set_xlabel("Distance from the base model: √KL (√nats per answer)")
        right.set_xlabel("Round (0: the base model)")
        primary = style.metric_name(metric_names(sweep, benchmark)[0], benchmark)
        left.set_ylabel(f"{primary[:1].upper()}{primary[1:]}, and the ranker's score")
        left.set_title("Over the distance travelled", loc="left")
        right.set_title("Over rounds", loc="left")
        if any(np.isfinite(_means(one)[2]).any() for one in series):
            looks["dashed: the ranker's score"] = {"color": style.BASE_COLOUR, "marker": "", "linestyle": (0, (4, 2))}
        draw_legend(canvas, looks, base=False)
        source = "fingerprints: " + " ".join(plots.score_sources(sweep, [benchmark]))
        return plots.save(canvas, path, source=source, pdf=pdf)


def table(sweep: Sweep, benchmark: str, name: str) -> Table | None:
    """Per objective: KL at the end, and Gao's fit with intervals over seeds."""
    import pandas as pd

    series = [one for one in measured(sweep, benchmark) if one.rounds >= FEWEST_ROUNDS and _can_be_fitted(one)]
    if not series:
        return None
    varied = any(one.series[1] for one in series)
    cells, data = [], []
    gains = [float(r.scores.max() - r.base_score) for one in series for r in one.replicates]
    digits = digits_for(gains)
    for one in series:
        fits = [fit_overoptimization(r.kl_base, r.scores - r.base_score) for r in one.replicates]
        quantities = {
            "last_kl": [float(replicate.kl_base[-1]) for replicate in one.replicates],
            "last_step_kl": [float(replicate.kl_previous[-1]) for replicate in one.replicates],
            "alpha": [fit.alpha for fit in fits],
            "beta": [fit.beta for fit in fits],
        }
        found = {key: estimate(values, base_models=one.base_models) for key, values in quantities.items()}
        mean = OveroptimizationFit(found["alpha"].value, found["beta"].value)
        farthest = max(float(distance_travelled(replicate.kl_base).max()) for replicate in one.replicates)
        peak = "beyond the data" if mean.peak > farthest else number(mean.peak, 2)
        first = [style.objective_name(one.series[0]), *([one.series[1]] if varied else [])]
        shown = [(found["last_kl"], 2), (found["last_step_kl"], 3), (found["alpha"], digits), (found["beta"], digits)]
        cells.append((*first, *(_with_interval(value, places) for value, places in shown), peak))
        row: dict[str, object] = {"benchmark": benchmark, "objective": one.series[0], "variant": one.series[1]}
        for key, value in found.items():
            row |= {key: value.value, f"{key}_low": value.low, f"{key}_high": value.high}
        data.append(row | {"peak_distance": mean.peak, "n_seeds": len(one.replicates)})
    fingerprints = unique(d for digests in points(sweep, benchmark)["fingerprints"] for d in digests)
    header = ("objective", *(["variant"] if varied else []), "KL from the base model (nats per answer)")
    return Table(
        name=name,
        title=f"{title(sweep, benchmark)}: over-optimisation",
        data=pd.DataFrame(data),
        header=(*header, "KL of the last round", "α of the fit", "β of the fit", "√KL of the fit's peak"),
        cells=tuple(cells),
        notes=(
            "Fit: score − base model's = d (α − β ln d) with d = √KL (Gao et al. 2022, arXiv 2210.10760), by least "
            "squares for each seed; in brackets 95 % intervals over seeds.",
            "KL: of answers drawn at temperature 1 to fixed prompts of the pool; its standard error is at most "
            f"{100 * largest_error(series):.1f} % of it (one policy, from the base model).",
        ),
        fingerprints=fingerprints,
        text_columns=1 + varied,
    )


def largest_error(series: Sequence[Curves]) -> float:
    """Of the KL of any policy from the base model: its standard error as a share of it."""
    found = [(replicate.kl_base, replicate.kl_base_error) for one in series for replicate in one.replicates]
    nats, errors = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return float(np.max(errors[nats > 0] / nats[nats > 0]))


def _can_be_fitted(series: Curves) -> bool:
    """Whether each replicate has the two points that a fit of two parameters needs, and a score to gain on."""
    return all(
        np.count_nonzero(distance_travelled(replicate.kl_base)) >= 2 and math.isfinite(replicate.base_score)
        for replicate in series.replicates
    )


def _means(series: Curves) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance, score and proxy score over rounds from the base model on, means over replicates."""
    rounds = series.rounds
    distance = np.mean([distance_travelled(replicate.kl_base[:rounds]) for replicate in series.replicates], axis=0)
    score = np.mean([[r.base_score, *r.scores[:rounds]] for r in series.replicates], axis=0)
    proxy = np.mean([[r.base_proxy, *r.proxy[:rounds]] for r in series.replicates], axis=0)
    return np.concatenate([[0.0], distance]), score, proxy


def _curve(
    axes: Axes, x: Sequence[float] | np.ndarray, score: np.ndarray, proxy: np.ndarray, look: dict[str, Any]
) -> None:
    axes.plot(x, score, color=look["color"], linewidth=1.6, zorder=3)
    axes.scatter(x[1:], score[1:], s=22, zorder=4, edgecolor="white", linewidth=0.5, **look)
    axes.plot(x, proxy, color=look["color"], linewidth=1.3, linestyle=(0, (4, 2)), zorder=2)


def _with_interval(found: Any, digits: int) -> str:
    if math.isnan(found.low):
        return number(found.value, digits)
    return f"{number(found.value, digits)} ({number(found.low, digits)} to {number(found.high, digits)})"
