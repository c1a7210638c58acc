"""The whole analysis of a sweep: every table and figure, one page that shows them, and where each came from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from aipo.jobs import BASE_ITERATION
from analysis import (
    agreement,
    closing,
    comparisons,
    escape,
    findings,
    headline,
    machines,
    overoptimization,
    page,
    plots,
    published,
    stamp,
    summary,
    tables,
)
from analysis.closing import SOURCES
from analysis.collect import AnalysisError, Problem, Sweep, collect, iteration_label
from analysis.table import Table

if TYPE_CHECKING:
    import pandas as pd

CAPTIONS = {
    "headline": "What the sweep shows, on its leading benchmark: how long answers become round by round, and the score "
    "at that length. Means over seeds; bands: one standard error of the mean to each side. Right, the higher curve "
    "at the same length is the better objective.",
    "length_vs_score": "Score against mean answer length, from the base model (star) round by round: a marker per "
    "round (mean over seeds), pale for the first, full for the last, which is numbered; thin: the seeds. On official "
    "benchmarks the order is dotted and the straight line is the fit of the paper's figure (tables/fits.md); on the "
    "miniature's the curve is as measured, without a fit. Higher at the same length is better. "
    "Thin bars: a sample standard deviation over seeds to each side; with one seed the score's 95 % "
    "interval over questions.",
    "paper_length_vs_score": "For comparison, the paper's own figure (arXiv 2409.08845: Mistral-Nemo, official "
    "benchmarks), drawn again from values read off the published picture: a dot per round of training, and the lines "
    "it fits. Nothing in it was measured here; only its shape and order can be compared with the figure above.",
    "length_per_iteration": "Mean answer length over the rounds; several seeds: their mean, a thin line for each, "
    "and one sample standard deviation to each side as a band.",
    "score_per_iteration": "Score over the rounds, drawn likewise; with one seed the bars are the score's 95 % "
    "interval over questions.",
    "overoptimization": "The true score (solid) and the ranker's score of the same answers (dashed), mean over seeds: "
    "where the dashed line rises on and the solid one does not, training buys what the ranker likes, not what is good. "
    "Left over the square root of the KL divergence from the base model, right over rounds.",
    "agreement": "How often the reference model gives the chosen completion the larger log-probability than the "
    "rejected one, against how much longer the chosen one is; Wilson 95 % intervals; bins of under 5 pairs not drawn.",
}


def analyse(sweep_folder: Path, *, pdf: bool = False) -> list[Path]:
    """Writes tables/, plots/, report.md, index.html, verdict.json and sources.json into the sweep's folder; returns the
    paths.

    Plots are PNG, with `pdf` in PDF as well.

    The same artifacts give the same bytes, so an analysis that is there and of the same artifacts stays (see
    `analysis.stamp`). Files of an earlier analysis that are not written again are removed. Raises
    AnalysisError when there is no sweep here, or its files contradict each other.
    """
    sweep = collect(sweep_folder)
    gaps, gap_problems = agreement.agreement(sweep)
    names = summary.benchmarks(sweep)
    protocols = {name: summary.protocols(sweep, name) for name in names}
    mixed = [
        Problem(
            "",
            None,
            f"{name} was graded in {len(protocols[name])} ways (judge, questions): a table for each, nothing compared",
        )
        for name in names
        if len(protocols[name]) > 1
    ]
    sweep = replace(sweep, problems=tuple(dict.fromkeys((*sweep.problems, *gap_problems, *mixed))))
    content = stamp.content_hash(sweep, [gaps], page.available(sweep)) + " with PDF" * pdf
    files = stamp.unchanged(sweep_folder, content)
    if files is None:
        files = _write(sweep, gaps, names, protocols, pdf)
    stamp.leave(sweep_folder, content, files, page.folders(sweep), pdf=pdf)
    return files


def _write(
    sweep: Sweep, gaps: pd.DataFrame, names: list[str], protocols: dict[str, list[tuple[str, str]]], pdf: bool
) -> list[Path]:
    sweep_folder = sweep.folder
    comparable = [name for name in names if len(protocols[name]) == 1]
    for folder in ("tables", "plots"):
        (sweep_folder / folder).mkdir(exist_ok=True)

    written: dict[Path, tuple[str, ...]] = {}
    shown: list[Table] = []

    def add_table(table: Table | None) -> None:
        if table is not None:
            shown.append(table)
            written.update(dict.fromkeys(table.write(sweep_folder / "tables"), table.fingerprints))

    def add_plot(paths: Iterable[Path], fingerprints: Iterable[str]) -> None:
        written.update(dict.fromkeys(paths, tuple(fingerprints)))

    def add_csv(name: str, data: pd.DataFrame, fingerprints: Iterable[str]) -> None:
        path = sweep_folder / "tables" / f"{name}.csv"
        path.write_text(escape.csv(data), encoding="utf-8")
        written[path] = tuple(fingerprints)

    for name in names:
        for number, (judge, protocol) in enumerate(protocols[name]):
            suffix = "" if len(protocols[name]) == 1 else f"__{number}_{judge}"
            one = summary.restricted(sweep, name, protocol)
            add_table(tables.score_table(one, name, file_name(name + suffix)))
    plotted = [name for name in comparable if _trained(sweep, name)]
    for name in plotted:
        add_table(findings.contrasts_table(sweep, name, file_name(f"contrasts_{name}")))
        add_table(findings.subject_table(sweep, name, file_name(f"contrasts_{name}_of_aipo")))
        add_table(findings.curves_table(sweep, name, file_name(f"curves_{name}")))
        add_table(overoptimization.table(sweep, name, file_name(f"overoptimization_{name}")))
    if comparable:
        add_table(tables.seeds_table(sweep, comparable))
    if plotted:
        lines = plots.fit_lines(sweep, [name for name in plotted if summary.official(sweep, name)])
        paper = _comparable_lines(sweep, plotted)
        if any(lines.values()):
            add_table(tables.fits_table(sweep, lines, paper))
        drawn, sources = sweep_folder / "plots", plots.score_sources(sweep, plotted)
        leading = next((name for name in findings.LEADING if name in plotted), plotted[0])
        add_plot(headline.of_sweep(sweep, leading, drawn / "headline", pdf=pdf), plots.score_sources(sweep, [leading]))
        add_plot(plots.per_iteration(sweep, plotted, "length", drawn / "length_per_iteration", pdf=pdf), sources)
        add_plot(plots.length_vs_score(sweep, plotted, lines, drawn / "length_vs_score", paper=paper, pdf=pdf), sources)
        add_plot(published.length_figure(drawn / "paper_length_vs_score", pdf=pdf), sources)
        add_plot(plots.per_iteration(sweep, plotted, "score", drawn / "score_per_iteration", pdf=pdf), sources)
        if overoptimization.measured(sweep, plotted[0]):
            add_plot(overoptimization.figure(sweep, leading, drawn / "overoptimization", pdf=pdf), sources)
    add_table(comparisons.recipes_table(sweep, comparable))
    add_table(comparisons.paper_table(sweep, comparable))
    if not gaps.empty:
        add_csv("agreement", gaps, plots.agreement_sources(gaps))
        picture = sweep_folder / "plots" / "agreement"
        add_plot(plots.agreement_plot(gaps, picture, pdf=pdf), plots.agreement_sources(gaps))
    if not sweep.pairs.empty:
        add_table(tables.pairs_table(sweep))
        add_csv("pairs_per_job", tables.pairs_per_job(sweep), summary.unique(sweep.pairs["fingerprint"]))
    add_csv("scores", sweep.scores.drop(columns="protocol"), summary.unique(sweep.scores["fingerprint"]))

    report = sweep_folder / "report.md"
    figures = [path for path in written if path.suffix == ".png"]
    report.write_text(_report(sweep, shown, figures, plotted), encoding="utf-8", newline="\n")
    behind = summary.unique(digest for digests in list(written.values()) for digest in digests)
    gaps_shown = [describe(problem) for problem in sweep.problems]
    found = page.verdict(sweep, plotted)
    html = page.write_page(sweep, shown, found, gaps_shown)
    ending = closing.write(sweep_folder, found)
    written |= dict.fromkeys((report, html, ending), behind)
    return _record(sweep, written)


def file_name(name: str) -> str:
    """The name with everything but letters, digits, dot, minus and underscore replaced."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".")


def _comparable_lines(sweep: Sweep, benchmarks: list[str]) -> pd.DataFrame:
    """The paper's lines on those of the benchmarks that have its questions; none if any run has another model."""
    lines = published.fits()
    same_model = all(run.model.startswith(published.FIGURE_MODEL) for run in sweep.runs)
    shown = [name for name in benchmarks if same_model and summary.official(sweep, name)]
    return lines[lines["benchmark"].isin(shown)]


def _trained(sweep: Sweep, benchmark: str) -> bool:
    rows = sweep.scores
    return bool(((rows["benchmark"] == benchmark) & (rows["iteration"] != BASE_ITERATION)).any())


def _report(sweep: Sweep, shown: list[Table], figures: list[Path], plotted: list[str]) -> str:
    parts = [f"# Analysis of {escape.markdown(sweep.folder.resolve().name)}\n"]
    done = sum(run.status == "done" for run in sweep.runs)
    parts.append(f"{done} of {len(sweep.runs)} jobs are done.")
    if sweep.shared_overrides:
        parts[-1] += f" All were started with {escape.markdown(' '.join(sweep.shared_overrides))}."
    parts[-1] += "\n"
    if sweep.problems:
        parts.append("**Missing from what follows:**\n")
        parts += [f"- {escape.markdown(describe(problem))}" for problem in sweep.problems]
        parts.append("")
    if sentences := findings.verdict(sweep, plotted):
        parts.append("## What this shows\n")
        parts += [f"- {escape.markdown(sentence)}" for sentence in sentences]
        parts.append("")
    warnings = [*findings.warnings(sweep, plotted), *filter(None, [machines.note(sweep)])]
    parts += [f"> {escape.markdown(warning)}\n" for warning in warnings]
    for figure in figures:
        title = figure.stem.replace("_", " ")
        picture = f"![{title}](plots/{figure.name})"
        parts.append(f"## {title.capitalize()}\n\n{picture}\n\n{CAPTIONS[figure.stem]}\n")
    for table in shown:
        parts.append(f"## {escape.markdown(table.title)}\n\n{table.markdown(fingerprints=False)}")
    parts.append(f"Every file with the fingerprints of the artifacts behind it: [{SOURCES}]({SOURCES}).\n")
    return "\n".join(parts)


def describe(problem: Problem) -> str:
    """A problem as one line."""
    where = f"job {problem.job}" if problem.job else "sweep"
    if problem.iteration is not None:
        where += f", round {iteration_label(problem.iteration)}" if problem.iteration >= 0 else ", base model"
    return f"{where}: {problem.what}"


def _record(sweep: Sweep, written: dict[Path, tuple[str, ...]]) -> list[Path]:
    """Writes sources.json and removes what the one before it lists and this analysis did not write."""
    path = sweep.folder / SOURCES
    files = {str(file.relative_to(sweep.folder)): list(digests) for file, digests in sorted(written.items())}
    for name in _former_files(path):
        former = (sweep.folder / name).resolve()
        if name not in files and former.is_relative_to(sweep.folder.resolve()) and former.is_file():
            former.unlink()
    content = {"files": files, "missing": [describe(problem) for problem in sweep.problems]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    return [*written, path]


def _former_files(path: Path) -> list[str]:
    if not path.exists():
        return []
    try:
        return [name for name in json.loads(path.read_text(encoding="utf-8"))["files"] if isinstance(name, str)]
    except (ValueError, KeyError, TypeError) as error:
        raise AnalysisError(f"{path} cannot be read ({error}); delete it, it is written again") from error
