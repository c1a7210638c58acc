"""What the ranking stage writes, and what a ranker adds to pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from aipo.rankers.ranker import Ranker
from aipo.records import Candidates, Chat, Pair, RankedPrompt


def rank(ranker: Ranker, rows: Sequence[Candidates]) -> list[RankedPrompt]:
    """A row for each prompt, in order."""
    texts = [[completion.text for completion in row.completions] for row in rows]
    scores = ranker.rank([row.prompt.chat for row in rows], texts)
    return [RankedPrompt(row.prompt.prompt_id, tuple(score)) for row, score in zip(rows, scores, strict=True)]


def with_win_probabilities(ranker: Ranker, pairs: Sequence[Pair], chats: Mapping[str, Chat]) -> list[Pair]:
    """The pairs with the ranker's P(chosen beats rejected); as they are when it gives none. `chats`: by prompt id."""
    texts = [(pair.chosen.text, pair.rejected.text) for pair in pairs]
    chances = ranker.win_probabilities([chats[pair.prompt_id] for pair in pairs], texts)
    if chances is None:
        return list(pairs)
    return [replace(pair, win_probability=chance) for pair, chance in zip(pairs, chances, strict=True)]
