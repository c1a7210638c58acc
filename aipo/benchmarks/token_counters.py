"""How long an answer is in tokens, and whose tokens: a count is never shown without naming its tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aipo.records import Completion


class TokenCounter(Protocol):
    """Counts the tokens of answers. `metric` is the name under which their mean is reported."""

    @property
    def metric(self) -> str:
        """As in `mean_tokens`."""
        ...

    def count(self, completions: Sequence[Completion]) -> list[int]:
        """Tokens of each completion."""
        ...


@dataclass(frozen=True)
class PolicyTokens:
    """The policy's own tokens, as sampled."""

    metric = "mean_tokens"

    def count(self, completions: Sequence[Completion]) -> list[int]:
        """Raises ValueError for answers read from official files, which carry no ids."""
        if not all(completion.has_known_ids for completion in completions):
            raise ValueError("these answers carry no policy token ids; count tiktoken tokens instead (Cl100kTokens)")
        return [completion.n_tokens for completion in completions]


@dataclass(frozen=True)
class EstimatedTokens:
    """An offline estimate of cl100k tokens from a count of words, numbers and punctuation.

    One factor, fitted on the answers of gpt-4-0314 and gpt-3.5-turbo-0125 to Arena-Hard, whose counts are published
    with them: a single answer is off by about 5 % on average, the mean of either model by about 0.1 %. Expect more
    where answers look different (other languages, long runs of digits).
    """

    metric = "mean_tokens_cl100k_estimated"

    def count(self, completions: Sequence[Completion]) -> list[int]:
        """Estimated tokens of each completion."""
        return [estimate_cl100k(completion.text) for completion in completions]


_WORD = re.compile(r"[^\W\d_]+")
_DIGITS = re.compile(r"\d{1,3}")
_PUNCTUATION = re.compile(r"[^\w\s]+|_+")
_SPACE = re.compile(r"\s++")


def estimate_cl100k(text: str) -> int:
    """Estimated number of cl100k tokens of `text`."""
    words = sum(1 + (len(word) - 1) // 10 for word in _WORD.findall(text))
    lines = sum("\n" in space for space in _SPACE.findall(text))
    others = len(_DIGITS.findall(text)) + len(_PUNCTUATION.findall(text)) + lines
    return round(0.967 * (words + others))
