"""Training documents of mixed quality: single-turn and two-turn chats, and numbered lists of tasks.

What a base model learns from: right, wrong and missing facts among filler, so that samples of one prompt differ in
quality and in length for unrelated reasons.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from aipo.miniature.world import (
    ATTRIBUTES,
    FILLERS,
    Fact,
    Request,
    draw_follow_up,
    draw_prompt,
    state,
    true_fact,
)
from aipo.records import Chat, Message

TASK_LIST_HEADER = "Come up with a series of tasks:"
"""The opening line of Self-Instruct's prompt; the documents that list tasks open with it too."""


@dataclass(frozen=True)
class Writer:
    """Writes completions of a given quality. Every field is a probability.

    The defaults are those of the prototype: enough wrong facts and filler that five samples of one prompt differ.
    """

    omitted: float = 0.25
    """That an asked fact is left out."""
    wrong: float = 0.25
    """That a stated fact has one of the seven wrong values."""
    filler: float = 0.35
    """That a gap (before the first sentence, between two, after the last) holds a filler sentence."""
    unasked: float = 0.15
    """That one more fact about the same person is stated, which nobody asked for."""
    long_form: float = 0.2
    """That a fact is stated in its longer form."""

    def __post_init__(self) -> None:
        for name in ("omitted", "wrong", "filler", "unasked", "long_form"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"Writer.{name} must be a probability in [0, 1], got {value}")

    def write(self, rng: random.Random, request: Request) -> str:
        """A completion for `request`: at least one sentence, filler if need be."""
        facts = [fact for fact in request.facts() if rng.random() >= self.omitted]
        rest = [attribute for attribute in ATTRIBUTES if attribute not in request.attributes]
        if rng.random() < self.unasked and rest:
            facts.append(true_fact(rng.choice(request.people), rng.choice(rest)))
        sentences: list[str] = []
        for fact in facts:
            self._fill(rng, sentences)
            sentences.append(state(self._spoil(rng, fact), long_form=rng.random() < self.long_form))
        self._fill(rng, sentences)
        return " ".join(sentences or [rng.choice(FILLERS)])

    def _fill(self, rng: random.Random, sentences: list[str]) -> None:
        if rng.random() < self.filler:
            sentences.append(rng.choice(FILLERS))

    def _spoil(self, rng: random.Random, fact: Fact) -> Fact:
        if rng.random() >= self.wrong:
            return fact
        others = [value for value in ATTRIBUTES[fact.attribute] if value != fact.value]
        return Fact(fact.person, fact.attribute, rng.choice(others))


@dataclass(frozen=True)
class Corpus:
    """How many documents there are, of which kind, and how good. Everything follows from `seed`."""

    n_documents: int
    two_turn_share: float
    task_list_share: float
    writer: Writer
    seed: int

    def __post_init__(self) -> None:
        if self.n_documents < 1:
            raise ValueError(f"Corpus.n_documents must be at least 1, got {self.n_documents}")
        if min(self.two_turn_share, self.task_list_share) < 0 or self.two_turn_share + self.task_list_share > 1:
            raise ValueError(
                "Corpus.two_turn_share and task_list_share must be at least 0 and sum to at most 1, got "
                f"{self.two_turn_share} and {self.task_list_share}"
            )

    def documents(self) -> Iterator[Chat | str]:
        """Chats that end with the assistant's turn, and task lists as plain text. Only pool requests are asked."""
        rng = random.Random(f"corpus {self.seed}")
        for _ in range(self.n_documents):
            kind = rng.random()
            if kind < self.task_list_share:
                yield write_task_list(rng)
            else:
                yield self._chat(rng, two_turns=kind < self.task_list_share + self.two_turn_share)

    def _chat(self, rng: random.Random, *, two_turns: bool) -> Chat:
        request, text = draw_prompt(rng, held_out=False)
        chat = [Message("user", text), Message("assistant", self.writer.write(rng, request))]
        if two_turns:
            request, text = draw_follow_up(rng, request)
            chat += [Message("user", text), Message("assistant", self.writer.write(rng, request))]
        return tuple(chat)


def write_task_list(rng: random.Random) -> str:
    """A numbered list of 10 to 13 tasks in Self-Instruct's format: more than a prompt with two new tasks needs."""
    tasks = [draw_prompt(rng, held_out=False)[1] for _ in range(rng.randint(10, 13))]
    return "\n".join([TASK_LIST_HEADER, *(f"{number}. {task}" for number, task in enumerate(tasks, start=1))])
