"""Prompts whose answers code can check: instructions with constraints, made by `aipo.constraints`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from aipo.constraints import VERSION, draw_tasks, meta_of
from aipo.records import Example, Message, Prompt


@dataclass(frozen=True)
class ConstraintPrompts:
    """`n_prompts` different prompts of the training side, without responses; `Prompt.meta` has the constraints."""

    n_prompts: int
    seed: int = 0

    is_world: ClassVar[bool] = False
    brings_responses: ClassVar[bool] = False
    brings_ratings: ClassVar[bool] = False
    brings_constraints: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.n_prompts <= 50_000:
            raise ValueError(f"data.source.n_prompts must be in 1..50000, got {self.n_prompts}")

    def identity(self) -> Mapping[str, str]:
        """The content follows from the settings; `VERSION` counts changes of texts and checks."""
        return {"constraints": VERSION}

    def pool_size(self) -> int:
        """As many as asked for."""
        return self.n_prompts

    def load(self) -> tuple[list[Example], dict[str, int]]:
        """The prompts in a fixed order. Nothing is dropped."""
        tasks = draw_tasks(self.n_prompts, self.seed, held_out=False)
        return [
            Example(Prompt(f"task-{place:05d}", (Message("user", task.text),), "pool", meta_of(task.constraints)))
            for place, task in enumerate(tasks)
        ], {}
