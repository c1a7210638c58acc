"""What the ranking stage writes, and what a ranker adds to pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from aipo.rankers.ranker import InformedRanker, Ranker
from aipo.records import Candidates, Chat, Pair, Prompt, RankedPrompt


def informed(ranker: Ranker, prompts: Sequence[Prompt]) -> Ranker:
    """The ranker, told what the prompts ask for where it wants to know."""
    return ranker.knowing(prompts) if isinstance(ranker, InformedRanker) else ranker


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


def with_win_shares(ranker: Ranker, pairs: Sequence[Pair], rows: Mapping[str, Candidates]) -> list[Pair]:
    """The pairs with each side's win share: its mean probability of beating a candidate of its prompt.

    All candidates count, the completion itself among them at 1/2, as in SPPO's code (arXiv 2405.00675). `rows`: by
    prompt id. 2 (N - 1) comparisons a pair. ValueError when the ranker gives no win probability.
    """
    asked: dict[tuple[str, str, str], Chat] = {}
    for pair in pairs:
        row = rows[pair.prompt_id]
        for side in (pair.chosen.text, pair.rejected.text):
            for other in row.completions:
                if side != other.text and (pair.prompt_id, other.text, side) not in asked:
                    asked[pair.prompt_id, side, other.text] = row.prompt.chat
    chances = ranker.win_probabilities(list(asked.values()), [(first, second) for _, first, second in asked])
    if chances is None:
        raise ValueError(
            f"ranker {ranker.name} gives no win probabilities, which win shares are made of; choose ranker=pairrm, a "
            "Bradley-Terry reward model, verifiable or proxy"
        )
    known = dict(zip(asked, chances, strict=True))

    def beats(prompt_id: str, first: str, second: str) -> float:
        if first == second:
            return 0.5
        found = known.get((prompt_id, first, second))
        return 1 - known[prompt_id, second, first] if found is None else found

    def share(pair: Pair, text: str) -> float:
        others = rows[pair.prompt_id].completions
        return sum(beats(pair.prompt_id, text, other.text) for other in others) / len(others)

    shares = [(share(pair, pair.chosen.text), share(pair, pair.rejected.text)) for pair in pairs]
    return [
        replace(pair, chosen_win_share=chosen, rejected_win_share=rejected)
        for pair, (chosen, rejected) in zip(pairs, shares, strict=True)
    ]
