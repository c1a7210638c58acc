"""All that the page shows but texts, from the collected sweep, the jobs' records and the artifacts they name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aipo.jobs import BASE_ITERATION, Point
from aipo.records import read_jsonl
from analysis import style
from analysis.collect import Run, Sweep
from analysis.page.sources import Shelf, questions, stages_of
from analysis.page.texts import Texts, gather
from analysis.page.views import (
    ArtifactView,
    BenchmarkView,
    CurveView,
    JobView,
    Overview,
    PointView,
    QuestionView,
    ScoreView,
    SeriesView,
    TableView,
)
from analysis.summary import benchmarks, metric_names, title
from analysis.table import Table

CURVES = (
    *("loss", "reward_margin", "reward_accuracy", "reference_agreement"),
    *("chosen_reward", "rejected_reward", "chosen_tokens", "rejected_tokens", "grad_norm", "learning_rate"),
)
"""What of a training step's log the page draws."""
DARK_SHARE = 0.35
"""How much white a colour gets on a dark background."""


def overview(sweep: Sweep, tables: Sequence[Table]) -> tuple[Overview, Texts]:
    """All of the page's data."""
    shelf = Shelf()
    series = sorted({(run.objective, run.variant) for run in sweep.runs}, key=lambda key: style.series_order(*key))
    texts, note = gather(replicates(sweep), shelf)
    machines: dict[str, int] = {}
    artifacts = [
        view
        for number, run in enumerate(sweep.runs)
        for point in run.points
        for view in _artifacts(number, run, point, shelf, machines)
    ]
    found = Overview(
        title=sweep.folder.resolve().name,
        series=tuple(_series(series)),
        jobs=tuple(_job(run, series) for run in sweep.runs),
        benchmarks=tuple(_benchmark(sweep, name, texts) for name in benchmarks(sweep)),
        points=tuple(
            _point(number, run, point, texts, shelf) for number, run in enumerate(sweep.runs) for point in run.points
        ),
        curves=tuple(_curves(sweep, shelf)),
        tables=tuple(TableView(table.name, table.title, table.header, table.cells, table.notes) for table in tables),
        artifacts=tuple(artifacts),
        machines=tuple(json.loads(text) for text in machines),
        marked=any(run.record.needs_world for run in sweep.runs),
        chunks=dict(texts.places),
        texts_note=note,
        gaps=shelf.gaps,
    )
    return found, texts


def replicates(sweep: Sweep) -> list[list[Run]]:
    """The jobs by seed and base model, so that of each all objectives come together."""
    found: dict[str, list[Run]] = {}
    for run in sorted(sweep.runs, key=lambda run: (run.seed, run.base_seed if run.base_seed is not None else -1)):
        found.setdefault(replicate_name(run), []).append(run)
    return list(found.values())


def replicate_name(run: Run) -> str:
    """Seed and base model for people."""
    return f"seed {run.seed}" + (f", base model {run.base_seed}" if run.base_seed is not None else "")


def _series(keys: Sequence[tuple[str, str]]) -> Iterator[SeriesView]:
    """Variants of one objective are shades of its colour, the lightest first."""
    colours = style.colours(objective for objective, _ in keys)
    for objective, variant in keys:
        among = [other for name, other in keys if name == objective]
        share = 0.0 if len(among) == 1 else 0.6 * (len(among) - 1 - among.index(variant)) / (len(among) - 1)
        colour = style.tint(colours[objective], share)
        yield SeriesView(
            style.series_name(objective, variant), objective, variant, colour, style.tint(colour, DARK_SHARE)
        )


def _job(run: Run, series: Sequence[tuple[str, str]]) -> JobView:
    return JobView(
        job=run.job,
        series=series.index((run.objective, run.variant)),
        seed=run.seed,
        base_seed=run.base_seed,
        replicate=replicate_name(run),
        status=run.status,
        rounds=sum(point.iteration != BASE_ITERATION for point in run.points),
        overrides=" ".join(run.record.overrides),
        differs_in=", ".join(run.variant_items),
        settings=dict(flattened(run.record.settings)),
    )


def flattened(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf of nested settings, by its dotted path."""
    if isinstance(node, Mapping) and node:
        for key in sorted(node):
            yield from flattened(node[key], f"{path}.{key}" if path else str(key))
    else:
        yield path, node if isinstance(node, str) else json.dumps(node, ensure_ascii=False)


def _benchmark(sweep: Sweep, name: str, texts: Texts) -> BenchmarkView:
    score, length = metric_names(sweep, name)
    known: dict[str, tuple[str, ...]] = {}
    for run in sweep.runs:
        known = known or questions(run).get(name, {})
    ids = texts.question_ids.get(name, [])
    return BenchmarkView(
        name=name,
        title=title(sweep, name),
        score_metric=score,
        score_name=style.metric_name(score, name),
        length_name=style.metric_name(length, name),
        questions=tuple(QuestionView(question_id, known.get(question_id, ())) for question_id in ids),
        n_questions=texts.n_questions.get(name, 0),
    )


def _point(number: int, run: Run, point: Point, texts: Texts, shelf: Shelf) -> PointView:
    counts = shelf.counts(run.store, "pairs", point.pairs)
    path = shelf.file(run.store, "kl", point.kl, "kl.json")
    kl = _read_json(path) or {}
    return PointView(
        job=number,
        iteration=point.iteration,
        scores=tuple(_scores(run, point, shelf)),
        kl=kl.get("base", {}).get("nats"),
        kl_previous=kl.get("previous", {}).get("nats"),
        n_pairs=counts.get("pairs"),
        chosen_tokens=counts.get("chosen_tokens"),
        rejected_tokens=counts.get("rejected_tokens"),
        train=point.train,
        pairs=point.pairs,
        sheets=texts.sheets.get((run.job, point.iteration), ()),
    )


def _read_json(path: Path | None) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path else None


def _scores(run: Run, point: Point, shelf: Shelf) -> Iterator[ScoreView]:
    proxies = {proxy.benchmark: proxy.fingerprint for proxy in point.proxies}
    for score in point.scores:
        if score.diagnostic:
            continue
        path = shelf.file(run.store, "scores", score.fingerprint, "metrics.json")
        metrics = {metric["name"]: metric for metric in _read_json(path) or ()}
        primary, length = (metrics.get(named[score.benchmark], {}) for named in (run.primary, run.length))
        low, high = primary.get("ci95") or (None, None)
        mean = shelf.counts(run.store, "proxy", proxies.get(score.benchmark)).get("proxy_score")
        yield ScoreView(score.benchmark, primary.get("value"), low, high, length.get("value"), mean)


def _curves(sweep: Sweep, shelf: Shelf) -> Iterator[CurveView]:
    done: set[str] = set()
    for run in sweep.runs:
        for point in run.points:
            path = shelf.file(run.store, "train", point.train, "metrics.jsonl")
            if path is None or point.train is None or point.train in done:
                continue
            done.add(point.train)
            rows = read_jsonl(path)
            present = [name for name in CURVES if any(name in row for row in rows)]
            values = {name: tuple(_rounded(row.get(name)) for row in rows) for name in present}
            yield CurveView(point.train, values)


def _rounded(value: Any) -> float | None:
    return float(f"{value:.5g}") if isinstance(value, int | float) else None


def _artifacts(number: int, run: Run, point: Point, shelf: Shelf, machines: dict[str, int]) -> Iterator[ArtifactView]:
    for stage, digest in stages_of(point):
        manifest = shelf.manifest(run.store, stage, digest)
        if manifest is None:
            continue
        place = machines.setdefault(json.dumps(_machine(manifest), sort_keys=True), len(machines))
        yield ArtifactView(number, point.iteration, stage, digest, place, float(manifest.get("seconds", 0)))


def _machine(manifest: Mapping[str, Any]) -> dict[str, str]:
    packages = manifest.get("packages") or {}
    devices = ", ".join(manifest.get("devices") or ())
    return {
        "commit": str(manifest.get("commit") or "unknown"),
        "host": str(manifest.get("host") or "unknown"),
        "processor": " ".join(str(manifest.get(key) or "") for key in ("cpu", "instruction_set")).strip() or "unknown",
        "accelerators": devices or "none",
        "threads": str(manifest.get("threads") or "unknown"),
        "packages": ", ".join(f"{name} {version}" for name, version in sorted(packages.items())) or "unknown",
    }
