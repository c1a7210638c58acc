"""Another ranker's score minus a price for length: the plainest remedy for a ranker that likes long completions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from aipo.components import needs_of
from aipo.judges.judge import Judge
from aipo.judges.replies import ReplyStore
from aipo.rankers.ranker import InformedRanker, JudgedRanker, Ranker, Reading, ReadingRanker
from aipo.rankers.ranking import informed
from aipo.records import Chat, Prompt

UNITS = ("words", "chars")
WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class LengthPenalizedRanker:
    """score = the ranker's score - weight * length, in characters or words; a punctuation mark counts as a word.

    Gives no win probabilities: the wrapped ranker's are of scores without a price.
    """

    ranker: Ranker
    weight: float
    """What one more unit of length must be worth in the ranker's own scores, at least 0. The scores of PairRM are mean
    differences of logits over the other candidates, the proxy's are gold points, a reward model's its own."""
    unit: Literal["words", "chars"] = "words"
    name: str = "length_penalized"

    gives_win_probability: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"ranker.weight must be at least 0 and finite, got {self.weight}")
        if self.unit not in UNITS:
            raise ValueError(f"ranker.unit must be one of {', '.join(UNITS)}, got {self.unit!r}")

    @property
    def scores_alone(self) -> bool:
        """As the wrapped ranker."""
        return self.ranker.scores_alone

    @property
    def needs_world(self) -> bool:
        """As the wrapped ranker."""
        return self.ranker.needs_world

    def identity(self) -> Mapping[str, str]:
        """The wrapped ranker's."""
        return self.ranker.identity()

    def missing(self) -> list[str]:
        """What the wrapped ranker misses."""
        return needs_of(self.ranker)

    @property
    def judge(self) -> Judge | None:
        """The wrapped ranker's, where it asks one."""
        return self.ranker.judge if isinstance(self.ranker, JudgedRanker) else None

    def stored(self, store: ReplyStore) -> LengthPenalizedRanker:
        """The same, keeping what the wrapped ranker pays for where that can be kept."""
        return replace(self, ranker=self.ranker.stored(store)) if isinstance(self.ranker, JudgedRanker) else self

    def reading(
        self, *, prompts: float, candidates: float, prompt_tokens: float, completion_tokens: float
    ) -> Reading | None:
        """The wrapped ranker's."""
        if not isinstance(self.ranker, ReadingRanker):
            return None
        return self.ranker.reading(
            prompts=prompts,
            candidates=candidates,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )

    def knowing(self, prompts: Sequence[Prompt]) -> LengthPenalizedRanker:
        """The same, with the wrapped ranker told what the prompts ask for where it wants to know."""
        return replace(self, ranker=informed(self.ranker, prompts))

    @property
    def needs_constraints(self) -> bool:
        """As the wrapped ranker."""
        return isinstance(self.ranker, InformedRanker) and self.ranker.needs_constraints

    def rank(self, prompts: Sequence[Chat], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """The wrapped ranker's scores, lowered by length; NaN stays NaN."""
        scores = self.ranker.rank(prompts, candidates)
        return [
            [score - self.weight * self._length(text) for score, text in zip(row, texts, strict=True)]
            for row, texts in zip(scores, candidates, strict=True)
        ]

    def win_probabilities(self, prompts: Sequence[Chat], pairs: Sequence[tuple[str, str]]) -> None:
        """None: see the class."""
        return None

    def _length(self, text: str) -> int:
        return len(WORD.findall(text)) if self.unit == "words" else len(text)
