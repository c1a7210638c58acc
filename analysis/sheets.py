"""What a sweep's report and page show beside pictures and texts: its tables, and what is missing from them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aipo.jobs import BASE_ITERATION
from analysis import (
    agreement,
    alignment_tax,
    comparisons,
    findings,
    overoptimization,
    plots,
    published,
    summary,
    tables,
)
from analysis.collect import Problem, Sweep, collect, iteration_label
from analysis.fits import Line
from analysis.table import Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Material:
    """A sweep as it is on disk, and which of its benchmarks can be shown how."""

    sweep: Sweep
    """Its problems are complete."""
    gaps: pd.DataFrame
    """Agreement by length gap, `analysis.agreement`."""
    tax: Sequence[alignment_tax.TaskScore]
    """What lm-evaluation-harness found, where it was asked."""
    protocols: Mapping[str, Sequence[tuple[str, str]]]
    """Benchmark -> (judge, protocol) of each way in which it was graded."""

    @property
    def names(self) -> list[str]:
        """Every benchmark."""
        return list(self.protocols)

    @property
    def comparable(self) -> list[str]:
        """Those graded in one way."""
        return [name for name in self.names if len(self.protocols[name]) == 1]

    @property
    def plotted(self) -> list[str]:
        """Of these, those with the score of a trained policy."""
        rows = self.sweep.scores
        trained = rows[rows["iteration"] != BASE_ITERATION]
        return [name for name in self.comparable if bool((trained["benchmark"] == name).any())]

    @property
    def missing(self) -> list[str]:
        """The problems, a line each."""
        return [describe(problem) for problem in self.sweep.problems]


def gather(sweep_folder: Path) -> Material:
    """Reads the sweep. Raises AnalysisError when there is none here, or its files contradict each other."""
    sweep = collect(sweep_folder)
    gaps, gap_problems = agreement.agreement(sweep)
    tax, unreadable = alignment_tax.gather(sweep_folder)
    protocols = {name: summary.protocols(sweep, name) for name in summary.benchmarks(sweep)}
    mixed = [
        Problem(
            "",
            None,
            f"{name} was graded in {len(ways)} ways (judge, questions): a table for each, nothing compared",
        )
        for name, ways in protocols.items()
        if len(ways) > 1
    ]
    sweep = replace(
        sweep,
        problems=tuple(
            dict.fromkeys((*sweep.problems, *gap_problems, *mixed, *(Problem("", None, line) for line in unreadable)))
        ),
    )
    return Material(sweep, gaps, tax, protocols)


def score_sheets(material: Material) -> Iterator[Table]:
    """Every benchmark's scores, contrasts and curves, and the fits."""
    sweep = material.sweep
    found: list[Table | None] = []
    for name in material.names:
        for number, (judge, protocol) in enumerate(material.protocols[name]):
            suffix = "" if len(material.protocols[name]) == 1 else f"__{number}_{judge}"
            one = summary.restricted(sweep, name, protocol)
            found.append(tables.score_table(one, name, file_name(name + suffix)))
    for name in material.plotted:
        found.append(findings.contrasts_table(sweep, name, file_name(f"contrasts_{name}")))
        found.append(findings.subject_table(sweep, name, file_name(f"contrasts_{name}_of_aipo")))
        found.append(findings.curves_table(sweep, name, file_name(f"curves_{name}")))
        found.append(overoptimization.table(sweep, name, file_name(f"overoptimization_{name}")))
    if material.comparable:
        found.append(tables.seeds_table(sweep, material.comparable))
    lines = fit_lines(material)
    if any(lines.values()):
        found.append(tables.fits_table(sweep, lines, paper_lines(material)))
    yield from filter(None, found)


def comparison_sheets(material: Material) -> Iterator[Table]:
    """The recipes, the paper's own table beside ours, and the alignment tax."""
    for table in (comparisons.recipes_table, comparisons.paper_table):
        if (found := table(material.sweep, material.comparable)) is not None:
            yield found
    if (found := alignment_tax.table(material.sweep, material.tax)) is not None:
        yield found


def pair_sheets(material: Material) -> Iterator[Table]:
    """The pairs of each round, where there are any."""
    if not material.sweep.pairs.empty:
        yield tables.pairs_table(material.sweep)


def sheets(material: Material) -> list[Table]:
    """All of them, in the order of report and page."""
    return [*score_sheets(material), *comparison_sheets(material), *pair_sheets(material)]


def fit_lines(material: Material) -> dict[str, dict[plots.Series, Line]]:
    """The fits on official benchmarks."""
    official = [name for name in material.plotted if summary.official(material.sweep, name)]
    return plots.fit_lines(material.sweep, official)


def paper_lines(material: Material) -> pd.DataFrame:
    """The paper's lines on what is plotted, see `comparable_lines`."""
    return comparable_lines(material.sweep, material.plotted)


def comparable_lines(sweep: Sweep, benchmarks: Sequence[str]) -> pd.DataFrame:
    """The paper's lines on those of the benchmarks that have its questions; none if any run has another model."""
    lines = published.fits()
    same_model = all(run.model.startswith(published.FIGURE_MODEL) for run in sweep.runs)
    shown = [name for name in benchmarks if same_model and summary.official(sweep, name)]
    return lines[lines["benchmark"].isin(shown)]


def file_name(name: str) -> str:
    """The name with everything but letters, digits, dot, minus and underscore replaced."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".")


def describe(problem: Problem) -> str:
    """A problem as one line."""
    where = f"job {problem.job}" if problem.job else "sweep"
    if problem.iteration is not None:
        where += f", round {iteration_label(problem.iteration)}" if problem.iteration >= 0 else ", base model"
    return f"{where}: {problem.what}"
