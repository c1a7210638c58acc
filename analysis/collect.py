"""From a sweep's folder to frames: which jobs there are, which points they reached, and every metric of every point.

Reads `<sweep>/jobs/<job>/run.json` (`aipo.jobs`), which the pipeline keeps up to date while a job runs, and the
artifacts it points to. A job that failed or still runs contributes the points it reached; what is missing or stale is
listed as a `Problem`, never skipped in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aipo.artifacts import StaleArtifactError
from aipo.artifacts import read_manifest as read_checked_manifest
from aipo.jobs import (
    BASE_ITERATION,
    JobFileError,
    JobRecord,
    JobState,
    Point,
    ScoreRecord,
    job_folders,
    read_job,
    states,
    store_of,
)
from analysis.variants import shared_overrides, variants

if TYPE_CHECKING:
    import pandas as pd


class AnalysisError(RuntimeError):
    """The sweep cannot be analysed; the message says what was expected, what was found and what to do."""


@dataclass(frozen=True)
class Run:
    """One job of the sweep."""

    job: str
    """The name of its folder."""
    record: JobRecord
    variant_items: tuple[str, ...]
    """The settings in which it differs from other jobs of its objective, as `key=value`, sorted."""
    store: Path
    other_jobs: tuple[tuple[str, int], ...] = ()
    """Of the benchmarks that only a job for fewer rounds has, which trains the same: each with its last iteration."""

    @property
    def objective(self) -> str:
        return self.record.objective

    @property
    def seed(self) -> int:
        return self.record.seed

    @property
    def base_seed(self) -> int | None:
        """The seed of the miniature's base model; None for a model that was not made here."""
        return self.record.settings["model"].get("seed")

    @property
    def variant(self) -> str:
        """The variant's items, joined by commas; empty if there are none."""
        return ",".join(self.variant_items)

    @property
    def model(self) -> str:
        """The option chosen in conf/model."""
        return self.record.model

    @property
    def recipe(self) -> str:
        """The data recipe, by its name in conf/data."""
        return self.record.data

    @property
    def status(self) -> str:
        return self.record.status

    @property
    def points(self) -> tuple[Point, ...]:
        return self.record.points

    @property
    def primary(self) -> dict[str, str]:
        """Benchmark name -> the metric its tables and plots show."""
        return {benchmark.name: benchmark.primary_metric for benchmark in self.record.benchmarks}

    @property
    def length(self) -> dict[str, str]:
        """Benchmark name -> the metric that gives its mean answer length."""
        return {benchmark.name: benchmark.length_metric for benchmark in self.record.benchmarks}


@dataclass(frozen=True)
class Problem:
    """Something that is missing from the tables, and why."""

    job: str
    iteration: int | None
    what: str


@dataclass(frozen=True, eq=False)
class Sweep:
    """All that one sweep has on disk so far. Frames are not changed after they are made."""

    folder: Path
    runs: tuple[Run, ...]
    shared_overrides: tuple[str, ...]
    """What every run was started with, beside objective and seed."""
    problems: tuple[Problem, ...]
    scores: pd.DataFrame
    """One row per run, point, benchmark, judge and metric; columns SCORE_COLUMNS."""
    pairs: pd.DataFrame
    """One row per run and iteration, columns PAIR_COLUMNS; `dropped` holds a dict, reason -> count."""


SCORE_COLUMNS = (
    *("job", "objective", "variant", "seed", "model", "recipe", "iteration", "benchmark", "diagnostic", "judge"),
    *("official", "protocol", "metric", "value", "ci95_low", "ci95_high", "n_scored", "n_unscored", "fingerprint"),
)
PAIR_COLUMNS = ("job", "objective", "variant", "seed", "iteration", "kept", "dropped", "fingerprint")


@dataclass(frozen=True)
class Protocol:
    """How a score came about. Two scores are comparable only if their `identity` is equal."""

    judge: str
    """Who graded, for people."""
    official: bool
    """The benchmark's own questions; False for the miniature's."""
    identity: str
    """As JSON: the judge's identity, the models its endpoint says it used, and where the questions come from."""


def collect(sweep: Path) -> Sweep:
    """Reads every job of the sweep folder. Raises AnalysisError when there is no folder or no job in it."""
    import pandas as pd

    if not sweep.is_dir():
        raise AnalysisError(f"{sweep}: no such folder; expected the folder of a sweep, as in results/<sweep>")
    try:
        folders = job_folders(sweep)
    except JobFileError as error:
        raise AnalysisError(str(error)) from error
    if not folders:
        raise AnalysisError(
            f"{sweep}: no runs in it; expected jobs/<job>/run.json, which `python run.py -m ...` writes. "
            "Is this the folder of a sweep?"
        )
    problems: list[Problem] = []
    records: dict[Path, JobRecord] = {}
    for folder in folders:
        try:
            records[folder] = read_job(folder)
        except JobFileError as error:
            problems.append(Problem(folder.name, None, str(error)))
    if not records:
        raise AnalysisError(f"{sweep}: none of its {len(folders)} runs can be read. The first: {problems[0].what}")
    runs = [
        Run(folder.name, record, items, store_of(folder, record))
        for (folder, record), items in zip(records.items(), variants(list(records.values())), strict=True)
    ]
    problems += _unfinished(states(sweep), {run.job: run for run in runs})
    runs = _without_twins(runs)
    runs.sort(key=lambda run: (run.objective, run.variant, run.seed, run.job))
    scores = pd.DataFrame([row for run in runs for row in _score_rows(run, problems)], columns=list(SCORE_COLUMNS))
    pairs = pd.DataFrame([row for run in runs for row in _pair_rows(run, problems)], columns=list(PAIR_COLUMNS))
    shared = shared_overrides([run.record for run in runs])
    return Sweep(sweep, tuple(runs), shared, tuple(problems), scores, pairs)


def read_manifest(store: Path, stage: str, digest: str) -> dict[str, Any]:
    """The manifest of an artifact, its files compared with it. Raises AnalysisError when they are not what it says."""
    try:
        return read_checked_manifest(store, stage, digest)
    except StaleArtifactError as error:
        raise AnalysisError(str(error)) from error


def read_protocol(store: Path, manifest: Mapping[str, Any], score: ScoreRecord, official: bool) -> Protocol:
    """The protocol of the scores of this manifest, from the answers and judgments they were made from.

    A model that an endpoint changed to another version between two policies is two judges. Where a benchmark makes its
    questions by its own settings, as the miniature's, all of them but the decoding say which questions those are.
    """
    parents = manifest["parents"]
    asked = read_manifest(store, "answers", parents["answers"])["config"]["benchmark"]
    shaping: Collection[str] = ("assets", "identity", "limit") if "assets" in asked else set(asked) - {"decoding"}
    questions = {key: asked[key] for key in sorted(shaping) if asked.get(key) is not None}
    if "judgments" not in parents:
        return Protocol(score.judge, official, json.dumps([questions], sort_keys=True))
    judging, returned = _judging(store, parents["judgments"])
    name = score.judge
    if returned and list(returned) != [name]:
        name += f" (answered by {', '.join(returned)})"
    # A judge that was never asked (identical answers need none) returned no model; that is no other judge.
    identity = [judging["identity"], returned or [judging["judge"]["name"]], questions, judging["benchmark"]]
    return Protocol(name, official, json.dumps(identity, sort_keys=True))


@cache
def _judging(store: Path, digest: str) -> tuple[Any, tuple[str, ...]]:
    """What a judgments artifact was made from, and the models that its endpoint says it used."""
    config = read_manifest(store, "judgments", digest)["config"]
    try:
        verdicts = (store / "judgments" / digest / "judgments.jsonl").read_text(encoding="utf-8")
    except OSError as error:
        raise AnalysisError(f"judgments/{digest} cannot be read: {error}") from error
    # Inside a JSON string quotes are escaped, so this matches the field `model` alone, whatever a reply says.
    return config, tuple(sorted(set(re.findall(r'"model": "([^"\\]*)"', verdicts))))


def count_rows(path: Path) -> int:
    """Rows of a Parquet file, from its footer alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowInvalid) as error:
        raise AnalysisError(f"{path} cannot be read: {error}") from error


def iteration_label(iteration: int) -> str:
    """How an iteration (from 0, as in files) is written in tables and plots: as a round, counted from 1."""
    return "base" if iteration == BASE_ITERATION else str(iteration + 1)


def _score_rows(run: Run, problems: list[Problem]) -> Iterator[dict[str, Any]]:
    official = {benchmark.name: benchmark.official for benchmark in run.record.benchmarks}
    others = dict(run.other_jobs)
    for point in run.points:
        scored = {score.benchmark for score in point.scores if not score.diagnostic}
        expected = {name for name in official if point.iteration <= others.get(name, point.iteration)}
        for name in sorted(expected - scored) if run.status == "done" else ():
            problems.append(Problem(run.job, point.iteration, f"{name}: no score, though the job is done"))
        for score in sorted(point.scores, key=lambda score: (score.benchmark, score.diagnostic, score.judge)):
            digest = score.fingerprint
            try:
                manifest = read_manifest(run.store, "scores", digest)
                metrics = _read_metrics(run.store / "scores" / digest / "metrics.json")
                protocol = read_protocol(run.store, manifest, score, official[score.benchmark])
            except (AnalysisError, KeyError) as error:
                what = f"manifest without {error}" if isinstance(error, KeyError) else error
                problems.append(Problem(run.job, point.iteration, f"{_shown(score)}: {what}"))
                continue
            for metric in metrics:
                low, high = metric["ci95"] or (float("nan"), float("nan"))
                yield {
                    **_identity(run),
                    "model": run.record.model,
                    "recipe": run.record.data,
                    "iteration": point.iteration,
                    "benchmark": score.benchmark,
                    "diagnostic": score.judge if score.diagnostic else "",
                    "judge": protocol.judge,
                    "official": protocol.official,
                    "protocol": protocol.identity,
                    "metric": metric["name"],
                    "value": float(metric["value"]),
                    "ci95_low": float(low),
                    "ci95_high": float(high),
                    "n_scored": int(metric["n_scored"]),
                    "n_unscored": int(metric["n_unscored"]),
                    "fingerprint": digest,
                }


def _pair_rows(run: Run, problems: list[Problem]) -> Iterator[dict[str, Any]]:
    for point in run.points:
        if point.pairs is None:
            continue
        try:
            manifest = read_manifest(run.store, "pairs", point.pairs)
            kept = count_rows(run.store / "pairs" / point.pairs / "pairs.parquet")
        except AnalysisError as error:
            problems.append(Problem(run.job, point.iteration, str(error)))
            continue
        counts = {"iteration": point.iteration, "kept": kept, "dropped": dict(manifest["dropped"])}
        yield {**_identity(run), **counts, "fingerprint": point.pairs}


def _identity(run: Run) -> dict[str, Any]:
    return {"job": run.job, "objective": run.objective, "variant": run.variant, "seed": run.seed}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AnalysisError(f"{path} cannot be read: {error}") from error


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    metrics = _read_json(path)
    expected = {"name", "value", "ci95", "n_scored", "n_unscored"}
    for metric in metrics if isinstance(metrics, list) else [metrics]:
        if not isinstance(metric, dict) or set(metric) != expected:
            raise AnalysisError(f"{path}: expected a list of metrics with the fields {sorted(expected)}, got {metric}")
    return metrics


def _shown(score: ScoreRecord) -> str:
    return f"{score.benchmark} by {score.judge}" if score.diagnostic else score.benchmark


def _unfinished(jobs: Sequence[JobState], runs: Mapping[str, Run]) -> Iterator[Problem]:
    """Every job of the sweep that is not done: how it stands, why, and what the tables show of it."""
    for job in jobs:
        run = runs.get(job.folder)
        if job.state in ("done", "unreadable"):  # the latter was told where it was read
            continue
        if run is None and job.state == "not started":
            what = "asked for, but not started: no run.json"
            if job.log is None and job.has_folder:
                what = "no run.json: it ended before its first stage, or has not begun; see run.log there"
            yield Problem(job.folder, None, what + (f" ({job.why})" if job.why else ""))
            continue
        why = job.why or ("not finished" if job.state == "running" else "no reason recorded")
        reached = max((point.iteration for point in run.points), default=None) if run else None
        where = "no point reached"
        if reached is not None:
            where = "only the base model is shown" if reached < 0 else f"shown up to round {reached + 1}"
        yield Problem(job.folder, None, f"{job.state}: {why} ({where})")


def _without_twins(runs: Sequence[Run]) -> list[Run]:
    """Of jobs that train the same, one for fewer rounds than the other, the one that came further, with what the other
    measured beside."""
    kept: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        key = (run.objective, run.variant, run.seed, run.base_seed)
        twin = kept.setdefault(key, run)
        if twin is run:
            continue
        longer, shorter = (run, twin) if len(run.points) > len(twin.points) else (twin, run)
        if [point.policy for point in shorter.points] != [p.policy for p in longer.points[: len(shorter.points)]]:
            raise AnalysisError(
                f"jobs {twin.job} and {run.job} both say objective={run.objective}, seed={run.seed}, "
                f"variant={run.variant!r}, but hold different artifacts; move the folder of the outdated one away"
            )
        kept[key] = _joined(longer, shorter)
    return list(kept.values())


def _joined(longer: Run, shorter: Run) -> Run:
    """The longer job with the benchmarks, diagnostic judges and KL that only the other measured on their policies."""
    if longer.store != shorter.store:
        return longer
    beside = {point.iteration: point for point in shorter.points}
    points = [_with_other(point, beside.get(point.iteration, point)) for point in longer.points]
    benchmarks = {one.name: one for one in (*shorter.record.benchmarks, *longer.record.benchmarks)}
    both = longer.record.settings, shorter.record.settings
    groups = {name: {**both[1].get(name, {}), **both[0].get(name, {})} for name in ("benchmark", "diagnostic_judge")}
    settings = {**both[0], **{name: nodes for name, nodes in groups.items() if nodes}}
    record = replace(longer.record, benchmarks=tuple(benchmarks.values()), points=tuple(points), settings=settings)
    return replace(longer, record=record, other_jobs=tuple(_other_jobs(longer, shorter)))


def _other_jobs(longer: Run, shorter: Run) -> Iterator[tuple[str, int]]:
    """Which benchmarks of the two to expect up to an iteration alone; of a job that is not done none is expected."""
    own = {one.name for one in longer.record.benchmarks} - set(dict(longer.other_jobs))
    last = max((point.iteration for point in shorter.points if shorter.status == "done"), default=BASE_ITERATION - 1)
    found = dict(longer.other_jobs)
    for name in {one.name for one in shorter.record.benchmarks} - own:
        reached = dict(shorter.other_jobs).get(name, last)
        found[name] = max(found.get(name, reached), reached)
    yield from sorted(found.items())


def _with_other(point: Point, other: Point) -> Point:
    """A point with what another job measured of the same policy and this one did not."""
    scores = {(one.benchmark, one.diagnostic and one.judge): one for one in (*other.scores, *point.scores)}
    proxies = {one.benchmark: one for one in (*other.proxies, *point.proxies)}
    return replace(
        point, scores=tuple(scores.values()), proxies=tuple(proxies.values()), kl=point.kl if point.kl else other.kl
    )
