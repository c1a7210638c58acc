"""A data recipe: where prompts and responses come from, and who says which response is better.

The four rows of the paper's first table are four recipes: see `conf/data/*.yaml`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from aipo.data.pairs import PairFilters
from aipo.data.selection import BestAgainstWorst, Selection
from aipo.data.self_instruct import SelfInstruct
from aipo.data.source import Source
from aipo.records import Candidates, Example, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHOICES = {
    "prompts": ("pool", "self_instruct"),
    "responses": ("dataset", "generated"),
    "ranking": ("dataset", "ranker"),
}


@dataclass(frozen=True)
class Recipe:
    """A pure description; the pipeline reads its fields. Combinations that cannot work are ValueErrors."""

    source: Source
    prompts: Literal["pool", "self_instruct"]
    """`pool`: the source's prompts. `self_instruct`: new ones, made by the current policy from the source's."""
    responses: Literal["dataset", "generated"]
    """`dataset`: those the source brings. `generated`: N completions by the current policy."""
    ranking: Literal["dataset", "ranker"]
    """`dataset`: the source's own ratings. `ranker`: the configured ranker's scores."""
    filters: PairFilters
    selection: Selection = field(default_factory=BestAgainstWorst)
    """Which two candidates of a prompt become its pair."""
    self_instruct: SelfInstruct | None = None

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"data.{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.prompts == "self_instruct" and self.responses == "dataset":
            raise ValueError(
                "data.prompts=self_instruct makes new prompts, for which a data set has no responses; "
                "set data.responses=generated or data.prompts=pool"
            )
        if self.responses == "generated" and self.ranking == "dataset":
            raise ValueError(
                "data.responses=generated makes new completions, which a data set has not rated; "
                "set data.ranking=ranker or data.responses=dataset"
            )
        if self.prompts == "self_instruct" and self.self_instruct is None:
            raise ValueError(
                "data.prompts=self_instruct needs data.self_instruct; choose one from conf/data/self_instruct"
            )

    def dataset_candidates(
        self, prompts: Sequence[Prompt], examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
    ) -> tuple[list[Candidates], dict[str, int]]:
        """The source's responses to `prompts` as token ids, its ratings as scores: NaN for all where it has none.

        Whether these scores are the ranking is asked later: recipes that differ in that alone share these candidates.
        Each response counts as finished, so its ids end with the end-of-turn token. Dropped and counted:
        `fewer_than_two_responses`.
        """
        from aipo.models.tokens import completion_from_text

        by_id = {example.prompt.prompt_id: example for example in examples}
        found: list[Candidates] = []
        dropped = {"fewer_than_two_responses": 0}
        for prompt in prompts:
            example = by_id.get(prompt.prompt_id)
            if example is None:
                raise ValueError(f"prompt {prompt.prompt_id} is not in the source's pool of {len(by_id)} examples")
            if len(example.responses) < 2:
                dropped["fewer_than_two_responses"] += 1
                continue
            completions = tuple(completion_from_text(tokenizer, text, "stop") for text in example.responses)
            rated = len(example.ratings) == len(example.responses)
            found.append(Candidates(prompt, completions, example.ratings if rated else (math.nan,) * len(completions)))
        return found, dropped
