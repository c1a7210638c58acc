"""The rows of an answers artifact."""

from __future__ import annotations

from aipo.artifacts import Artifact
from aipo.records import Answer, read_parquet


def read_answers(artifact: Artifact) -> list[Answer]:
    """A row per question."""
    return read_parquet(artifact.path / "answers.parquet", Answer)


def optional_answers(artifact: Artifact | None) -> list[Answer] | None:
    """The same; None for no artifact."""
    return None if artifact is None else read_answers(artifact)
