"""Rankers: order the candidates of one prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
