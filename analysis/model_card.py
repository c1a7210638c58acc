"""A trained policy as a folder to share, with a card: `python -m analysis.model_card <job> --out <folder>`.

The card states what the artifacts say: recipe, data with every drop, scores with intervals, the length curve, limits.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aipo.artifacts import Artifact, StaleArtifactError, read_manifest
from aipo.artifacts.files import missing_weights
from aipo.jobs import BenchmarkRecord, JobFileError, JobRecord, Point, ScoreRecord, read_job, store_of
from aipo.records import markdown_table
from analysis import escape
from analysis.collect import iteration_label
from analysis.hub import head

LENGTH_PLOT = "length_curve.png"


class ExportError(RuntimeError):
    """A job or one of its artifacts is not there, or is not what an export needs."""


@dataclass(frozen=True)
class Job:
    """A job's record, and access to the artifacts that it names."""

    record: JobRecord
    store: Path

    @classmethod
    def read(cls, folder: Path) -> Job:
        """The job of `results/<sweep>/jobs/<job>`."""
        try:
            record = read_job(folder)
        except JobFileError as error:
            raise ExportError(str(error)) from error
        return cls(record, store_of(folder, record))

    @property
    def model(self) -> Mapping[str, Any]:
        """The base model's settings."""
        return self.record.settings["model"]

    @property
    def base(self) -> str:
        """What the base model is called: its hub id or folder, else the name of its preset."""
        return str(self.model.get("path") or self.record.model)

    def points(self, last: int) -> list[Point]:
        """The base model and every round up to `last`."""
        return [point for point in self.record.points if point.iteration <= last]

    def point(self, number: int | None, folder: Path) -> Point:
        """The round to export, from 1, by default the last one that was evaluated. `folder`: for the message."""
        trained = [point for point in self.record.points if point.train is not None]
        wanted = [point for point in trained if number in (None, point.iteration + 1)]
        if not wanted:
            rounds = ", ".join(str(point.iteration + 1) for point in trained) or "none"
            asked = "" if number is None else f" {number}"
            remedy = "choose one of these with --round" if trained else "run the job again, as `aipo rerun` does"
            status = self.record.status
            raise ExportError(f"{folder} ({status}): no evaluated round{asked}; there is: {rounds}; {remedy}")
        return max(wanted, key=lambda point: point.iteration)

    def manifest(self, stage: str, digest: str | None) -> Mapping[str, Any]:
        """The manifest of an artifact, its files compared with it."""
        try:
            return read_manifest(self.store, stage, str(digest))
        except StaleArtifactError as error:
            raise ExportError(str(error)) from error

    def benchmark(self, name: str) -> BenchmarkRecord:
        """What the record says of a benchmark."""
        return next(found for found in self.record.benchmarks if found.name == name)

    def metrics(self, score: ScoreRecord) -> list[Mapping[str, Any]]:
        """The rows of a scores artifact."""
        self.manifest("scores", score.fingerprint)
        path = self.store / "scores" / score.fingerprint / "metrics.json"
        return json.loads(path.read_text(encoding="utf-8"))


def export_policy(job_folder: Path, out: Path, number: int | None = None) -> Path:
    """Copy the policy of a round (from 1; default: the last) to `out`, with README.md and the plot. Returns `out`.

    The copy is checked before it takes its name: weights in safetensors, a chat template, a generation config that
    transformers accepts. Raises ExportError; `out` must not exist yet.
    """
    if out.exists():
        raise ExportError(f"{out}: exists already; choose another folder or remove it")
    job = Job.read(job_folder)
    point = job.point(number, job_folder)
    source = job.store / "train" / str(point.train) / "model"
    if not source.is_dir():
        raise ExportError(f"{source}: missing; run the job again to remake it, or set the right working directory")
    trained = Artifact("train", str(point.train), source.parent)
    try:
        trained.verify()
    except StaleArtifactError as error:
        raise ExportError(str(error)) from error
    if missing_weights(source.parent):
        raise ExportError(
            f"{source}: its weights were pruned. A stage that needs them makes them again: run the job with one more "
            "benchmark, or export a round whose weights are there"
        )
    text = card(job, point.iteration, out.name)
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    _check(partial)
    (partial / "README.md").write_text(text, encoding="utf-8")
    _plot_lengths(job, point.iteration, partial / LENGTH_PLOT)
    partial.rename(out)
    return out


def _check(folder: Path) -> None:
    from transformers import GenerationConfig

    from aipo.models.policy import PolicyRef

    if missing := PolicyRef(str(folder)).missing():
        raise ExportError("; ".join(missing))
    GenerationConfig.from_pretrained(folder).validate(strict=True)


def card(job: Job, iteration: int, name: str) -> str:
    """The model card of a round as Markdown with the hub's YAML header."""
    points = job.points(iteration)
    train = job.manifest("train", points[-1].train)
    objective = train["config"]["objective"]
    judged = [
        (job.benchmark(score.benchmark), score.judge, {metric["name"]: metric for metric in job.metrics(score)})
        for score in points[-1].scores
    ]
    lines = [head(job.record, objective["name"], name, judged), "", f"# {_shown(name)}", ""]
    lines += [
        f"{_shown(job.base)} after {iteration + 1} round(s) of iterative preference optimization with the objective "
        f"**{_shown(objective['name'])}** (seed {job.record.seed}), by the AIPO experiment suite (arXiv 2409.08845). "
        "Everything below was written from the artifacts of the run.",
        "",
        *_recipe(job, points[-1], train),
        *_data(job, points),
        *_scores(job, points),
        *_lengths(job, points),
        *_limits(job, points),
        *_provenance(job, points, train),
    ]
    return "\n".join(lines) + "\n"


def _recipe(job: Job, point: Point, train: Mapping[str, Any]) -> list[str]:
    pairs = job.manifest("pairs", point.pairs)
    candidates = job.manifest("candidates", pairs["parents"]["candidates"])
    prompts = job.manifest("prompts", candidates["parents"]["prompts"])
    pool = job.manifest("pool", prompts["parents"]["pool"])
    ranking = job.manifest("ranking", pairs["parents"]["ranking"])
    drawn = candidates["config"]
    responses = drawn["responses"]
    if "decoding" in drawn:
        responses = f"{drawn['candidates']} of its own for each prompt: {_settings(drawn['decoding'])}"
    ranker = ranking["config"]["ranker"]
    revision = job.model.get("revision")
    rows = [
        ("base model", job.base + (f" at {revision}" if revision else "")),
        ("objective", _settings(train["config"]["objective"]["loss"])),
        ("data recipe", job.record.data),
        ("source of prompts", _settings(pool["config"]["source"])),
        ("prompts of each round", f"{prompts['config']['count']}, {prompts['config']['prompts']}"),
        ("responses", responses),
        ("ranker", ranker if isinstance(ranker, str) else _settings(ranker)),
        ("training", _settings(train["config"]["trainer"])),
    ]
    return ["## Recipe", "", *_table(("what", "value"), rows), ""]


def _data(job: Job, points: Sequence[Point]) -> list[str]:
    rows = []
    for point in points:
        if point.pairs is None:
            continue
        pairs = job.manifest("pairs", point.pairs)
        reference = job.manifest("reference", point.reference)["counts"]
        counts, dropped = pairs["counts"], {key: n for key, n in pairs["dropped"].items() if n}
        rows.append((
            iteration_label(point.iteration), counts["pairs"],
            ", ".join(f"{key} {n}" for key, n in dropped.items()) or "none",
            _number(counts["chosen_tokens"]), _number(counts["rejected_tokens"]),
            f"{100 * reference['agreement']:.1f} %",
        ))  # fmt: skip
    header = ("round", "pairs", "prompts dropped", "chosen tokens", "rejected tokens", "reference prefers chosen")
    return ["## Data", "", *_table(header, rows), ""]


def _scores(job: Job, points: Sequence[Point]) -> list[str]:
    rows = []
    before = {(score.benchmark, score.judge): score for score in points[0].scores}
    for score in points[-1].scores:
        first = before.get((score.benchmark, score.judge))
        base = {} if first is None else {metric["name"]: _value(metric) for metric in job.metrics(first)}
        for metric in job.metrics(score):
            unscored = f"{metric['n_scored']} ({metric['n_unscored']} unscored)"
            name = metric["name"]
            rows.append((score.benchmark, score.judge, name, _value(metric), base.get(name, ""), unscored))
    header = ("benchmark", "judge", "metric", "this model", "base model", "answers scored")
    note = "In brackets: 95 % intervals, where the metric has one."
    return ["## Scores", "", *_table(header, rows), "", note, ""]


def _lengths(job: Job, points: Sequence[Point]) -> list[str]:
    lines = ["## Length curve", "", f"![Score against answer length, round by round]({LENGTH_PLOT})", ""]
    for benchmark, curve in _curves(job, points):
        header = ("round", benchmark.primary_metric, benchmark.length_metric)
        rows = [(iteration_label(number), _value(score), _number(length)) for number, score, length in curve]
        lines += [f"{_shown(benchmark.name)}:", "", *_table(header, rows), ""]
    return lines


def _curves(
    job: Job, points: Sequence[Point]
) -> Iterator[tuple[BenchmarkRecord, list[tuple[int, Mapping[str, Any], float]]]]:
    """Of each benchmark: the round, the metric that tables show, and the mean length of its answers."""
    for benchmark in job.record.benchmarks:
        curve = []
        for point in points:
            for score in point.scores:
                if score.benchmark == benchmark.name and not score.diagnostic:
                    metrics = {metric["name"]: metric for metric in job.metrics(score)}
                    length = metrics[benchmark.length_metric]["value"]
                    curve.append((point.iteration, metrics[benchmark.primary_metric], length))
        if curve:
            yield benchmark, curve


def _limits(job: Job, points: Sequence[Point]) -> list[str]:
    scores = points[-1].scores
    metrics = [metric for score in scores for metric in job.metrics(score)]
    fewest = min((metric["n_scored"] for metric in metrics), default=0)
    unscored = max((metric["n_unscored"] for metric in metrics), default=0)
    judges = sorted({score.judge for score in scores})
    limits = [
        "One training seed. Intervals are over questions; they do not cover what another seed would change.",
        f"Scores are those of {', '.join(judges) or 'no judge'}. Language models as judges tend to prefer longer "
        "answers, and answers like their own: compare scores at equal length, and of one judge alone.",
        f"The smallest number of scored answers behind a figure is {fewest}; at most {unscored} were left unscored.",
        "Trained on what a ranker prefers, whose errors and tastes it takes over. Safety, facts and languages other "
        "than those of the prompts were not evaluated.",
        "The base model's licence and limits apply.",
    ]
    if job.record.needs_world:
        limits.insert(0, "A toy: it speaks of a closed world of a few hundred words, and is of no use outside it.")
    return ["## Limits", "", *(f"- {limit}" for limit in limits), ""]


def _provenance(job: Job, points: Sequence[Point], train: Mapping[str, Any]) -> list[str]:
    packages = ", ".join(f"{name} {version}" for name, version in train["packages"].items())
    rows = [
        ("trained", train["created"]),
        ("commit", train["commit"] or "not in a checkout"),
        ("packages", packages),
        ("overrides", " ".join(f"`{item}`" for item in job.record.overrides) or "none"),
        *(
            (f"training artifact of round {iteration_label(point.iteration)}", point.train)
            for point in points
            if point.train
        ),
    ]
    return ["## Provenance", "", *_table(("what", "value"), rows)]


def _plot_lengths(job: Job, iteration: int, path: Path) -> None:
    from matplotlib.figure import Figure

    curves = list(_curves(job, job.points(iteration)))
    figure = Figure(figsize=(4.5 * max(1, len(curves)), 3.6), layout="constrained")
    for axes, (benchmark, curve) in zip(
        figure.subplots(1, max(1, len(curves)), squeeze=False)[0], curves, strict=False
    ):
        lengths = [length for _, _, length in curve]
        axes.plot(lengths, [score["value"] for _, score, _ in curve], marker="o", color="C0", linewidth=1)
        for number, score, length in curve:
            if score["ci95"] is not None:
                axes.plot([length, length], score["ci95"], color="C0", linewidth=1, alpha=0.5)
            label = iteration_label(number)
            axes.annotate(label, (length, score["value"]), textcoords="offset points", xytext=(4, 4), fontsize=8)
        axes.set(title=benchmark.name, xlabel=benchmark.length_metric, ylabel=benchmark.primary_metric)
    figure.savefig(path, dpi=120)


def _settings(node: Mapping[str, Any]) -> str:
    """A config node on one line: its target's own name, then its values."""
    target = str(node.get("_target_", "")).rpartition(".")[2]
    values = []
    for key, value in node.items():
        if not key.startswith("_") and value is not None:
            values.append(f"{key} {_settings(value) if isinstance(value, Mapping) else _plain(value)}")
    return f"{target} ({', '.join(values)})" if values else target


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _value(metric: Mapping[str, Any]) -> str:
    if metric["ci95"] is None:
        return _number(metric["value"])
    low, high = metric["ci95"]
    return f"{_number(metric['value'])} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _shown(text: str) -> str:
    """Text of configs and names on one line, without HTML, links or the end of a cell."""
    harmless = escape.one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return harmless.replace("\\", "\\\\").replace("|", "\\|").replace("](", "]\\(").replace("][", "]\\[")


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return markdown_table(header, rows, cell=lambda cell: _shown(str(cell))).split("\n")


def main(arguments: Sequence[str] | None = None, program: str = "python -m analysis.model_card") -> int:
    """Parse and run; returns the exit status. `program` is what the user typed, for the help."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Export a trained policy as a Hugging Face folder with a card.",
    )
    parser.add_argument("job", type=Path, help="a job's folder: results/<sweep>/jobs/<job>")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; must not exist")
    parser.add_argument("--round", type=int, help="the round to export, from 1 (default: the last)")
    parsed = parser.parse_args(arguments)
    try:
        print(f"wrote {export_policy(parsed.job, parsed.out, parsed.round)}")
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
