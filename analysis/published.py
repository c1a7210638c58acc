"""The paper's own numbers (arXiv 2409.08845): its length figure drawn again, and its lines fitted again and checked.

`analysis/paper/*.csv`: `recipes.csv` and `headline.csv` are the paper's tables; `length_vs_score.csv` was read off the
published picture and `length_vs_score_fit.csv` off the lines drawn in it. None of it was measured with this suite.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import plots, style
from analysis.fits import FIT_METHODS, FIT_NAMES, Line, fit_line
from analysis.legend import draw_legend

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).resolve().parent / "paper"

SOURCE = "arXiv 2409.08845, values read off the published figure"

FIGURE_MODEL = "mistral_nemo"
"""Beginning of the conf/model name of the model the length figure shows. The paper's caption is not needed for that:
the headline numbers of its Mistral-Nemo model (597 tokens, 56.2; 2122 characters, 60.4) are points of the figure."""

TOLERANCE = {"arena_hard": 0.0015, "alpaca_eval": 0.0015}
"""In score points, anywhere on a line: the reading error of the drawn lines. The other kind of fit misses every line by
more, some by hundreds of times that."""

OBJECTIVES = {"DPO": "dpo", "DPO+NLL": "dpo_nll", "SimPO": "simpo", "alpha-DPO": "alpha_dpo", "AIPO": "aipo"}
"""The paper's names -> ours."""

AXES = {
    "arena_hard": ("Mean length (tokens)", "Win rate (%)"),
    "alpaca_eval": ("Mean length (characters)", "Length-controlled win rate (%)"),
}


@dataclass(frozen=True)
class LineCheck:
    """A line fitted to the read points beside the line drawn in the published figure."""

    method: str
    benchmark: str
    line: Line
    published_slope: float
    published_intercept: float
    error: float
    """The larger distance of the two lines at the ends of the drawn one, in score points."""

    @property
    def good(self) -> bool:
        """Equal within the reading error."""
        return self.error <= TOLERANCE[self.benchmark]


def read(name: str) -> pd.DataFrame:
    """One of the tables in `analysis/paper/`."""
    import pandas as pd

    return pd.read_csv(FOLDER / f"{name}.csv")


def fits() -> pd.DataFrame:
    """The lines drawn in the paper's length figure, with our names of the objectives."""
    lines = read("length_vs_score_fit")
    return lines.assign(objective=lines["method"].map(OBJECTIVES))


def check_lines() -> list[LineCheck]:
    """Every line of the published figure, fitted again the way the paper does."""
    read_points = read("length_vs_score")
    checks = []
    for row in read("length_vs_score_fit").itertuples():
        mine = read_points[(read_points["method"] == row.method) & (read_points["benchmark"] == row.benchmark)]
        line = fit_line(mine["length"].tolist(), mine["score"].tolist(), FIT_METHODS[row.benchmark])
        if line is None:
            raise ValueError(f"length_vs_score.csv has no line's worth of points for {row.method}, {row.benchmark}")
        error = max(abs(line.at(x) - (row.slope * x + row.intercept)) for x in (row.x_min, row.x_max))
        checks.append(LineCheck(row.method, row.benchmark, line, row.slope, row.intercept, error))
    return checks


def length_figure(path: Path, *, pdf: bool = True) -> list[Path]:
    """The paper's length figure from the read points: one point per iteration (their order is not known)."""
    read_points, lines = read("length_vs_score"), check_lines()
    with plots.style_context():
        figure = plots.new_figure(9.0, 4.1)
        looks = {}
        for axes, (benchmark, labels) in zip(figure.subplots(1, 2), AXES.items(), strict=True):
            for check in (check for check in lines if check.benchmark == benchmark):
                objective = OBJECTIVES[check.method]
                look = {"color": style.OBJECTIVE_COLOURS[objective], "marker": style.marker(objective)}
                looks[style.objective_name(objective)] = look
                mine = read_points[(read_points["method"] == check.method) & (read_points["benchmark"] == benchmark)]
                axes.scatter(mine["length"], mine["score"], s=24, alpha=0.8, edgecolor="white", linewidth=0.5, **look)
                ends = [check.line.x_min, check.line.x_max]
                axes.plot(ends, [check.line.at(x) for x in ends], color=look["color"], linewidth=1.8)
            axes.set_title(f"{style.benchmark_name(benchmark)} — the paper's values", loc="left")
            axes.set_xlabel(labels[0])
            axes.set_ylabel(labels[1])
        draw_legend(figure, looks, base=False)
        return plots.save(figure, path, source=SOURCE, pdf=pdf)


def report(checks: list[LineCheck]) -> str:
    """The checks as lines of text."""
    lines = [f"{'benchmark':12} {'method':10} {'fit':26} {'slope':>9} {'published':>9}  worst distance on the line"]
    for check in checks:
        verdict = "equal" if check.good else f"DIFFERENT (tolerance {TOLERANCE[check.benchmark]})"
        lines.append(
            f"{check.benchmark:12} {check.method:10} {FIT_NAMES[check.line.method]:26} {check.line.slope:9.6f} "
            f"{check.published_slope:9.6f}  {check.error:.5f} points: {verdict}"
        )
    return "\n".join(lines)
