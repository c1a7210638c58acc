"""A point of a job as the trackers show it: every score of the policy in one row, with a few of its answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aipo.artifacts import read_manifest
from aipo.jobs import Point, ScoreRecord
from aipo.pipeline.trackers import Round, Sample
from aipo.records import Answer, read_parquet

SAMPLES = 8
"""Answers of each benchmark that trackers show."""
STAGES = ("ranking", "pairs", "reference", "train", "kl")


def reached(store: Path, point: Point) -> Round:
    """Reads what the artifacts of a point say. StaleArtifactError, OSError or KeyError where they cannot be read."""
    numbers: dict[str, float] = {}
    behind = {stage: digest for stage in STAGES if (digest := getattr(point, stage)) is not None}
    behind["policy"] = point.policy
    for score in point.scores:
        name = f"{score.benchmark} by {score.judge}" if score.diagnostic else score.benchmark
        behind[f"scores/{name}"] = score.fingerprint
        for metric in _read(store / "scores" / score.fingerprint / "metrics.json"):
            numbers[f"score/{name}/{metric['name']}"] = metric["value"]
    for proxy in point.proxies:
        counts = read_manifest(store, "proxy", proxy.fingerprint)["counts"]
        numbers[f"score/{proxy.benchmark}/proxy_score"] = counts["proxy_score"]
    if point.kl is not None:
        for of, value in _read(store / "kl" / point.kl / "kl.json").items():
            numbers[f"kl/{of}_nats"] = value["nats"]
    if point.pairs is not None:
        counts = read_manifest(store, "pairs", point.pairs)["counts"]
        numbers |= {f"pairs/{name}": value for name, value in counts.items() if isinstance(value, int | float)}
    samples = tuple(sample for score in point.scores if not score.diagnostic for sample in _samples(store, score))
    return Round(point.iteration + 1, numbers, behind, samples)


def _samples(store: Path, score: ScoreRecord) -> Iterator[Sample]:
    import pyarrow.parquet as pq

    answers = read_manifest(store, "scores", score.fingerprint)["parents"]["answers"]
    path = store / "scores" / score.fingerprint / "questions.parquet"
    table = pq.read_table(path, columns=["question_id", "value"]).to_pydict()
    values = dict(zip(table["question_id"], table["value"], strict=True))
    first = read_parquet(
        store / "answers" / answers / "answers.parquet", Answer, lambda table: range(min(SAMPLES, table.num_rows))
    )
    for answer in itertools.islice(first, SAMPLES):
        last = answer.turns[-1]
        yield Sample(score.benchmark, answer.question_id, last.text, last.n_tokens, values.get(answer.question_id))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
