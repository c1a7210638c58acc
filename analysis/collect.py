"""From a sweep's folder to frames: which jobs there are, which points they reached, and every metric of every point.

Reads `<sweep>/jobs/<job>/run.json`, which the pipeline keeps up to date while a job runs, and the artifacts it points
to. A job that failed or still runs contributes the points it reached; what is missing or stale is listed as a
`Problem`, never skipped in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aipo.artifacts import StaleArtifactError
from aipo.artifacts import read_manifest as read_checked_manifest

if TYPE_CHECKING:
    import pandas as pd

BASE_ITERATION = -1
"""The iteration number of the model that no objective has trained yet."""
STATUSES = ("done", "running", "failed")
NOT_RECORDED = "not recorded"
OFFICIAL_ASSETS = "aipo.benchmarks.official.questions."


class AnalysisError(RuntimeError):
    """The sweep cannot be analysed; the message says what was expected, what was found and what to do."""


@dataclass(frozen=True)
class Point:
    """A policy of a run: the base model (iteration -1) or what an iteration made of it. Values are fingerprints."""

    iteration: int
    policy: str | None
    pairs: str | None
    reference: str | None
    train: str | None
    scores: Mapping[str, str]
    """Benchmark name -> scores artifact. `name@judge` holds the scores by a second, diagnostic judge."""


@dataclass(frozen=True)
class Run:
    """One job of the sweep."""

    job: str
    status: str
    error: str | None
    objective: str
    seed: int
    overrides: tuple[str, ...]
    """As on the command line, without objective and seed, sorted."""
    variant: str
    """Those overrides that not all runs of the sweep share, joined by commas; empty if there are none."""
    model: str
    recipe: str
    """The data recipe, by its name in conf/data."""
    store: Path
    primary: Mapping[str, str]
    """Benchmark name -> the metric its tables and plots show."""
    length: Mapping[str, str]
    """Benchmark name -> the metric that gives its mean answer length."""
    points: tuple[Point, ...]


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
    files = sorted(sweep.glob("jobs/*/run.json"))
    if not files:
        raise AnalysisError(
            f"{sweep}: no runs in it; expected jobs/<job>/run.json, which `python run.py -m ...` writes. "
            "Is this the folder of a sweep?"
        )
    problems: list[Problem] = []
    runs = []
    for file in files:
        try:
            runs.append(_read_run(file))
        except AnalysisError as error:
            problems.append(Problem(file.parent.name, None, str(error)))
    if not runs:
        raise AnalysisError(f"{sweep}: none of its {len(files)} runs can be read. The first: {problems[0].what}")
    for folder in sorted(sweep.glob("jobs/*/")):
        if not (folder / "run.json").exists():
            what = "no run.json: it ended before its first stage, or has not begun; see run.log there"
            problems.append(Problem(folder.name, None, what))
    for run in runs:
        if run.status != "done":
            reached = max((point.iteration for point in run.points), default=None)
            where = "no point reached" if reached is None else f"points up to {iteration_label(reached)} are shown"
            problems.append(Problem(run.job, None, f"{run.status}: {run.error or 'not finished'} ({where})"))
    shared = set(runs[0].overrides).intersection(*(run.overrides for run in runs))
    runs = [replace(run, variant=",".join(item for item in run.overrides if item not in shared)) for run in runs]
    _refuse_twins(runs)
    runs.sort(key=lambda run: (run.objective, run.variant, run.seed, run.job))
    scores = pd.DataFrame([row for run in runs for row in _score_rows(run, problems)], columns=list(SCORE_COLUMNS))
    pairs = pd.DataFrame([row for run in runs for row in _pair_rows(run, problems)], columns=list(PAIR_COLUMNS))
    return Sweep(sweep, tuple(runs), tuple(sorted(shared)), tuple(problems), scores, pairs)


def read_manifest(store: Path, stage: str, digest: str) -> dict[str, Any]:
    """The manifest of an artifact, its files compared with it. Raises AnalysisError when they are not what it says."""
    try:
        return read_checked_manifest(store, stage, digest)
    except StaleArtifactError as error:
        raise AnalysisError(str(error)) from error


def read_protocol(store: Path, manifest: Mapping[str, Any]) -> Protocol:
    """The protocol of the scores of this manifest, from the judgments they were made from.

    A model that an endpoint changed to another version between two policies is two judges.
    """
    assets = (manifest["config"].get("benchmark") or {}).get("assets") or {}
    judge, identity = _judge_of(store, manifest["parents"]["judgments"])
    official = str(assets.get("_target_", "")).startswith(OFFICIAL_ASSETS)
    return Protocol(judge, official, json.dumps([identity, assets], sort_keys=True))


@cache
def _judge_of(store: Path, digest: str) -> tuple[str, Any]:
    config = read_manifest(store, "judgments", digest)["config"]
    judge, identity = config["judge"], config["identity"]
    target = str(judge.get("_target_", "")).rpartition(".")[2]
    candidates = (judge.get("name"), identity.get("name"), identity.get("model"), judge.get("model"), target)
    name = str(next(value for value in candidates if value))
    try:
        verdicts = (store / "judgments" / digest / "judgments.jsonl").read_text(encoding="utf-8")
    except OSError as error:
        raise AnalysisError(f"judgments/{digest} cannot be read: {error}") from error
    # Inside a JSON string quotes are escaped, so this matches the field `model` alone, whatever a reply says.
    returned = sorted(set(re.findall(r'"model": "([^"\\]*)"', verdicts)))
    if returned and returned != [name]:
        name += f" (answered by {', '.join(returned)})"
    # A judge that was never asked (identical answers need none) returned no model; that is no other judge.
    return name, [identity, returned or [name]]


def count_rows(path: Path) -> int:
    """Rows of a Parquet file, from its footer alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowInvalid) as error:
        raise AnalysisError(f"{path} cannot be read: {error}") from error


def iteration_label(iteration: int) -> str:
    """How an iteration is written in tables and plots."""
    return "base" if iteration == BASE_ITERATION else str(iteration)


def _score_rows(run: Run, problems: list[Problem]) -> Iterator[dict[str, Any]]:
    for point in run.points:
        for name in sorted(set(run.primary) - set(point.scores)) if run.status == "done" else ():
            problems.append(Problem(run.job, point.iteration, f"{name}: no score, though the job is done"))
        for key, digest in sorted(point.scores.items()):
            benchmark, _, diagnostic = key.partition("@")
            try:
                manifest = read_manifest(run.store, "scores", digest)
                metrics = _read_metrics(run.store / "scores" / digest / "metrics.json")
                protocol = read_protocol(run.store, manifest)
            except (AnalysisError, KeyError) as error:
                what = f"manifest without {error}" if isinstance(error, KeyError) else error
                problems.append(Problem(run.job, point.iteration, f"{key}: {what}"))
                continue
            for metric in metrics:
                low, high = metric["ci95"] or (float("nan"), float("nan"))
                yield {
                    **_identity(run),
                    "model": run.model,
                    "recipe": run.recipe,
                    "iteration": point.iteration,
                    "benchmark": benchmark,
                    "diagnostic": diagnostic,
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


def _read_run(file: Path) -> Run:
    run = _read_json(file)
    try:
        if run["status"] not in STATUSES:
            raise AnalysisError(f"{file}: status must be one of {', '.join(STATUSES)}, got {run['status']!r}")
        points = [
            Point(
                iteration=point["iteration"],
                policy=point["policy"],
                pairs=point["pairs"],
                reference=point["reference"],
                train=point["train"],
                scores=dict(point["scores"]),
            )
            for point in run["points"]
        ]
        return Run(
            job=file.parent.name,
            status=run["status"],
            error=run["error"],
            objective=run["objective"],
            seed=run["seed"],
            overrides=tuple(sorted(item for item in run["overrides"] if not item.startswith(("objective=", "seed=")))),
            variant="",
            model=run.get("model", NOT_RECORDED),
            recipe=run.get("data", NOT_RECORDED),
            store=_resolve_store(run["store"]),
            primary={name: info["primary_metric"] for name, info in run["benchmarks"].items()},
            length={name: info["length_metric"] for name, info in run["benchmarks"].items()},
            points=tuple(sorted(points, key=lambda point: point.iteration)),
        )
    except KeyError as error:
        raise AnalysisError(f"{file}: field {error} is missing; was it written by another version?") from error
    except (TypeError, AttributeError) as error:
        raise AnalysisError(f"{file}: malformed ({error}); was it written by another version?") from error


def _resolve_store(written: str) -> Path:
    path = Path(written)
    if path.is_absolute():
        return path
    in_repository = Path(__file__).resolve().parent.parent / path
    return in_repository if in_repository.exists() or not path.exists() else path


def _refuse_twins(runs: Sequence[Run]) -> None:
    seen: dict[tuple[str, str, int], Run] = {}
    for run in runs:
        twin = seen.setdefault((run.objective, run.variant, run.seed), run)
        if twin is not run and twin.points != run.points:
            raise AnalysisError(
                f"jobs {twin.job} and {run.job} both say objective={run.objective}, seed={run.seed}, "
                f"variant={run.variant!r}, but hold different artifacts; delete the folder of the outdated one"
            )
