"""The diagnostic ranker: the longer completion is better. What its pairs teach is length and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from aipo.records import Chat


@dataclass(frozen=True)
class LengthOnlyRanker:
    """The score of a completion is its number of characters, whatever it says."""

    name: str = "length_only"

    gives_win_probability: ClassVar[bool] = False
    scores_alone: ClassVar[bool] = True
    needs_world: ClassVar[bool] = False

    def identity(self) -> dict[str, str]:
        """Nothing beyond the settings."""
        return {}

    def rank(self, prompts: Sequence[Chat], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """Characters of every candidate."""
        return [[float(len(text)) for text in texts] for _, texts in zip(prompts, candidates, strict=True)]

    def win_probabilities(self, prompts: Sequence[Chat], pairs: Sequence[tuple[str, str]]) -> None:
        """None: a length is not a probability."""
        return None
