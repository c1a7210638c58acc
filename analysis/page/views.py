"""What the page's script gets, as typed objects: `aipo.records.to_row` turns them into the JSON it reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SeriesView:
    """An objective and, where the sweep varies more, the variant: one colour, one line."""

    name: str
    objective: str
    variant: str
    colour: str
    dark_colour: str
    """For a dark background."""


@dataclass(frozen=True)
class JobView:
    """One job of the sweep."""

    job: str
    series: int
    """Its place among the series."""
    seed: int
    base_seed: int | None
    replicate: str
    """Seed and base model, as shown: jobs of several objectives with the same are held against each other."""
    status: str
    rounds: int
    overrides: str
    differs_in: str
    """The settings in which it differs from others of its objective."""
    settings: dict[str, str]
    """Every setting that shapes its numbers, by its path, the value as JSON."""


@dataclass(frozen=True)
class BenchmarkView:
    """A benchmark, its names for people, and the questions whose answers the page holds."""

    name: str
    title: str
    score_metric: str
    score_name: str
    length_name: str
    questions: tuple[QuestionView, ...]
    n_questions: int
    """How many there are; `questions` may be a sample."""


@dataclass(frozen=True)
class QuestionView:
    """A question by its id; its user turns are empty where the files that hold them are not on this machine."""

    question_id: str
    turns: tuple[str, ...]


@dataclass(frozen=True)
class ScoreView:
    """A policy's score on one benchmark by the job's judge."""

    benchmark: str
    score: float | None
    low: float | None
    high: float | None
    length: float | None
    proxy: float | None
    """The ranker's mean score of the answers, where it gives scores that can be compared."""


@dataclass(frozen=True)
class SheetView:
    """Where the texts of a benchmark's answers and their verdicts lie."""

    benchmark: str
    answers: str
    """Fingerprint; so are the two below."""
    verdicts: tuple[VerdictSource, ...]


@dataclass(frozen=True)
class VerdictSource:
    """One judge's scores of the answers."""

    judge: str
    diagnostic: bool
    scores: str
    judgments: str | None


@dataclass(frozen=True)
class PointView:
    """A policy of a job. Iteration -1 is the base model."""

    job: int
    iteration: int
    scores: tuple[ScoreView, ...]
    kl: float | None
    """From the base model, in nats per completion."""
    kl_previous: float | None
    n_pairs: int | None
    chosen_tokens: float | None
    rejected_tokens: float | None
    train: str | None
    pairs: str | None
    sheets: tuple[SheetView, ...]
    """Empty where the page holds no texts of this policy."""


@dataclass(frozen=True)
class CurveView:
    """What one round of training logged, a value per optimizer step."""

    train: str
    values: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class ArtifactView:
    """An artifact behind the page, with what its manifest says of where it came from."""

    job: int
    iteration: int
    stage: str
    fingerprint: str
    machine: int
    """Its place among the page's machines."""
    seconds: float


@dataclass(frozen=True)
class TableView:
    """A table of the report, as shown there."""

    name: str
    title: str
    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Overview:
    """All but the texts."""

    title: str
    series: tuple[SeriesView, ...]
    jobs: tuple[JobView, ...]
    benchmarks: tuple[BenchmarkView, ...]
    points: tuple[PointView, ...]
    curves: tuple[CurveView, ...]
    tables: tuple[TableView, ...]
    artifacts: tuple[ArtifactView, ...]
    machines: tuple[dict[str, str], ...]
    marked: bool
    """Right, wrong and filler are marked in the texts."""
    chunks: dict[str, int]
    """Fingerprint -> the number of the chunk that holds its texts."""
    texts_note: str
    """Which texts the page holds."""
    gaps: tuple[str, ...]
    """What could not be read."""
