"""Scored candidates in, preference pairs out: two of each prompt, every drop counted by its reason."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from aipo.data.selection import BestAgainstWorst, Scored, Selection
from aipo.records import Candidates, Completion, Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger("aipo")

REASONS = (
    "unranked",
    "no_match",
    "tie",
    "identical",
    "empty",
    "truncated",
    "prompt_too_short",
    "prompt_too_long",
    "completion_too_long",
    "url",
)
"""Why a prompt gives no pair, in the order in which it is asked; a prompt is counted under the first that applies."""

URL_MARKS = ("http://", "https://")
TRUNCATED = ("drop", "rejected_only", "keep")
NOTABLE_SHARE = 0.1
"""A larger share of dropped prompts is told on the console: what is left may be another kind of prompt."""


class NoPairs(ValueError):
    """Filtering left nothing to train on."""


@dataclass(frozen=True)
class PairFilters:
    """What a pair must satisfy. Limits are policy tokens; None switches a limit off.

    The official code (bytedance/AIPO, `stage_dpo.py`) has the two limits and the URL filter. That it never asks whether
    a completion was cut at the token limit, is empty or equals its rival is not inherited.

    `truncated` says what becomes of completions that were cut at the sampler's token limit. `drop`: a pair with one is
    dropped. `rejected_only`: one may lose, but never win. `keep`: they count like any other. A ranker that likes length
    puts cut completions first, so `drop` then drops just the prompts on which the policy is longest.
    """

    max_prompt_tokens: int | None
    """Of the prompt with its chat template."""
    min_prompt_tokens: int | None = field(default=None, kw_only=True)
    """Of the user's first message alone, as the official code counts."""
    max_completion_tokens: int | None
    """Of either completion, the end-of-turn token not counted."""
    truncated: Literal["drop", "rejected_only", "keep"]
    drop_url_in_chosen: bool
    """Drop a pair when the chosen text holds a web address, which a policy can only make up."""

    def __post_init__(self) -> None:
        if self.truncated not in TRUNCATED:
            raise ValueError(f"PairFilters.truncated must be one of {', '.join(TRUNCATED)}, got {self.truncated!r}")
        for name in ("max_prompt_tokens", "min_prompt_tokens", "max_completion_tokens"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ValueError(f"PairFilters.{name} must be at least 1, or null for no limit, got {limit}")


@dataclass
class BuiltPairs:
    """What became of the candidates of a round."""

    pairs: list[Pair] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    """Prompts without a pair, by the first reason that applies."""
    lost: list[tuple[Completion, Completion]] = field(default_factory=list)
    """The two sides that were picked and then dropped."""

    @property
    def share_dropped(self) -> float:
        """Of all prompts; 0 where there was none."""
        dropped = sum(self.dropped.values())
        return dropped / (dropped + len(self.pairs)) if dropped else 0.0

    def lengths(self) -> dict[str, float]:
        """Mean tokens of the two sides, kept and dropped, where there are any."""
        kept = [(pair.chosen, pair.rejected) for pair in self.pairs]
        found = {}
        for prefix, sides in (("", kept), ("dropped_", self.lost)):
            for place, side in enumerate(("chosen", "rejected")):
                if sides:
                    found[f"{prefix}{side}_tokens"] = sum(both[place].n_tokens for both in sides) / len(sides)
        return found


def build_pairs(
    candidates: Sequence[Candidates],
    tokenizer: PreTrainedTokenizerBase,
    filters: PairFilters,
    selection: Selection | None = None,
) -> BuiltPairs:
    """The pair that `selection` (None: best against worst) picks for each prompt, and what was dropped and why.

    A score of NaN means that the ranker could not score this candidate; it takes no part, and fewer than two scored
    candidates are `unranked`. Raises ValueError where scores are missing, infinite or too few. More than NOTABLE_SHARE
    of dropped prompts is logged, with its remedy.
    """
    from aipo.models.tokens import prompt_token_ids

    rule = BestAgainstWorst() if selection is None else selection
    built = BuiltPairs()
    for row in candidates:
        scores = _checked_scores(row)
        scored = [
            Scored(place, score, completion.n_tokens, filters.truncated != "rejected_only" or _finished(completion))
            for place, (score, completion) in enumerate(zip(scores, row.completions, strict=True))
            if not math.isnan(score)
        ]
        if len(scored) < 2:
            built.dropped["unranked"] += 1
            continue
        picked = rule.choose(row.prompt.prompt_id, scored)
        if picked is None:
            built.dropped[_no_pair_reason(scored)] += 1
            continue
        best, worst = picked
        chosen, rejected = row.completions[best.place], row.completions[worst.place]
        if best.score == worst.score:
            built.dropped[_no_pair_reason(scored)] += 1
            continue
        reason = _text_reason(chosen, rejected, filters)
        if reason is None and _is_short(row, tokenizer, filters.min_prompt_tokens):
            reason = "prompt_too_short"
        prompt_ids: tuple[int, ...] = ()
        if reason is None:
            prompt_ids = prompt_token_ids(tokenizer, row.prompt.chat)
            reason = _length_reason(prompt_ids, chosen, rejected, filters)
        if reason is None and filters.drop_url_in_chosen and any(mark in chosen.text for mark in URL_MARKS):
            reason = "url"
        if reason is not None:
            built.dropped[reason] += 1
            built.lost.append((chosen, rejected))
            continue
        prompt_id = row.prompt.prompt_id
        built.pairs.append(
            Pair(
                pair_id=f"{prompt_id}/{best.place}-{worst.place}",
                prompt_id=prompt_id,
                prompt_token_ids=prompt_ids,
                chosen=chosen,
                rejected=rejected,
                chosen_score=best.score,
                rejected_score=worst.score,
            )
        )
    if built.share_dropped > NOTABLE_SHARE:
        logger.warning("%s", _told(built, filters))
    return built


def require_pairs(built: BuiltPairs) -> None:
    """Raise NoPairs, which says where the prompts went, when nothing is left to train on."""
    if built.pairs:
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in built.dropped.items() if count)
    raise NoPairs(
        f"no pair is left to train on; dropped: {reasons or 'there was no prompt'}. Loosen data.filters, or sample "
        "more varied candidates"
    )


REMEDIES = {
    "truncated": "raise iteration.decoding.max_new_tokens, and data.filters.max_completion_tokens with it",
    "no_match": "loosen data.selection, or sample more candidates (iteration.candidates)",
    "tie": "sample more varied candidates (iteration.candidates, iteration.decoding.temperature)",
    "identical": "sample more varied candidates (iteration.candidates, iteration.decoding.temperature)",
}


def _told(built: BuiltPairs, filters: PairFilters) -> str:
    """One line about dropped prompts: how many, why, how long what was dropped is, and the remedy for most of it."""
    total = len(built.pairs) + sum(built.dropped.values())
    reasons = Counter(built.dropped)
    listed = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common() if count)
    lengths = built.lengths()
    compared = ""
    if built.pairs and built.lost:
        compared = (
            f"; the dropped pairs' sides have {lengths['dropped_chosen_tokens']:.1f} and "
            f"{lengths['dropped_rejected_tokens']:.1f} tokens on average, the kept ones' "
            f"{lengths['chosen_tokens']:.1f} and {lengths['rejected_tokens']:.1f}"
        )
    most = reasons.most_common(1)[0][0]
    remedy = REMEDIES.get(most, "see data.filters")
    if (most, filters.truncated) == ("truncated", "drop"):
        remedy += ", or let cut completions lose (data.filters.truncated=rejected_only)"
    return f"pairs: {total - len(built.pairs)} of {total} prompts dropped ({listed}){compared}. To keep more: {remedy}"


def _finished(completion: Completion) -> bool:
    return completion.finish == "stop"


def _no_pair_reason(scored: Sequence[Scored]) -> str:
    """Why a rule found no two candidates: all alike, none above another that may win, or none that fits."""
    if len({candidate.score for candidate in scored}) == 1:
        return "tie"
    able = [candidate.score for candidate in scored if candidate.may_win]
    return "no_match" if able and max(able) > min(candidate.score for candidate in scored) else "truncated"


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


def _text_reason(chosen: Completion, rejected: Completion, filters: PairFilters) -> str | None:
    if chosen.text == rejected.text:
        return "identical"
    if not (chosen.text.strip() and rejected.text.strip()):
        return "empty"
    if filters.truncated == "drop" and not (_finished(chosen) and _finished(rejected)):
        return "truncated"
    return None


def _is_short(row: Candidates, tokenizer: PreTrainedTokenizerBase, least: int | None) -> bool:
    if least is None:
        return False
    asked = next(message.content for message in row.prompt.chat if message.role == "user")
    return len(tokenizer.encode(asked, add_special_tokens=False)) < least


def _length_reason(
    prompt_ids: Sequence[int], chosen: Completion, rejected: Completion, filters: PairFilters
) -> str | None:
    if filters.max_prompt_tokens is not None and len(prompt_ids) > filters.max_prompt_tokens:
        return "prompt_too_long"
    longest = max(chosen.n_tokens, rejected.n_tokens)
    if filters.max_completion_tokens is not None and longest > filters.max_completion_tokens:
        return "completion_too_long"
    return None
