"""What a judge's reply says: pure parsers, one per verdict format. None always means unscored, never a low score."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

# Possessive: a run of digits is looked at once, however long, and not again from each of its digits.
_RATING = re.compile(r"\[\[(\d++\.?+\d*+)\]\]")
_RATING_FALLBACK = re.compile(r"\[(\d++\.?+\d*+)\]")
_GAME = re.compile(r"\[\[([AB<>=]++)\]\]")

GAME_PREFERENCE: Mapping[str, float] = {"A>>B": 0.0, "A>B": 0.25, "A=B": 0.5, "B>A": 0.75, "B>>A": 1.0}
"""Arena-Hard's labels as a preference for assistant B; other captured forms such as A<B mean nothing."""


def parse_rating(text: str) -> float | None:
    """MT-Bench's rating: the first [[n]], else the first [n] (FastChat 0.2.36, llm_judge/common.py).

    Unlike FastChat, a number outside 1..10 is unscored ([100] would score 100 there), and so is a number with a leading
    zero, on which FastChat raises.
    """
    match = _RATING.search(text) or _RATING_FALLBACK.search(text)
    if match is None:
        return None
    digits = match.group(1)
    if digits.isdigit() and len(digits) > 1 and digits.startswith("0"):
        return None
    rating = float(digits) if len(digits) < 40 else math.inf
    return rating if 1 <= rating <= 10 else None


def parse_winner(text: str) -> Literal["A", "B", "tie"] | None:
    """MT-Bench's pairwise verdict: looked for in the order A, B, C anywhere in the text, as FastChat does."""
    if "[[A]]" in text:
        return "A"
    if "[[B]]" in text:
        return "B"
    return "tie" if "[[C]]" in text else None


def parse_game(text: str) -> tuple[str | None, bool]:
    """Arena-Hard's label and whether the judge is asked once more (gen_judgment.py at efc012e).

    No label at all asks again; two different labels are unscored without a second chance. The label is returned as it
    stands, also where it is none of GAME_PREFERENCE.
    """
    labels = set(_GAME.findall(text))
    if not labels:
        return None, True
    return (labels.pop(), False) if len(labels) == 1 else (None, False)


def parse_first_token(top_logprobs: Mapping[str, float]) -> float | None:
    """P(second output is better) from the log-probs of one token, "m" for the first and "M" for the second output.

    A missing token has probability 0; with both missing the verdict is unscored (alpaca_eval 0.6.6, logprob_parser).
    """
    first, second = (top_logprobs.get(token, -math.inf) for token in ("m", "M"))
    highest = max(first, second)
    if highest == -math.inf:
        return None
    weight_first, weight_second = math.exp(first - highest), math.exp(second - highest)
    return 1 - weight_first / (weight_first + weight_second)


def parse_identifier(text: str) -> float | None:
    """P(second output is better), 0 or 1, from a reply that is nothing but "m" or "M", quotes and a full stop aside."""
    return {"m": 0.0, "M": 1.0}.get(text.strip().strip("\"'`*.").strip())
