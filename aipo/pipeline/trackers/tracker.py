"""What a tracker is told, and how the numbers are named wherever they are shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from aipo.jobs import JobRecord


@dataclass(frozen=True)
class Sample:
    """One answer to one question of a benchmark."""

    benchmark: str
    question_id: str
    answer: str
    """The last turn's text."""
    n_tokens: int
    value: float | None
    """What it contributes to the score; None where no verdict could be read."""


@dataclass(frozen=True)
class Round:
    """A policy of the job with all that was measured of it."""

    number: int
    """0: the base model."""
    numbers: Mapping[str, float]
    """`score/<benchmark>/<metric>`, `kl/base_nats`, `pairs/kept` and the like."""
    fingerprints: Mapping[str, str]
    """Of the artifacts behind it, by stage; of scores by `scores/<benchmark>`."""
    samples: tuple[Sample, ...]
    """The first few answers of every benchmark."""

    @property
    def row(self) -> dict[str, int | float | str]:
        """All of it but the samples, under the names that charts show."""
        behind = {f"fingerprint/{stage}": digest for stage, digest in self.fingerprints.items()}
        return {"round": self.number, **self.numbers, **behind}


class Tracker(Protocol):
    """Receives the metrics of one job. A job that goes on after a kill tells everything again, from its beginning and
    in the same order, whatever of it was computed before."""

    def start(self, folder: Path, run: JobRecord) -> None:
        """The job begins; `folder` is its own."""
        ...

    def log(self, kind: Literal["train", "score"], metrics: Mapping[str, Any]) -> None:
        """One training step, or one benchmark's metric; `metrics` carries its iteration."""
        ...

    def round(self, reached: Round) -> None:
        """A policy was evaluated, after all its steps and scores were logged."""
        ...

    def finish(self) -> None:
        """The job ends."""
        ...


def sweep_of(folder: Path) -> str:
    """The name of the sweep that this job's folder belongs to."""
    return folder.resolve().parent.parent.name


def run_id(folder: Path) -> str:
    """The same for the same job of the same sweep, so that a run that was killed goes on as itself."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{sweep_of(folder)}--{folder.name}")[-120:]


def step_row(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    """The numbers of a training step, its round counted from 1."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    iteration = int(numbers.pop("iteration"))
    return {"train/round": iteration + 1, **{f"train/{name}": value for name, value in numbers.items()}}
