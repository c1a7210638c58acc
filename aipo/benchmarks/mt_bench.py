"""MT-Bench: 80 two-turn questions, rated 1-10 by a judge, or compared in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MTBenchAssets:
    """What MT-Bench reads.

    `questions`: rows of the official question.jsonl: {question_id, category, turns: [str, str]}.
    `judge_prompts`: rows of the official judge_prompts.jsonl by their `name`: {system_prompt, prompt_template, ...}.
    `references`: question id (as text) -> reference answers of both turns, for the categories that have them.
    """

    questions: tuple[Mapping[str, Any], ...]
    judge_prompts: Mapping[str, Mapping[str, Any]]
    references: Mapping[str, tuple[str, str]]
