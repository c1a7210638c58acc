"""Arena-Hard v0.1: one-turn questions, two games against a baseline's answers, Bradley-Terry win rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ArenaHardAssets:
    """What Arena-Hard reads.

    `questions`: rows of the official question.jsonl: {question_id, cluster, turns: [{content}]}.
    `baseline_answers`: question id -> text, or None: the baseline policy's answers are then handed to `judge`.
    `system_prompt`: the judge's system message.
    `prompt_template`: the user message, with {question_1}, {answer_1} and {answer_2}.
    """

    questions: tuple[Mapping[str, Any], ...]
    baseline_answers: Mapping[str, str] | None
    system_prompt: str
    prompt_template: str
