"""Scored candidates in, preference pairs out: best against worst, every drop counted by its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aipo.records import Candidates, Completion, Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REASONS = (
    "unranked",
    "tie",
    "identical",
    "empty",
    "truncated",
    "prompt_too_long",
    "completion_too_long",
    "url",
)
"""Why a prompt gives no pair, in the order in which it is asked; a prompt is counted under the first that applies."""

URL_MARKS = ("http://", "https://")


class NoPairs(ValueError):
    """Filtering left nothing to train on."""


@dataclass(frozen=True)
class PairFilters:
    """What a pair must satisfy. Limits are policy tokens; None switches a limit off.

    The official code (bytedance/AIPO, `stage_dpo.py`) has the two limits and the URL filter. That it never asks whether
    a completion was cut at the token limit, is empty or equals its rival is not inherited.
    """

    max_prompt_tokens: int | None
    """Of the prompt with its chat template."""
    max_completion_tokens: int | None
    """Of either completion, the end-of-turn token not counted."""
    drop_truncated: bool
    """Drop a pair when either side was cut at the sampler's token limit."""
    drop_url_in_chosen: bool
    """Drop a pair when the chosen text holds a web address, which a policy can only make up."""

    def __post_init__(self) -> None:
        for name in ("max_prompt_tokens", "max_completion_tokens"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ValueError(f"PairFilters.{name} must be at least 1, or null for no limit, got {limit}")


def build_pairs(
    candidates: Sequence[Candidates],
    tokenizer: PreTrainedTokenizerBase,
    filters: PairFilters,
    win_probabilities: Sequence[float | None] | None = None,
) -> tuple[list[Pair], dict[str, int]]:
    """The best-scored completion of each prompt against the worst, and how many prompts were dropped for which reason.

    Of equal scores the first counts as best and as worst. A score of NaN means that the ranker could not score this
    candidate; it takes no part, and fewer than two scored candidates are `unranked`. `win_probabilities`: the ranker's
    P(best beats worst) for each prompt. Raises ValueError where scores are missing, infinite or too few.
    """
    from aipo.models.tokens import prompt_token_ids

    chances = [None] * len(candidates) if win_probabilities is None else list(win_probabilities)
    if len(chances) != len(candidates):
        raise ValueError(f"expected one win probability per prompt ({len(candidates)}), got {len(chances)}")
    pairs: list[Pair] = []
    dropped = dict.fromkeys(REASONS, 0)
    for row, chance in zip(candidates, chances, strict=True):
        scores = _checked_scores(row)
        scored = [number for number, score in enumerate(scores) if not math.isnan(score)]
        if len(scored) < 2:
            dropped["unranked"] += 1
            continue
        best, worst = max(scored, key=scores.__getitem__), min(scored, key=scores.__getitem__)
        chosen, rejected = row.completions[best], row.completions[worst]
        reason = _text_reason(scores[best], scores[worst], chosen, rejected, filters)
        prompt_ids: tuple[int, ...] = ()
        if reason is None:
            prompt_ids = prompt_token_ids(tokenizer, row.prompt.chat)
            reason = _length_reason(prompt_ids, chosen, rejected, filters)
        if reason is None and filters.drop_url_in_chosen and any(mark in chosen.text for mark in URL_MARKS):
            reason = "url"
        if reason is not None:
            dropped[reason] += 1
            continue
        prompt_id = row.prompt.prompt_id
        pairs.append(
            Pair(
                pair_id=f"{prompt_id}/{best}-{worst}",
                prompt_id=prompt_id,
                prompt_token_ids=prompt_ids,
                chosen=chosen,
                rejected=rejected,
                chosen_score=scores[best],
                rejected_score=scores[worst],
                win_probability=chance,
            )
        )
    return pairs, dropped


def require_pairs(pairs: Sequence[Pair], dropped: Mapping[str, int]) -> None:
    """Raise NoPairs, which says where the prompts went, when nothing is left to train on."""
    if pairs:
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.items() if count) or "there was no prompt"
    raise NoPairs(
        f"no pair is left to train on; dropped: {reasons}. Loosen data.filters, or sample more varied candidates"
    )


def _checked_scores(row: Candidates) -> tuple[float, ...]:
    scores = row.scores
    if scores is None or len(scores) != len(row.completions):
        raise ValueError(
            f"prompt {row.prompt.prompt_id}: expected {len(row.completions)} scores, one per completion, got "
            f"{'none' if scores is None else len(scores)}; rank the candidates first"
        )
    if any(math.isinf(score) for score in scores):
        raise ValueError(f"prompt {row.prompt.prompt_id}: the ranker gave an infinite score: {scores}")
    return scores


def _text_reason(
    best: float, worst: float, chosen: Completion, rejected: Completion, filters: PairFilters
) -> str | None:
    if best == worst:
        return "tie"
    if chosen.text == rejected.text:
        return "identical"
    if not (chosen.text.strip() and rejected.text.strip()):
        return "empty"
    if filters.drop_truncated and "length" in (chosen.finish, rejected.finish):
        return "truncated"
    return None


def _length_reason(
    prompt_ids: Sequence[int], chosen: Completion, rejected: Completion, filters: PairFilters
) -> str | None:
    if filters.max_prompt_tokens is not None and len(prompt_ids) > filters.max_prompt_tokens:
        return "prompt_too_long"
    longest = max(chosen.n_tokens, rejected.n_tokens)
    if filters.max_completion_tokens is not None and longest > filters.max_completion_tokens:
        return "completion_too_long"
    return None
