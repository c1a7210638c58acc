"""What AlpacaEval reads: instructions, the baseline's outputs, the judge's prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class AlpacaEvalAssets:
    """`items`: rows {instruction, dataset}; a row's position is its question id.
    `baseline_outputs`: one per item, or None: the baseline policy's answers are then handed to `judge` and `score`.
    `prompt_template`: the official text format, with <|im_start|>role ... <|im_end|> blocks and the placeholders
        {instruction}, {output_1}, {output_2}.
    `gamed`: the verbose and concise rows of df_gamed.csv, or None: the length model is then fitted without them.
    `difficulty`: one per item, or None: taken from `gamed` where there is one, else the term is left out.
    """

    items: tuple[Mapping[str, str], ...]
    baseline_outputs: tuple[str, ...] | None
    prompt_template: str
    gamed: pd.DataFrame | None = None
    difficulty: tuple[float, ...] | None = None

    def first(self, n: int) -> AlpacaEvalAssets:
        """The first `n` items alone. Difficulties that come with `gamed` are by position and need no cut."""
        outputs = self.baseline_outputs and self.baseline_outputs[:n]
        difficulty = self.difficulty and self.difficulty[:n]
        return replace(self, items=self.items[:n], baseline_outputs=outputs, difficulty=difficulty)
