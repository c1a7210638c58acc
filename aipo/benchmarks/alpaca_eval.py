"""AlpacaEval 2.0: one-turn instructions, compared with a baseline's outputs; win rates with and without length control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class AlpacaEvalAssets:
    """What AlpacaEval reads.

    `items`: rows {instruction, dataset}; a row's position is its question id.
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
