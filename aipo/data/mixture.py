"""Two sources in a fixed ratio. A mixture is a source, so mixtures can be nested."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aipo.components import needs_of
from aipo.data.local import SourceError
from aipo.data.source import Source
from aipo.records import Chat, Example


@dataclass(frozen=True)
class Mixture:
    """`first_share` of the prompts come from `first`, the rest from `second`, each drawn without repetition.

    Prompt ids are those of the sources behind `first/` and `second/`.
    """

    first: Source
    second: Source
    first_share: float
    """In (0, 1)."""
    n_prompts: int | None = None
    """In all. None: as many as the two can give in this ratio."""
    seed: int = 0
    """Of the draw and of the order."""

    def __post_init__(self) -> None:
        if not 0 < self.first_share < 1:
            raise ValueError(f"data.source.first_share must be between 0 and 1, got {self.first_share}")
        if self.n_prompts is not None and self.n_prompts < 2:
            raise ValueError(f"data.source.n_prompts must be at least 2, or null for all, got {self.n_prompts}")

    def missing(self) -> list[str]:
        """What either source misses."""
        lines: list[str] = []
        for label, source in self._sources():
            lines += [f"{label} source: {line}" for line in needs_of(source)]
        return lines

    @property
    def is_world(self) -> bool:
        """Where all of its parts do."""
        return self.first.is_world and self.second.is_world

    @property
    def brings_responses(self) -> bool:
        """Where one of its parts does: prompts without are dropped and counted."""
        return self.first.brings_responses or self.second.brings_responses

    @property
    def brings_ratings(self) -> bool:
        """Likewise."""
        return self.first.brings_ratings or self.second.brings_ratings

    def identity(self) -> Mapping[str, str]:
        """Both sources'."""
        return {
            f"{label}/{key}": value for label, source in self._sources() for key, value in source.identity().items()
        }

    def pool_size(self) -> int | None:
        """What the ratio allows if no prompt is in both; None where either source does not tell."""
        first, second = self.first.pool_size(), self.second.pool_size()
        return None if first is None or second is None else sum(self._sizes(first, second))

    def load(self) -> tuple[list[Example], dict[str, int]]:
        """The mixture in a seeded order.

        Counted: what each source dropped, what both have, and what the ratio leaves out.
        """
        dropped: dict[str, int] = {"in_both": 0, "beyond_ratio": 0}
        pools: list[list[Example]] = []
        seen: set[Chat] = set()
        for label, source in self._sources():
            examples, lost = source.load()
            dropped |= {f"{label}/{reason}": count for reason, count in lost.items()}
            own = [example for example in examples if example.prompt.chat not in seen]
            dropped["in_both"] += len(examples) - len(own)
            seen.update(example.prompt.chat for example in own)
            pools.append([_labelled(example, label) for example in own])
        sizes = self._sizes(len(pools[0]), len(pools[1]))
        draw = random.Random(f"mixture {self.seed}")
        mixed = [example for pool, size in zip(pools, sizes, strict=True) for example in draw.sample(pool, size)]
        draw.shuffle(mixed)
        dropped["beyond_ratio"] = sum(map(len, pools)) - len(mixed)
        return mixed, dropped

    def _sources(self) -> tuple[tuple[str, Any], tuple[str, Any]]:
        return ("first", self.first), ("second", self.second)

    def _sizes(self, first: int, second: int) -> tuple[int, int]:
        total = self.n_prompts
        if total is None:
            total = int(min(first / self.first_share, second / (1 - self.first_share)) + 1e-9)
        wanted = round(total * self.first_share)
        sizes = wanted, total - wanted
        for label, has, needs in (("first", first, sizes[0]), ("second", second, sizes[1])):
            if needs > has:
                raise SourceError(
                    f"data.source: {total} prompts with first_share={self.first_share} need {needs} of the {label} "
                    f"source, which has {has}; lower n_prompts or change first_share"
                )
        return sizes


def _labelled(example: Example, label: str) -> Example:
    return replace(example, prompt=replace(example.prompt, prompt_id=f"{label}/{example.prompt.prompt_id}"))
