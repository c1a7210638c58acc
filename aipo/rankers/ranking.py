"""What the ranking stage writes, and what a ranker adds to pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from aipo.rankers.ranker import ComparingRanker, InformedRanker, Ranker
from aipo.records import Candidates, Chat, Pair, Prompt, RankedPrompt, WinProbabilities, read_parquet

REMEDY = "mend what it returns, and run the same command again"


class Chances(Protocol):
    """Who says how likely one completion beats another: a ranker, or what it said before."""

    @property
    def name(self) -> str: ...

    def win_probabilities(self, prompts: Sequence[Chat], pairs: Sequence[tuple[str, str]]) -> list[float] | None:
        """As of a Ranker."""
        ...


def informed(ranker: Ranker, prompts: Sequence[Prompt]) -> Ranker:
    """The ranker, told what the prompts ask for where it wants to know."""
    return ranker.knowing(prompts) if isinstance(ranker, InformedRanker) else ranker


def rank(ranker: Ranker, rows: Sequence[Candidates]) -> tuple[list[RankedPrompt], list[WinProbabilities]]:
    """A row for each prompt, in order; and, from a ranker that compares, what it learned of every two candidates.

    ValueError for anything but a number for each candidate: what is kept is not asked for again when the ranker is
    mended. NaN says that a candidate is not ranked.
    """
    chats = [row.prompt.chat for row in rows]
    texts = [[completion.text for completion in row.completions] for row in rows]
    if not isinstance(ranker, ComparingRanker):
        scores = _of_all(ranker, ranker.rank(chats, texts), rows)
        return [RankedPrompt(row.prompt.prompt_id, _scores(ranker, row, found)) for row, found in scores], []
    compared = _of_all(ranker, ranker.compare(chats, texts), rows)
    return (
        [RankedPrompt(row.prompt.prompt_id, _scores(ranker, row, found.scores)) for row, found in compared],
        [WinProbabilities(row.prompt.prompt_id, _chances(ranker, row, found.chances)) for row, found in compared],
    )


def _of_all(ranker: Ranker, found: Any, rows: Sequence[Candidates]) -> list[tuple[Candidates, Any]]:
    """Each prompt's candidates with what the ranker found of them."""
    listed = _listed(found)
    if listed is None or len(listed) != len(rows):
        got = repr(found) if listed is None else str(len(listed))
        raise ValueError(f"ranker {ranker.name}: expected scores of {len(rows)} prompts, got {got:.80}; {REMEDY}")
    return list(zip(rows, listed, strict=True))


def _scores(ranker: Ranker, row: Candidates, found: Any) -> tuple[float, ...]:
    """The scores of a prompt's candidates as plain floats."""
    wanted, listed = len(row.completions), _listed(found)
    expected = f"ranker {ranker.name}: prompt {row.prompt.prompt_id}: expected"
    if listed is None or len(listed) != wanted:
        got = repr(found) if listed is None else str(len(listed))
        raise ValueError(f"{expected} {wanted} scores, one per candidate, got {got:.80}; {REMEDY}")
    scores = [_number(value) for value in listed]
    if any(map(math.isinf, scores)):
        value = next(value for value, score in zip(listed, scores, strict=True) if math.isinf(score))
        raise ValueError(f"{expected} finite numbers, NaN for what is not ranked, got {value!r:.80}; {REMEDY}")
    return tuple(scores)


def _chances(ranker: Ranker, row: Candidates, found: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The win probabilities of a prompt's candidates, row by row."""
    wanted = len(row.completions)
    if len(found) != wanted or any(len(chances) != wanted for chances in found):
        raise ValueError(
            f"ranker {ranker.name}: prompt {row.prompt.prompt_id}: expected {wanted} x {wanted} win probabilities, got "
            f"{len(found)} row(s) of {', '.join(str(len(chances)) for chances in found) or 'none'}; {REMEDY}"
        )
    return tuple(chain.from_iterable(found))


def _listed(found: Any) -> list[Any] | None:
    """The items of what should be a sequence; None where it is none, or a text."""
    try:
        return None if isinstance(found, str | bytes) else list(found)
    except TypeError:
        return None


def _number(value: Any) -> float:
    """A number of any kind as a float; infinite where it is none."""
    try:
        return math.inf if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.inf


def recalled(ranker: Ranker, rows: Sequence[Candidates], kept: Path) -> Chances:
    """The ranker, or where its ranking pass left win probabilities in the file `kept`, what it said then."""
    return Recalled(ranker, rows, read_parquet(kept, WinProbabilities)) if kept.exists() else ranker


class Recalled:
    """A ranker's win probabilities, from the comparisons of its ranking pass; it is asked about other texts only."""

    def __init__(self, ranker: Ranker, rows: Sequence[Candidates], kept: Sequence[WinProbabilities]) -> None:
        self._ranker = ranker
        self._kept: dict[Chat, tuple[dict[str, int], tuple[float, ...]]] = {}
        for row, found in zip(rows, kept, strict=True):
            # Of equal texts any place will do: their comparisons are equal, too.
            places = {completion.text: place for place, completion in enumerate(row.completions)}
            self._kept.setdefault(row.prompt.chat, (places, found.chances))
        self._size = {chat: round(len(chances) ** 0.5) for chat, (_, chances) in self._kept.items()}

    @property
    def name(self) -> str:
        """The ranker's."""
        return self._ranker.name

    def win_probabilities(self, prompts: Sequence[Chat], pairs: Sequence[tuple[str, str]]) -> list[float] | None:
        """As the ranker's own, to rounding: a comparison was made in another batch."""
        asked = list(zip(prompts, pairs, strict=True))
        chances = [self._recall(chat, *pair) for chat, pair in asked]
        unknown = [place for place, chance in enumerate(chances) if chance is None]
        if unknown:
            more = self._ranker.win_probabilities(
                [prompts[place] for place in unknown], [pairs[place] for place in unknown]
            )
            if more is None:
                return None
            for place, chance in zip(unknown, more, strict=True):
                chances[place] = chance
        return [chance for chance in chances if chance is not None]

    def _recall(self, chat: Chat, first: str, second: str) -> float | None:
        places, chances = self._kept.get(chat, ({}, ()))
        if first not in places or second not in places:
            return None
        return chances[places[first] * self._size[chat] + places[second]]


def with_win_probabilities(ranker: Chances, pairs: Sequence[Pair], chats: Mapping[str, Chat]) -> list[Pair]:
    """The pairs with the ranker's P(chosen beats rejected); as they are when it gives none. `chats`: by prompt id."""
    texts = [(pair.chosen.text, pair.rejected.text) for pair in pairs]
    chances = ranker.win_probabilities([chats[pair.prompt_id] for pair in pairs], texts)
    if chances is None:
        return list(pairs)
    return [replace(pair, win_probability=chance) for pair, chance in zip(pairs, chances, strict=True)]


def with_win_shares(ranker: Chances, pairs: Sequence[Pair], rows: Mapping[str, Candidates]) -> list[Pair]:
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
