"""The first thing on the page: where each objective ended, and how long its answers are beside the control's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis import findings, style
from analysis.contrasts import Contrast
from analysis.estimates import shown_p
from analysis.findings import LEADING
from analysis.replicates import Series, control_of, curves
from analysis.summary import GROUP, metric_names, over_seeds, points, title
from analysis.table import digits_for, number

if TYPE_CHECKING:
    import pandas as pd

    from analysis.collect import Sweep


@dataclass(frozen=True)
class Row:
    """One series after the last round that all have."""

    series: str
    score: str
    interval: str
    length: str
    ratio: str
    p: str
    """Of the ratio, corrected by Holm; empty where one seed gives none."""
    n: int
    """Scored questions, or verdicts where a benchmark has several on one; every seed is asked the same."""
    seeds: str


@dataclass(frozen=True)
class Verdict:
    """What the page opens with. Texts are plain."""

    benchmark: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    sentences: tuple[str, ...]
    """What may be concluded and what may not."""
    compared: bool
    """Whether any objective is held against the control."""


def verdict(sweep: Sweep, benchmarks: Sequence[str]) -> Verdict | None:
    """The verdict on the leading one of these benchmarks; None where no trained policy has a score."""
    name = next((name for name in (*LEADING, *benchmarks) if name in benchmarks), None)
    frame = None if name is None else points(sweep, name)
    if name is None or frame is None or (frame["objective"] == "").all():
        return None
    found = findings.all_contrasts(sweep, name)
    trained = frame[frame["objective"] != ""]
    reached = min(int(group["iteration"].max()) for _, group in trained.groupby(GROUP[:2])) + 1
    horizon = max((contrast.horizon for contrast in found), default=reached)
    ratios = {(c.objective, c.variant): c for c in found if (c.horizon, c.quantity) == (horizon, "log_length")}
    at_end = frame[(frame["objective"] == "") | (frame["iteration"] == horizon - 1)]
    digits = digits_for([float(value) for value in at_end["score"]])
    control = control_of(curves(sweep, name))
    against = control.series if control else None
    rows = tuple(
        _row(one, ratios.get((str(one["objective"]), str(one["variant"]))), against, digits) for one in _records(at_end)
    )
    score, length = (style.metric_name(metric, name) for metric in metric_names(sweep, name))
    ratio = f"length / {findings.control_name(sweep, name)}’s"
    header = ("objective", score, "95 % interval", length, ratio, style.counted_name(name), "seeds")
    caption = f"{title(sweep, name)} after {horizon} round{'s' * (horizon > 1)}"
    sentences = (*findings.verdict(sweep, benchmarks), *findings.warnings(sweep, benchmarks))
    return Verdict(name, caption, header, rows, _notes(rows, list(ratios.values())), sentences, bool(found))


def _records(frame: pd.DataFrame) -> list[dict[str, object]]:
    return over_seeds(frame).to_dict("records")


def _row(one: dict[str, object], contrast: Contrast | None, control: Series | None, digits: int) -> Row:
    objective, variant, n = str(one["objective"]), str(one["variant"]), int(str(one["n"]))
    low, high = (number(float(str(one[side])), digits) for side in ("ci95_low", "ci95_high"))
    return Row(
        series=style.series_name(objective, variant) if objective else style.BASE_NAME,
        score=number(float(str(one["score"])), digits),
        interval=f"{low} to {high}",
        length=number(float(str(one["length"])), 1),
        ratio="1 (control)" if (objective, variant) == control else _ratio(contrast),
        p="" if contrast is None or math.isnan(contrast.p_holm) else shown_p(contrast.p_holm),
        n=int(str(one["n_scored"])),
        seeds=str(n),
    )


def _ratio(contrast: Contrast | None) -> str:
    if contrast is None:
        return "–"
    value, low, high = (math.exp(x) for x in (contrast.estimate.value, contrast.estimate.low, contrast.estimate.high))
    return f"{value:.2f}" if math.isnan(low) else f"{value:.2f} ({low:.2f} to {high:.2f})"


def _notes(rows: Sequence[Row], ratios: Sequence[Contrast]) -> tuple[str, ...]:
    """What the intervals are over."""
    seeds = [int(row.seeds) for row in rows if row.series != style.BASE_NAME]
    if max(seeds) < 2:
        return ("Intervals are over questions alone, as there is one seed.",)
    over = "over seeds, paired by seed and base model" + ", and questions" * any(c.estimate.n_questions for c in ratios)
    note = f"The score’s interval is over seeds (Student’s t){f'; the ratio’s {over}' if ratios else ''}."
    return (f"{note} Where there is one seed, intervals are over questions alone." if min(seeds) < 2 else note,)
