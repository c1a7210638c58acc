"""Rankers: order the candidates of one prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from aipo.judges.judge import Judge
from aipo.judges.replies import ReplyStore
from aipo.records import Chat, Prompt


class Ranker(Protocol):
    """Scores candidates. A score says nothing across prompts, and never depends on the other prompts of a batch."""

    @property
    def name(self) -> str: ...

    @property
    def gives_win_probability(self) -> bool:
        """False: `win_probabilities` is None whatever it is asked."""
        ...

    @property
    def scores_alone(self) -> bool:
        """True when a score does not depend on the other candidates, so that answers can be scored one by one."""
        ...

    @property
    def needs_world(self) -> bool:
        """True when it knows the truth of the miniature's world only."""
        ...

    def identity(self) -> Mapping[str, str]:
        """What pins its scores beyond its settings: hashes of weights, a judge's identity, a version of its code."""
        ...

    def rank(self, prompts: Sequence[Chat], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """One score per candidate, larger is better, within its prompt."""
        ...

    def win_probabilities(self, prompts: Sequence[Chat], pairs: Sequence[tuple[str, str]]) -> list[float] | None:
        """P(first beats second) for each prompt's pair, or None when this ranker gives no probability."""
        ...


@dataclass(frozen=True)
class Compared:
    """What the comparisons of one prompt's candidates say."""

    scores: tuple[float, ...]
    """As of `rank`."""
    chances: tuple[tuple[float, ...], ...]
    """[i][j]: P(candidate i beats candidate j); 1/2 on the diagonal."""


@runtime_checkable
class ComparingRanker(Ranker, Protocol):
    """A ranker whose scores come from comparing every candidate with every other: win probabilities cost no more."""

    def compare(self, prompts: Sequence[Chat], candidates: Sequence[Sequence[str]]) -> list[Compared]:
        """Scores and win probabilities of each prompt's candidates."""
        ...


@dataclass(frozen=True)
class Reading:
    """What a ranker's own model reads, by count."""

    tokens: float
    flops: float
    """Of all forward passes."""
    dtype: str
    """What it multiplies in."""
    processes: int
    """That share it, each on a device of its own."""


@runtime_checkable
class ReadingRanker(Ranker, Protocol):
    """A ranker with a model of its own, whose work can be told beforehand."""

    def reading(
        self, *, prompts: float, candidates: float, prompt_tokens: float, completion_tokens: float
    ) -> Reading | None:
        """The work of ranking so many prompts; lengths are means. None while the model's size is not known."""
        ...


@runtime_checkable
class JudgedRanker(Ranker, Protocol):
    """A ranker that may ask a judge, one request per candidate, whose replies are kept."""

    @property
    def judge(self) -> Judge | None:
        """Who is asked; None where nobody is."""
        ...

    def stored(self, store: ReplyStore) -> Ranker:
        """The same ranker, which keeps every reply in `store` and asks for none twice."""
        ...


@runtime_checkable
class InformedRanker(Ranker, Protocol):
    """A ranker that wants to know what comes with a prompt (`Prompt.meta`) beside its text."""

    @property
    def needs_constraints(self) -> bool:
        """True when it cannot rank a prompt without constraints (`aipo.constraints`)."""
        ...

    def knowing(self, prompts: Sequence[Prompt]) -> Ranker:
        """The same ranker, told what these prompts ask for."""
        ...
