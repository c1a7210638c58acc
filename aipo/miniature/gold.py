"""Gold quality: what a completion is worth, computed from the text of the prompt and of the completion alone.

    gold = (right - wrong - nonsense) / asked,   clipped to [-1, 1]

right: facts asked for that are stated truly; wrong: different false statements, asked for or not; nonsense: sentences
that are neither a statement nor known filler, a sentence cut short included. Filler, true facts nobody asked for and
repetitions cost nothing and earn nothing, so length alone never changes quality.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Literal

from aipo.miniature.world import FILLERS, Fact, holds, read_request, read_statement
from aipo.records import Chat

_SENTENCE = re.compile(r"[^.!?\n]*[.!?]|[^.!?\n]+")


Mark = Literal["right", "true", "wrong", "filler", "nonsense", "repeated", "blank"]
"""What a sentence is: `true` was not asked for, `repeated` says again what the completion has stated before."""


@dataclass(frozen=True)
class GoldCount:
    """What was found in one completion."""

    asked: int
    right: int
    wrong: int
    nonsense: int

    @property
    def quality(self) -> float:
        """Gold quality in [-1, 1]. A prompt that asks for nothing counts as one fact that cannot be given."""
        value = (self.right - self.wrong - self.nonsense) / max(self.asked, 1)
        return max(-1.0, min(1.0, value))


def count_facts(chat: Chat, completion: str) -> GoldCount:
    """Read the completion that answers the last turn of `chat`. ValueError when that turn is not the user's."""
    if not chat or chat[-1].role != "user":
        raise ValueError("gold quality needs a chat that ends with a user turn; drop the assistant's last turn")
    asked, marks = mark_sentences(chat, completion)
    return GoldCount(asked, marks.count("right"), marks.count("wrong"), marks.count("nonsense"))


def mark_sentences(chat: Chat, completion: str) -> tuple[int, list[Mark]]:
    """How many facts the chat asks for, and what each sentence of the completion is.

    A sentence ends with its full stop, exclamation or question mark, or at the end of its line.
    """
    asked = _asked(tuple(message.content for message in chat if message.role == "user"))
    stated: set[Fact] = set()
    marks: list[Mark] = []
    for sentence in _SENTENCE.findall(completion):
        fact, mark = _read(sentence)
        if fact is not None:
            if fact in stated:
                mark = "repeated"
            elif mark == "true" and fact in asked:
                mark = "right"
            stated.add(fact)
        marks.append(mark)
    return len(asked), marks


@functools.lru_cache(maxsize=4096)  # the candidates of a prompt come one after the other
def _asked(user_turns: tuple[str, ...]) -> frozenset[Fact]:
    return frozenset(read_request(user_turns).facts())


@functools.lru_cache(maxsize=65_536)  # more than this world has sentences; what is nonsense may be anything
def _read(sentence: str) -> tuple[Fact | None, Mark]:
    """The fact that a sentence states, and what it is by itself."""
    text = sentence.strip()
    fact = read_statement(text)
    if fact is None:
        return None, "blank" if not text else "filler" if text in FILLERS else "nonsense"
    return fact, "true" if holds(fact) else "wrong"


def gold_quality(chat: Chat, completion: str) -> float:
    """Gold quality of `completion` as the answer to `chat`, in [-1, 1]."""
    return count_facts(chat, completion).quality
