"""The whole analysis of a sweep: every table and figure, one page that shows them, and where each came from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import (
    alignment_tax,
    closing,
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
from analysis.sheets import (
    Material,
    comparison_sheets,
    fit_lines,
    gather,
    pair_sheets,
    paper_lines,
    score_sheets,
)
from analysis.table import Table

if TYPE_CHECKING:
    import pandas as pd

CAPTIONS = {
    "headline": "What the sweep shows, on its leading benchmark: how long answers become round by round, and the score "
    "at that length. Means over seeds; bands: one standard error of the mean to each side; bars, with one seed: one of "
    "its score over the questions. Right, the higher curve at the same length is the better objective.",
    "length_vs_score": "Score against mean answer length, from the base model (star) round by round: a marker per "
    "round (mean over seeds), pale for the first, full for the last, which is numbered; thin: up to five seeds. On "
    "official benchmarks the order is dotted and the straight line is the fit of the paper's figure (tables/fits.md); "
    "on the miniature's the curve is as measured, without a fit. Higher at the same length is better. "
    "Thin bars: a sample standard deviation over seeds to each side, of more than five seeds at the last round "
    "alone; with one seed the score's 95 % interval over questions.",
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
    material = gather(sweep_folder)
    sources, unreadable = page.behind(material.sweep)
    told = material.sweep.problems
    untold = [one for one in unreadable if not any(one.what in other.what for other in told)]
    material = replace(material, sweep=replace(material.sweep, problems=(*told, *untold)))
    available = [*page.available(material.sweep, sources), *map(repr, material.tax)]
    content = stamp.content_hash(material.sweep, [material.gaps], available) + " with PDF" * pdf
    files = stamp.unchanged(sweep_folder, content)
    if files is None:
        files = _write(material, pdf)
    sources = [*sources, sweep_folder / alignment_tax.FOLDER] if sources else []
    if not page.are_questions_here(material.sweep):
        sources = []
    stamp.leave(sweep_folder, content, files, sources, pdf=pdf)
    return files


def _write(material: Material, pdf: bool) -> list[Path]:
    sweep, gaps, plotted = material.sweep, material.gaps, material.plotted
    sweep_folder = sweep.folder
    for folder in ("tables", "plots"):
        (sweep_folder / folder).mkdir(exist_ok=True)

    written: dict[Path, tuple[str, ...]] = {}
    shown: list[Table] = []

    def add_tables(tables: Iterable[Table]) -> None:
        for table in tables:
            shown.append(table)
            written.update(dict.fromkeys(table.write(sweep_folder / "tables"), table.fingerprints))

    def add_plot(paths: Iterable[Path], fingerprints: Iterable[str]) -> None:
        written.update(dict.fromkeys(paths, tuple(fingerprints)))

    def add_csv(name: str, data: pd.DataFrame, fingerprints: Iterable[str]) -> None:
        path = sweep_folder / "tables" / f"{name}.csv"
        path.write_text(escape.csv(data), encoding="utf-8")
        written[path] = tuple(fingerprints)

    add_tables(score_sheets(material))
    if plotted:
        lines, paper = fit_lines(material), paper_lines(material)
        drawn, sources = sweep_folder / "plots", plots.score_sources(sweep, plotted)
        leading = next((name for name in findings.LEADING if name in plotted), plotted[0])
        add_plot(headline.of_sweep(sweep, leading, drawn / "headline", pdf=pdf), plots.score_sources(sweep, [leading]))
        add_plot(plots.per_iteration(sweep, plotted, "length", drawn / "length_per_iteration", pdf=pdf), sources)
        add_plot(plots.length_vs_score(sweep, plotted, lines, drawn / "length_vs_score", paper=paper, pdf=pdf), sources)
        add_plot(published.length_figure(drawn / "paper_length_vs_score", pdf=pdf), sources)
        add_plot(plots.per_iteration(sweep, plotted, "score", drawn / "score_per_iteration", pdf=pdf), sources)
        if overoptimization.measured(sweep, leading):
            add_plot(overoptimization.figure(sweep, leading, drawn / "overoptimization", pdf=pdf), sources)
    add_tables(comparison_sheets(material))
    if not gaps.empty:
        add_csv("agreement", gaps, plots.agreement_sources(gaps))
        if plots.shows_agreement(gaps):
            picture = sweep_folder / "plots" / "agreement"
            add_plot(plots.agreement_plot(gaps, picture, pdf=pdf), plots.agreement_sources(gaps))
    add_tables(pair_sheets(material))
    if not sweep.pairs.empty:
        add_csv("pairs_per_job", tables.pairs_per_job(sweep), summary.unique(sweep.pairs["fingerprint"]))
    add_csv("scores", sweep.scores.drop(columns="protocol"), summary.unique(sweep.scores["fingerprint"]))

    report = sweep_folder / "report.md"
    figures = [path for path in written if path.suffix == ".png"]
    report.write_text(_report(material, shown, figures), encoding="utf-8", newline="\n")
    behind = summary.unique(digest for digests in list(written.values()) for digest in digests)
    found = page.verdict(sweep, plotted)
    html = page.write_page(sweep, shown, found, material.missing)
    ending = closing.write(sweep_folder, found)
    written |= dict.fromkeys((report, html, ending), behind)
    return _record(material, written)


def _report(material: Material, shown: list[Table], figures: list[Path]) -> str:
    sweep, plotted = material.sweep, material.plotted
    parts = [f"# Analysis of {escape.markdown(sweep.folder.resolve().name)}\n"]
    done = sum(run.status == "done" for run in sweep.runs)
    parts.append(f"{done} of {len(sweep.runs)} jobs are done.")
    if sweep.shared_overrides:
        parts[-1] += f" All were started with {escape.markdown(' '.join(sweep.shared_overrides))}."
    parts[-1] += "\n"
    if sweep.problems:
        parts.append("**Missing from what follows:**\n")
        parts += [f"- {escape.markdown(line)}" for line in material.missing]
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


def _record(material: Material, written: dict[Path, tuple[str, ...]]) -> list[Path]:
    """Writes sources.json and removes what the one before it lists and this analysis did not write.

    A torn one lists nothing, so what only it knew of stays.
    """
    folder = material.sweep.folder
    path = folder / SOURCES
    files = {str(file.relative_to(folder)): list(digests) for file, digests in sorted(written.items())}
    for name in _former_files(path):
        former = (folder / name).resolve()
        if name not in files and former.is_relative_to(folder.resolve()) and former.is_file():
            former.unlink()
    content = {"files": files, "missing": material.missing}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    return [*written, path]


def _former_files(path: Path) -> list[str]:
    if not path.exists():
        return []
    try:
        return [name for name in json.loads(path.read_text(encoding="utf-8"))["files"] if isinstance(name, str)]
    except (ValueError, KeyError, TypeError):
        return []
