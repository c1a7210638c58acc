"""Which prompts a policy's context leaves no room for: dropped and counted, or not made, before anything is sampled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aipo.records import Prompt

if TYPE_CHECKING:
    from aipo.models.policy import PolicyRef

logger = logging.getLogger("aipo")


def leaves_room(policy: PolicyRef) -> Callable[[str], bool]:
    """Whether a text that the policy is to continue leaves room for that in its context."""
    from aipo.models.tokens import plain_token_ids

    limit = policy.context_tokens()
    if limit is None:
        return lambda text: True
    tokenizer = policy.load_tokenizer()
    return lambda text: len(plain_token_ids(tokenizer, text)) < limit


def fit_context(prompts: Sequence[Prompt], policy: PolicyRef) -> tuple[list[Prompt], dict[str, int]]:
    """The prompts that leave room for an answer, and how many do not (`prompt_too_long`; empty where all do).

    The policy's context is the model's own, so that what is sampled does not depend on `data.filters`. The longest
    dropped prompt is logged. Raises ValueError when no prompt is left.
    """
    from aipo.models.tokens import prompt_token_ids

    limit = policy.context_tokens()
    if limit is None:
        return list(prompts), {}
    tokenizer = policy.load_tokenizer()
    lengths = [len(prompt_token_ids(tokenizer, prompt.chat)) for prompt in prompts]
    kept = [prompt for prompt, length in zip(prompts, lengths, strict=True) if length < limit]
    lost = len(prompts) - len(kept)
    if not lost:
        return kept, {}
    longest, prompt_id = max((length, prompt.prompt_id) for prompt, length in zip(prompts, lengths, strict=True))
    said = (
        f"{lost} of {len(prompts)} prompts leave no room for an answer in the context of {limit} tokens of "
        f"model.path={policy.path}; the longest, {prompt_id}, has {longest} tokens"
    )
    if not kept:
        raise ValueError(f"{said}. Shorten the prompts of data.source, or choose a model with a longer context")
    logger.warning("%s. They are dropped (prompt_too_long).", said)
    return kept, {"prompt_too_long": lost}
