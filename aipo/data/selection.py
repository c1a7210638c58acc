"""Which two of a prompt's scored candidates become its pair.

Best against worst is the paper's rule. It also picks the two ends of whatever else goes with the score, length first
of all; the other rules are the cheap remedies that a length-aware objective has to beat.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Scored(NamedTuple):
    """A candidate that a pair may hold."""

    place: int
    """Among the prompt's candidates."""
    score: float
    n_tokens: int
    may_win: bool
    """False: it may be the rejected side only."""


class Selection(Protocol):
    """A rule. It sees at least two candidates of one prompt, in their order, and draws nothing unseeded."""

    def choose(self, prompt_id: str, candidates: Sequence[Scored]) -> tuple[Scored, Scored] | None:
        """Chosen and rejected, or None where no two candidates fit the rule.

        A pair of equal scores is returned as it is, and dropped as a tie by the caller.
        """
        ...


def _best(candidates: Sequence[Scored]) -> Scored | None:
    able = [candidate for candidate in candidates if candidate.may_win]
    return max(able, key=lambda candidate: candidate.score) if able else None


def _worst(candidates: Sequence[Scored]) -> Scored:
    return min(candidates, key=lambda candidate: candidate.score)


def _ordered_pairs(candidates: Sequence[Scored]) -> list[tuple[Scored, Scored]]:
    """Every two candidates of which the first has the higher score and may win."""
    return [
        (one, other) for one, other in itertools.permutations(candidates, 2) if one.may_win and one.score > other.score
    ]


@dataclass(frozen=True)
class BestAgainstWorst:
    """The highest score against the lowest (Algorithm 1 of the paper). Of equal scores the first counts."""

    def choose(self, prompt_id: str, candidates: Sequence[Scored]) -> tuple[Scored, Scored] | None:
        """The pair; None where no candidate may win."""
        best = _best(candidates)
        return None if best is None else (best, _worst(candidates))


@dataclass(frozen=True)
class RandomPair:
    """Two candidates of different scores, drawn evenly from all such pairs; the higher score is chosen."""

    seed: int
    """With the prompt's id, all that the draw depends on."""

    def choose(self, prompt_id: str, candidates: Sequence[Scored]) -> tuple[Scored, Scored] | None:
        """The pair; None where all scores are equal."""
        digest = hashlib.sha256(f"{self.seed}/{prompt_id}".encode()).digest()
        able = _ordered_pairs(candidates)
        return random.Random(int.from_bytes(digest[:8], "big")).choice(able) if able else None


@dataclass(frozen=True)
class LengthMatched:
    """The widest score gap among pairs of like length; of equal gaps the first counts."""

    largest_ratio: float
    """Tokens of the longer completion over those of the shorter one; at least 1."""

    def __post_init__(self) -> None:
        if not self.largest_ratio >= 1:
            raise ValueError(f"data.selection.largest_ratio must be at least 1, got {self.largest_ratio}")

    def choose(self, prompt_id: str, candidates: Sequence[Scored]) -> tuple[Scored, Scored] | None:
        """The pair; None where no two candidates of different scores are of like length."""
        alike = [
            pair
            for pair in _ordered_pairs(candidates)
            if max(pair[0].n_tokens, pair[1].n_tokens)
            <= self.largest_ratio * max(1, min(pair[0].n_tokens, pair[1].n_tokens))
        ]
        return max(alike, key=lambda pair: pair[0].score - pair[1].score) if alike else None


@dataclass(frozen=True)
class ShorterOfNearBest:
    """Against the worst, the shortest of those whose score is nearly the best; of equal lengths the better one."""

    within: float
    """Nearly: at most this share of the prompt's range of scores (best minus worst) below the best; in [0, 1)."""

    def __post_init__(self) -> None:
        if not 0 <= self.within < 1:
            raise ValueError(f"data.selection.within must be in [0, 1), got {self.within}")

    def choose(self, prompt_id: str, candidates: Sequence[Scored]) -> tuple[Scored, Scored] | None:
        """The pair; None where no candidate may win."""
        best, worst = _best(candidates), _worst(candidates)
        if best is None:
            return None
        least = best.score - self.within * (best.score - worst.score)
        near = [candidate for candidate in candidates if candidate.may_win and candidate.score >= least]
        return min(near, key=lambda candidate: (candidate.n_tokens, -candidate.score)), worst
