"""The figures of a sweep. Drawn straight to a file, without pyplot; the same inputs give the same bytes.

One colour per objective in all of them (style.py); variants of an objective differ in tint and marker.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aipo.jobs import BASE_ITERATION
from analysis import style
from analysis.collect import Sweep, iteration_label
from analysis.fits import Line, fit_line, fit_method
from analysis.legend import draw_legend
from analysis.summary import metric_names, of_each, over_seeds, points, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = tuple[str, str]
"""Objective and variant."""

DPI = 200
"""Twice the 100 dots per inch the figures are laid out for: sharp on high-resolution screens."""

MOST_SEED_LINES = 5
"""With more seeds their single lines are left out, and bars stand at the last point alone."""
MINIMUM_PAIRS = 5

PAPER_LINES = "dashed: the paper's lines"

RC: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "aipo",
    "pdf.fonttype": 42,
    "text.parse_math": False,  # names come from configs: a dollar sign is a dollar sign
}


def fit_lines(sweep: Sweep, benchmarks: Sequence[str]) -> dict[str, dict[Series, Line]]:
    """Per benchmark, the line of score over length of each objective and variant: all its seeds and iterations."""
    lines: dict[str, dict[Series, Line]] = {}
    for benchmark in benchmarks:
        frame = points(sweep, benchmark)
        frame = frame[(frame["iteration"] != BASE_ITERATION) & frame["score"].notna()]
        frame = frame.drop_duplicates(["objective", "variant", "fingerprint"])
        lines[benchmark] = {}
        for series, group in frame.groupby(["objective", "variant"], sort=True):
            line = fit_line(group["length"].tolist(), group["score"].tolist(), fit_method(benchmark))
            if line is not None:
                lines[benchmark][series] = line
    return lines


def length_vs_score(
    sweep: Sweep,
    benchmarks: Sequence[str],
    lines: dict[str, dict[Series, Line]],
    path: Path,
    *,
    paper: pd.DataFrame | None = None,
    pdf: bool = False,
) -> list[Path]:
    """Score over mean length, a panel per benchmark: a point per round (mean over seeds) in their order.

    Benchmarks in `lines` have their fitted lines and a dotted order; of others the measured curve itself is drawn.

    `paper`: the paper's lines (`published.fits`), drawn dashed in the panels of its benchmarks; None draws none.
    """
    overlaid = paper is not None and not paper[paper["benchmark"].isin(benchmarks)].empty

    def panel(axes: Axes, benchmark: str) -> None:
        primary, length = metric_names(sweep, benchmark)
        frame = points(sweep, benchmark)
        frame = frame[frame["score"].notna()]
        rows = over_seeds(frame)
        looks = looks_of(rows)
        base = rows[rows["iteration"] == BASE_ITERATION]
        for series, look in looks.items():
            mine = _of(rows, series)
            for line in [lines[benchmark][series]] if series in lines.get(benchmark, {}) else []:
                ends = [line.x_min, line.x_max]
                axes.plot(ends, [line.at(x) for x in ends], color=look["color"], linewidth=1.8, alpha=0.9, zorder=3)
            path_rows = [*base.itertuples(), *mine.itertuples()] if len(base) == 1 else [*mine.itertuples()]
            axes.plot(
                [row.length for row in path_rows],
                [row.score for row in path_rows],
                color=look["color"], linewidth=0.8 if benchmark in lines else 1.6,
                linestyle=(0, (1, 1.2)) if benchmark in lines else "-", alpha=0.45 if benchmark in lines else 0.9,
                zorder=2,
            )  # fmt: skip
            if mine["n"].max() > MOST_SEED_LINES:  # they would hide what they are about
                _whiskers(axes, mine["length"].iloc[-1:], mine.iloc[-1:], look, lengths=True)
            else:
                for _, seed in of_each(_of(frame, series)) if (mine["n"] > 1).any() else ():
                    axes.plot(seed["length"], seed["score"], color=look["color"], linewidth=0.6, alpha=0.3, zorder=1)
                _whiskers(axes, mine["length"], mine, look, lengths=True)
            _ordered_markers(axes, mine["length"], mine["score"], look)
            if len(mine) > 1:
                _number(axes, mine.iloc[-1], rows, look["color"])
        for row in paper[paper["benchmark"] == benchmark].itertuples() if paper is not None else ():
            if (row.objective, "") in looks:
                colour, ends = looks[row.objective, ""]["color"], [row.x_min, row.x_max]
                scores = [row.slope * x + row.intercept for x in ends]
                axes.plot(ends, scores, color=colour, linewidth=1.2, linestyle=(0, (5, 2)), zorder=2)
        axes.scatter(base["length"], base["score"], marker="*", s=90, color=style.BASE_COLOUR, zorder=5, linewidth=0)
        axes.set_xlabel(_capital(style.metric_name(length)))
        axes.set_ylabel(_capital(style.metric_name(primary, benchmark)))
        axes.margins(0.09)

    return _panels(
        sweep, benchmarks, panel, path,
        fingerprints=score_sources(sweep, benchmarks), base=True, overlaid=overlaid, pdf=pdf,
    )  # fmt: skip


def per_iteration(sweep: Sweep, benchmarks: Sequence[str], what: str, path: Path, *, pdf: bool = False) -> list[Path]:
    """`what` ("length" or "score") over iterations, a panel per benchmark; over several seeds the mean, a band of one
    sample standard deviation to each side and a thin line per seed; of one seed a score's own interval."""

    def panel(axes: Axes, benchmark: str) -> None:
        frame = points(sweep, benchmark)
        rows = over_seeds(frame)
        base = rows[rows["iteration"] == BASE_ITERATION]
        looks = looks_of(rows)
        for number, (series, look) in enumerate(looks.items()):
            mine = _of(rows, series)
            means = [*base.itertuples(), *mine.itertuples()] if len(base) == 1 else [*mine.itertuples()]
            x = [row.iteration for row in means]
            y = [getattr(row, what) for row in means]
            sd = [getattr(row, f"{what}_sd") for row in means]
            if (mine["n"] > 1).any():
                low, high = ([v + sign * s for v, s in zip(y, sd, strict=True)] for sign in (-1, 1))
                several = [row.n > 1 for row in means]
                axes.fill_between(x, low, high, where=several, color=look["color"], alpha=0.11, linewidth=0, zorder=1)
                for _, seed in of_each(_of(frame, series)):
                    axes.plot(seed["iteration"], seed[what], color=look["color"], linewidth=0.6, alpha=0.5, zorder=2)
            if what == "score":
                # Side by side, so that intervals do not hide each other.
                place = mine["iteration"] + 0.05 * (number - (len(looks) - 1) / 2)
                _whiskers(axes, place, mine[mine["n"] == 1], look, lengths=False)
            axes.plot(x, y, color=look["color"], linewidth=1.6, zorder=3)
            axes.scatter(mine["iteration"], mine[what], zorder=4, **look, s=26, edgecolor="white", linewidth=0.6)
        if len(base) == 1:
            axes.scatter(
                base["iteration"], base[what], marker="*", s=90, color=style.BASE_COLOUR, zorder=5, linewidth=0
            )
        ticks = sorted(set(rows["iteration"]))
        axes.set_xticks(ticks, [str(tick + 1) for tick in ticks])
        axes.set_xlabel("Round (0: the base model)")
        axes.set_ylabel(_capital(style.metric_name(metric_names(sweep, benchmark)[what == "length"], benchmark)))

    return _panels(sweep, benchmarks, panel, path, fingerprints=score_sources(sweep, benchmarks), base=True, pdf=pdf)


def shows_agreement(frame: pd.DataFrame) -> bool:
    """Whether any bin of the rounds that `agreement_plot` shows has enough pairs to be drawn."""
    ends = frame["iteration"].isin([frame["iteration"].min(), frame["iteration"].max()])
    return bool((ends & (frame["n_pairs"] >= MINIMUM_PAIRS)).any())


def agreement_plot(frame: pd.DataFrame, path: Path, *, pdf: bool = False) -> list[Path]:
    """Reference-ranker agreement over the length gap, at the first and the last iteration, with the pairs per bin.

    `frame` as `agreement.agreement` returns it. Objectives trained on the same pairs share one line; bins of fewer than
    MINIMUM_PAIRS pairs are not drawn.
    """
    with style_context():
        from matplotlib.ticker import PercentFormatter

        iterations = sorted(set(frame["iteration"]))
        shown = [iterations[0], iterations[-1]] if len(iterations) > 1 else iterations
        figure = new_figure(4.2 * len(shown) + 0.4, 4.6)
        grid = figure.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1))
        looks = looks_of(frame)
        drawn: dict[str, dict[str, Any]] = {}
        width = float((frame["gap_high"] - frame["gap_low"]).replace(math.inf, math.nan).max())
        for column, iteration in enumerate(shown):
            here = frame[frame["iteration"] == iteration]
            top, bottom = grid[0][column], grid[1][column]
            for number, owners in enumerate(sources := _owners(here, looks)):
                shared = len(owners) > 1
                look = {"color": style.BASE_COLOUR, "marker": "o"} if shared else looks[owners[0]]
                everybody = len(owners) == len(looks)
                name = "the same pairs for all" if shared and everybody else ", ".join(map(_series_name, owners))
                drawn.setdefault(name, look)
                bins = _of(here, owners[0])
                bins = bins[bins["n_pairs"] >= MINIMUM_PAIRS]
                # Side by side within a bin, so that intervals do not hide each other.
                x = bins["gap_mean"] + 0.6 * width * ((number + 0.5) / len(sources) - 0.5)
                errors = [bins["share"] - bins["ci95_low"], bins["ci95_high"] - bins["share"]]
                top.errorbar(
                    x, bins["share"], yerr=errors,
                    color=look["color"], marker=look["marker"], markersize=5, linewidth=1.2, elinewidth=1,
                    markeredgecolor="white", markeredgewidth=0.5, clip_on=False, zorder=3,
                )  # fmt: skip
                bottom.plot(bins["gap_mean"], bins["n_pairs"], color=look["color"], linewidth=1.3)
            top.set_title(f"Round {iteration_label(iteration)}", loc="left")
            top.axhline(0.5, color="#888888", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
            bottom.set_xlabel("Length gap: chosen − rejected (tokens)")
            for axes in (top, bottom):
                axes.axvline(0, color="#888888", linewidth=0.8, zorder=1)
        grid[0][0].set_ylim(-0.03, 1.03)
        grid[1][0].set_ylim(0, 1.08 * frame.loc[frame["iteration"].isin(shown), "n_pairs"].max())
        grid[0][0].yaxis.set_major_formatter(PercentFormatter(1.0))
        grid[0][0].set_ylabel("Pairs on which the\nreference agrees")
        grid[1][0].set_ylabel("Pairs per bin")
        draw_legend(figure, drawn, base=False)
        return save(figure, path, source="fingerprints: " + " ".join(agreement_sources(frame)), pdf=pdf)


def _owners(frame: pd.DataFrame, looks: dict[Series, dict[str, Any]]) -> list[list[Series]]:
    """The series of one iteration, those of the same pairs together, in the order of `looks`."""
    by_source: dict[str, list[Series]] = {}
    sources = {(row.objective, row.variant): row.fingerprints for row in frame.itertuples()}
    for series in looks:
        if series in sources:
            by_source.setdefault(sources[series], []).append(series)
    return list(by_source.values())


def agreement_sources(frame: pd.DataFrame) -> list[str]:
    """The fingerprints behind an agreement frame."""
    return sorted({digest for digests in frame["fingerprints"] for digest in digests.split()})


def score_sources(sweep: Sweep, benchmarks: Sequence[str]) -> list[str]:
    """The fingerprints behind the points of these benchmarks."""
    return sorted({d for name in benchmarks for digests in points(sweep, name)["fingerprints"] for d in digests})


def _panels(
    sweep: Sweep,
    benchmarks: Sequence[str],
    draw: Callable[[Axes, str], None],
    path: Path,
    *,
    fingerprints: Sequence[str],
    base: bool,
    overlaid: bool = False,
    pdf: bool = False,
) -> list[Path]:
    with style_context():
        columns = min(2, len(benchmarks))
        rows = math.ceil(len(benchmarks) / columns)
        figure = new_figure(4.3 * columns + (0.4 if columns > 1 else 1.0), 3.3 * rows + 0.5)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        everything = []
        for axes, benchmark in zip(grid, benchmarks, strict=False):
            draw(axes, benchmark)
            axes.set_title(title(sweep, benchmark), loc="left")
            everything.append(points(sweep, benchmark))
        for axes in grid[len(benchmarks) :]:
            axes.set_visible(False)
        import pandas as pd

        looks = looks_of(pd.concat(everything))
        named: dict[str, dict[str, Any]] = {_series_name(series): look for series, look in looks.items()}
        if overlaid:
            named[PAPER_LINES] = {"color": style.BASE_COLOUR, "marker": "", "linestyle": (0, (5, 2))}
        draw_legend(figure, named, base=base)
        return save(figure, path, source="fingerprints: " + " ".join(fingerprints), pdf=pdf)


def looks_of(frame: pd.DataFrame) -> dict[Series, dict[str, Any]]:
    """Colour and marker of each objective and variant."""
    found = {item for item in zip(frame["objective"], frame["variant"], strict=True) if item[0]}
    series = sorted(found, key=lambda item: style.series_order(*item))
    colours = style.colours(objective for objective, _ in series)
    looks = {}
    for objective, colour in colours.items():
        variants = [variant for name, variant in series if name == objective]
        for number, variant in enumerate(variants):
            tint = style.tint(colour, -0.4 + 0.9 * number / (len(variants) - 1)) if len(variants) > 1 else colour
            marker = style.marker(objective) if len(variants) == 1 else style.MARKERS[number % len(style.MARKERS)]
            looks[objective, variant] = {"color": tint, "marker": marker}
    return {item: looks[item] for item in series}


def _of(frame: pd.DataFrame, series: Series) -> pd.DataFrame:
    return frame[(frame["objective"] == series[0]) & (frame["variant"] == series[1])].sort_values("iteration")


def _series_name(series: Series) -> str:
    return style.series_name(*series)


def _ordered_markers(axes: Axes, x: Iterable[float], y: Iterable[float], look: dict[str, str]) -> None:
    """Markers from pale (the first) to full colour (the last): the order of the iterations."""
    x, y = list(x), list(y)
    for number, (a, b) in enumerate(zip(x, y, strict=True)):
        paleness = 0.65 * (1 - number / (len(x) - 1)) if len(x) > 1 else 0.0
        face = style.tint(look["color"], paleness)
        axes.scatter(
            a, b, s=34, facecolor=face, edgecolor=look["color"], marker=look["marker"], linewidth=0.9, zorder=4
        )


def _whiskers(axes: Axes, x: pd.Series, rows: pd.DataFrame, look: dict[str, str], *, lengths: bool) -> None:
    """Thin bars through the scores: over several seeds one sample standard deviation to each side (with `lengths` of
    the lengths too), of one policy the benchmark's own 95 % interval."""
    for row, place in zip(rows.itertuples(), x.loc[rows.index], strict=True):
        low, high = (
            (row.ci95_low, row.ci95_high) if row.n == 1 else (row.score - row.score_sd, row.score + row.score_sd)
        )
        bars: dict[str, Any] = {"color": look["color"], "alpha": 0.3, "linewidth": 0.9, "zorder": 2}
        if not math.isnan(low):
            axes.plot([place, place], [low, high], **bars)
        if lengths and row.n > 1:
            axes.plot([place - row.length_sd, place + row.length_sd], [row.score, row.score], **bars)


def _number(axes: Axes, last: pd.Series, rows: pd.DataFrame, colour: str) -> None:
    """The number of the last iteration beside its marker, readable over lines, on the side free of other markers."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2, foreground="white")]
    axes.annotate(
        iteration_label(last["iteration"]), (last["length"], last["score"]),
        xytext=free_side((last["length"], last["score"]), list(zip(rows["length"], rows["score"], strict=True))),
        textcoords="offset points", ha="center", va="center", color=colour, fontsize=8.5, fontweight="bold",
        path_effects=halo, zorder=3.5,
    )  # fmt: skip


def free_side(point: tuple[float, float], others: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Where a label of `point` is farthest from all markers: its offset from the point, in typographic points.

    `others` are all markers of the panel in data units; a panel measures about 260 by 190 points.
    """
    columns = list(zip(*others, strict=True))
    scale = [size / (max(values) - min(values) or 1.0) for size, values in zip((260.0, 190.0), columns, strict=True)]
    marks = [tuple((a - b) * s for a, b, s in zip(other, point, scale, strict=True)) for other in others]
    sides = [(9.5, -7.5), (10.5, 2.0), (9.5, 8.5), (0.0, 11.0), (0.0, -11.0), (-9.5, -7.5), (-10.5, 2.0), (-9.5, 8.5)]
    # The first of the best sides: distances beyond a label's size do not matter.
    return max(sides, key=lambda side: min(14.0, *(math.dist(side, mark) for mark in marks if any(mark)), 14.0))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def style_context() -> Any:
    """The look of all figures, as a context."""
    import matplotlib

    return matplotlib.rc_context(RC)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def save(figure: Figure, path: Path, *, source: str, pdf: bool = False) -> list[Path]:
    """Writes `path` as .png, and with `pdf` as .pdf too; `source` goes into their metadata, no dates do."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout stands; each file would compute it again
    png, document = path.with_suffix(".png"), path.with_suffix(".pdf")
    figure.savefig(png, dpi=DPI, metadata={"Software": None, "Description": source})
    if not pdf:
        return [png]
    # Embedding a font logs a page of its glyphs where the root logger shows INFO, as it does under Hydra.
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    figure.savefig(document, metadata={"Creator": None, "Producer": None, "CreationDate": None, "Keywords": source})
    return [png, document]
