"""Every judged answer of a sweep as typed rows: what was asked, said, compared with, and what the judge made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aipo.jobs import BenchmarkRecord, JobFileError, Point, ScoreRecord, job_folders, read_job, store_of
from aipo.records import Answer, Completion, Judgment, Metric, QuestionScore, from_row, read_jsonl, read_parquet
from analysis.collect import AnalysisError, Run, read_manifest
from analysis.page.sources import questions


@dataclass(frozen=True)
class JudgedSample:
    """One question of one policy by one judge."""

    question_id: str
    asked: tuple[str, ...]
    """The user's turns; empty where the benchmark's files are not on this machine."""
    turns: tuple[Completion, ...]
    baseline: tuple[Completion, ...]
    """What it was compared with; empty where nothing was, or where the answer came with the benchmark's files."""
    score: QuestionScore | None
    """What it contributes to the score; None where the benchmark has no such row."""
    judgments: tuple[Judgment, ...]


@dataclass(frozen=True)
class JudgedBenchmark:
    """A policy's answers to a benchmark as one judge saw them."""

    run: Run
    """The first job that reached the policy; base models are shared by many."""
    point: Point
    benchmark: BenchmarkRecord
    score: ScoreRecord
    fingerprints: Mapping[str, str]
    """By stage: scores, answers and, where there are, judgments and the baseline's answers."""
    created: str
    """When the scores were made, UTC."""
    commit: str
    packages: Mapping[str, str]
    metrics: tuple[Metric, ...]
    samples: tuple[JudgedSample, ...]


def judged(sweep: Path) -> Iterator[JudgedBenchmark]:
    """Every benchmark of every policy and judge, each scores artifact once. Raises AnalysisError for what is missing
    or not what its manifest says; nothing is left out in silence."""
    done: set[str] = set()
    for run in _runs(sweep):
        for point in run.points:
            for score in point.scores:
                if score.fingerprint not in done:
                    done.add(score.fingerprint)
                    yield _read(run, point, score)


def _runs(sweep: Path) -> list[Run]:
    try:
        folders = job_folders(sweep)
    except JobFileError as error:
        raise AnalysisError(str(error)) from error
    if not folders:
        raise AnalysisError(f"{sweep}: no runs in it; expected the folder of a sweep, as in results/<sweep>")
    runs = []
    for folder in folders:
        try:
            record = read_job(folder)
        except JobFileError as error:
            raise AnalysisError(str(error)) from error
        runs.append(Run(folder.name, record, (), store_of(folder, record)))
    return runs


def _read(run: Run, point: Point, score: ScoreRecord) -> JudgedBenchmark:
    store = run.store
    manifest = read_manifest(store, "scores", score.fingerprint)
    parents = manifest["parents"]
    answers = _answers(store, parents["answers"])
    baseline = _answers(store, parents["baseline"]) if "baseline" in parents else {}
    judgments = _judgments(store, parents.get("judgments"))
    folder = store / "scores" / score.fingerprint
    rows = read_parquet(folder / "questions.parquet", QuestionScore) if "questions.parquet" in manifest["files"] else []
    values = {row.question_id: row for row in rows}
    asked = questions(run).get(score.benchmark, {})
    samples = tuple(
        JudgedSample(
            question_id=name,
            asked=asked.get(name, ()),
            turns=answer.turns,
            baseline=baseline[name].turns if name in baseline else (),
            score=values.get(name),
            judgments=tuple(judgments.get(name, ())),
        )
        for name, answer in answers.items()
    )
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    stages = ("answers", "judgments", "baseline")
    return JudgedBenchmark(
        run=run,
        point=point,
        benchmark=next(item for item in run.record.benchmarks if item.name == score.benchmark),
        score=score,
        fingerprints={"scores": score.fingerprint} | {name: parents[name] for name in stages if name in parents},
        created=str(manifest["created"]),
        commit=str(manifest.get("commit") or ""),
        packages=dict(manifest.get("packages") or {}),
        metrics=tuple(from_row(Metric, row) for row in metrics),
        samples=samples,
    )


def _answers(store: Path, digest: str) -> dict[str, Answer]:
    read_manifest(store, "answers", digest)
    return {row.question_id: row for row in read_parquet(store / "answers" / digest / "answers.parquet", Answer)}


def _judgments(store: Path, digest: str | None) -> dict[str, list[Judgment]]:
    found: dict[str, list[Judgment]] = {}
    if digest is not None:
        read_manifest(store, "judgments", digest)
        rows: Sequence[Mapping[str, Any]] = read_jsonl(store / "judgments" / digest / "judgments.jsonl")
        for row in rows:
            found.setdefault(row["question_id"], []).append(from_row(Judgment, row))
    return found
