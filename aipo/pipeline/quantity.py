"""One number for a job, which a search tries to raise: its score, or its score at a given length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aipo.jobs import BenchmarkRecord

Rows = Sequence[Mapping[str, Any]]
"""The metrics of one policy, as `loop.metrics_of` gives them."""


def quantity(points: Sequence[Rows], benchmark: BenchmarkRecord, at_length: float | None) -> float | None:
    """The last policy's score by the main judge; with `at_length` (in the unit of the benchmark's own length) the score
    at that length on the curve through all policies, the base model first. None where the benchmark gave none."""
    curve = [
        (score, length)
        for rows in points
        if (score := _of(rows, benchmark, benchmark.primary_metric)) is not None
        and (length := _of(rows, benchmark, benchmark.length_metric)) is not None
    ]
    if not curve:
        return None
    scores, lengths = zip(*curve, strict=True)
    if at_length is None:
        return float(scores[-1])
    from aipo.stats import score_at_length  # NumPy, which a job that finds all done has no use for

    return score_at_length(lengths, scores, at_length)


def _of(rows: Rows, benchmark: BenchmarkRecord, metric: str) -> float | None:
    found = (
        row["value"]
        for row in rows
        if (row["benchmark"], row["name"], row["diagnostic_judge"]) == (benchmark.name, metric, None)
    )
    return next(found, None)
