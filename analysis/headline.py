"""The picture a report opens with: how long answers become, and what quality that length buys. Means alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import style
from analysis.collect import BASE_ITERATION, Sweep
from analysis.legend import draw_legend
from analysis.plots import looks_of, new_figure, save, score_sources, style_context
from analysis.summary import metric_names, over_seeds, points
from analysis.table import digits_for, number

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MOST_SERIES = 10
"""Of more, names beside the curves cannot be told apart."""
NAME_POINTS = 11.5
"""The least distance of two names, from the baseline of one to that of the other."""

NAME_FONT: dict[str, Any] = {"size": 9, "weight": "bold"}
WIDEST_NAME_POINTS = 115.0
"""Of a name beside its curve: wider ones would take half of the figure from the panels, and stand in a legend."""

NORMAL_95 = 1.96
"""Standard errors to each side of a 95 % interval."""


def of_sweep(sweep: Sweep, benchmark: str, path: Path, *, pdf: bool = False) -> list[Path]:
    """The picture of one benchmark of a sweep; see `headline`."""
    score, length = metric_names(sweep, benchmark)
    said = style.metric_name(score, benchmark), style.metric_name(length)
    frame = points(sweep, benchmark)
    return headline(
        over_seeds(frame[frame["score"].notna()]),
        path,
        score=said[0][:1].upper() + said[0][1:],
        length=said[1][:1].upper() + said[1][1:],
        sources=score_sources(sweep, [benchmark]),
        pdf=pdf,
    )


def headline(
    rows: pd.DataFrame, path: Path, *, score: str, length: str, sources: Sequence[str], pdf: bool = False
) -> list[Path]:
    """Mean length over rounds, and mean score over mean length, each curve with its name and last value beside it.

    rows: a row per policy, of the base model and of every objective and round, with the columns objective ("" for the
    base model), variant, iteration, length, score and n (seeds). `score` and `length`: what the axes say. Bands are one
    standard error of the mean over seeds to each side (columns `length_sd`, `score_sd`); with one seed bars are one of
    the score over its questions (from its 95 % interval, `ci95_low` and `ci95_high`).
    Where a name is wider than WIDEST_NAME_POINTS, all stand in a legend below instead.
    Draws nothing, and returns [], for no trained policy or more than ten series.
    """
    looks = looks_of(rows)
    if not 0 < len(looks) <= MOST_SERIES:
        return []
    base = rows[rows["iteration"] == BASE_ITERATION]
    digits = digits_for(rows["score"].tolist())
    seeds = sorted(set(rows.loc[rows["objective"] != "", "n"]))
    counted = "1 seed" if seeds == [1] else f"{'–'.join(str(n) for n in sorted({seeds[0], seeds[-1]}))} seeds"
    names = {series: style.series_name(*series) for series in looks}
    with style_context():
        from matplotlib.ticker import MaxNLocator

        beside = all(name_points(name) <= WIDEST_NAME_POINTS for name in names.values())
        figure = new_figure(9.6, 3.9)
        left, right = figure.subplots(1, 2)
        ends: dict[Any, list[tuple[float, float, str, str]]] = {left: [], right: []}
        for series, look in looks.items():
            mine = rows[(rows["objective"] == series[0]) & (rows["variant"] == series[1])].sort_values("iteration")
            one = [*base.itertuples(), *mine.itertuples()] if len(base) == 1 else [*mine.itertuples()]
            rounds, lengths, scores = ([getattr(row, what) for row in one] for what in ("iteration", "length", "score"))
            rounds = [iteration + 1 for iteration in rounds]
            name = f"{names[series]} " if beside else ""
            _curve(left, rounds, lengths, [_over_seeds(row, "length") for row in one], look)
            _curve(right, lengths, scores, [_over_seeds(row, "score") for row in one], look)
            if seeds == [1]:  # bars, not a band: a curve may go back to shorter answers
                noise = [_over_questions(row) for row in one]
                right.errorbar(lengths, scores, noise, fmt="none", ecolor=look["color"], elinewidth=0.8, alpha=0.45)
            ends[left].append((rounds[-1], lengths[-1], f"{name}{lengths[-1]:.0f}", look["color"]))
            ends[right].append((lengths[-1], scores[-1], f"{name}{number(scores[-1], digits)}", look["color"]))
        if len(base) == 1:
            star: dict[str, Any] = {"marker": "*", "s": 90, "color": style.BASE_COLOUR, "zorder": 6, "linewidth": 0}
            left.scatter([0], base["length"], **star)
            right.scatter(base["length"], base["score"], **star)
            where = float(base["length"].iloc[0]), float(base["score"].iloc[0])
            quiet: dict[str, Any] = {"fontsize": 8.5, "color": style.BASE_COLOUR}
            right.annotate(style.BASE_NAME, where, xytext=(9, -3), textcoords="offset points", **quiet)
        for axes, title, x, y in (
            (left, f"How long answers become ({counted})", "Round (0: the base model)", length),
            (right, "What that length buys", length, score),
        ):
            axes.set_title(title, loc="left")
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            axes.margins(x=0.04)
            low, high = axes.get_xlim()
            axes.set_xticks(
                [tick for tick in MaxNLocator(6, integer=True).tick_values(low, high) if low <= tick <= high]
            )
            axes.set_xlim(low, high + 0.36 * (high - low))  # room for the names
        if not beside:
            draw_legend(figure, {names[series]: look for series, look in looks.items()}, base=False)
        figure.draw_without_rendering()
        for axes, texts in ends.items():
            _names(axes, texts)
        return save(figure, path, source="fingerprints: " + " ".join(sources), pdf=pdf)


def name_points(name: str) -> float:
    """How wide a name beside its curve is, in typographic points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return float(text_to_path.get_text_width_height_descent(name, FontProperties(**NAME_FONT), ismath=False)[0])


def _over_seeds(row: Any, what: str) -> float:
    return float(getattr(row, f"{what}_sd")) / row.n**0.5 if row.n > 1 else 0.0


def _over_questions(row: Any) -> float:
    return float(row.ci95_high - row.ci95_low) / 2 / NORMAL_95


def _curve(axes: Axes, x: Sequence[float], y: Sequence[float], errors: Sequence[float], look: dict[str, Any]) -> None:
    low, high = ([v + sign * e for v, e in zip(y, errors, strict=True)] for sign in (-1, 1))
    axes.fill_between(x, low, high, color=look["color"], alpha=0.12, linewidth=0, zorder=1)
    axes.plot(x, y, color=look["color"], linewidth=1.8, zorder=3)
    axes.plot(x[-1:], y[-1:], **look, markersize=6.5, markeredgecolor="white", markeredgewidth=0.6, zorder=5)


def _names(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names right of the last points, from the top down, each at least NAME_POINTS below the one above it."""
    points_per_pixel = 72 / axes.figure.dpi
    placed: list[float] = []
    found = []
    for x, y, text, colour in sorted(ends, key=lambda end: -end[1]):
        height = float(axes.transData.transform((x, y))[1]) * points_per_pixel
        at = min(height, placed[-1] - NAME_POINTS) if placed else height
        placed.append(at)
        found.append((x, y, text, colour, at - height))
    # As far as the lot was pushed down, half of it goes up again, so that names stay about their points.
    lift = -min(0.0, *(shift for *_, shift in found), 0.0) / 2
    right = max(x for x, *_ in ends)
    for x, y, text, colour, shift in found:
        beside = (
            float(axes.transData.transform((right, y))[0] - axes.transData.transform((x, y))[0])
        ) * points_per_pixel
        axes.annotate(
            text, (x, y), xytext=(beside + 9, shift + lift - 3), textcoords="offset points", color=colour,
            **NAME_FONT, annotation_clip=False, zorder=7,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.5, "shrinkA": 1, "shrinkB": 4}
            if beside > 12 or abs(shift + lift) > 6
            else None,
        )  # fmt: skip
