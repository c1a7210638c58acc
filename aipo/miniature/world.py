"""The miniature's world: 32 people, 6 attributes of 8 values each, and every sentence that can be said about them.

All nouns are common nouns in lower case and only sentence-initial words are capitalised, so that Self-Instruct's
normalisation (first letter upper-case, the rest lower-case) leaves every sentence as it is. The world is a constant:
no dial and no seed changes a fact, so gold quality means the same in every run.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

WORLD_VERSION = "1"
"""Raised when a change of the world changes a question, a document, a reference answer or a gold score."""

PEOPLE = tuple(
    "baker banker barber butcher captain carpenter dancer doctor farmer gardener hunter judge king lawyer mason "
    "merchant miller nurse painter pilot poet potter priest queen ranger sailor scholar smith soldier tailor "
    "teacher weaver".split()
)

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "pet": ("cat", "dog", "goat", "hen", "horse", "parrot", "rabbit", "turtle"),
    "home": ("castle", "desert", "forest", "harbor", "island", "mountain", "valley", "village"),
    "food": ("bread", "cheese", "fish", "pasta", "pie", "rice", "salad", "soup"),
    "color": ("black", "blue", "green", "orange", "purple", "red", "white", "yellow"),
    "instrument": ("cello", "drum", "flute", "guitar", "harp", "piano", "trumpet", "violin"),
    "drink": ("cider", "cocoa", "coffee", "juice", "milk", "tea", "water", "wine"),
}

SHORT_STATEMENTS: dict[str, str] = {
    "pet": "The {person} keeps a {value}.",
    "home": "The {person} lives near the {value}.",
    "food": "The {person} eats {value}.",
    "color": "The {person} wears {value}.",
    "instrument": "The {person} plays the {value}.",
    "drink": "The {person} drinks {value}.",
}
LONG_STATEMENT = "The {attribute} of the {person} is {value}."

FILLERS = (
    "Thank you for asking.",
    "That is a good question.",
    "Let me think about it.",
    "I am happy to help.",
    "I hope this helps you.",
    "Here is what I know.",
    "Many people ask about this.",
    "Everybody in town knows this.",
    "Please ask me again at any time.",
    "It was a sunny day in our town.",
    "It is nice to talk about our people.",
    "As far as I know, this is well known.",
)

PHRASINGS = (
    "What {be} {attributes} of {people}?",
    "Tell me {attributes} of {people}.",
    "Please list {attributes} of {people}.",
    "I want to know {attributes} of {people}.",
    "Can you name {attributes} of {people}?",
    "Describe {people} by {attributes}.",
    "For {people}, give me {attributes}.",
    "When you think of {people}, what {be} {attributes}?",
)

FOLLOW_UPS = ("And {subject}?", "What about {subject}?", "Now tell me about {subject}.")

DIFFICULTY_WEIGHTS = {1: 0.25, 2: 0.25, 3: 0.25, 4: 0.25}
"""How often a prompt asks for so many facts."""

HELD_OUT_SHARE = 0.2
"""Share of all fact sets that only benchmark questions ask for."""

WORD_PATTERN = r"\n| ?\w+|[^\w\s]|\s"
"""A token: a newline, a word with the space before it (as in byte-level BPE, so ids decode to the very text they came
from), or one other character."""
_WORD = re.compile(WORD_PATTERN)


def split_words(text: str) -> list[str]:
    """The tokens of `text`, by `WORD_PATTERN`. Joined they are the text again."""
    return _WORD.findall(text)


def count_words(text: str) -> int:
    """Tokens of the miniature's tokenizer in `text`, special tokens aside."""
    return len(split_words(text))


class Fact(NamedTuple):
    """That the `attribute` of `person` is `value`: true or not."""

    person: str
    attribute: str
    value: str


@dataclass(frozen=True)
class Request:
    """What a prompt asks for: every attribute of every person named, in the order named."""

    people: tuple[str, ...]
    attributes: tuple[str, ...]

    @property
    def n_facts(self) -> int:
        return len(self.people) * len(self.attributes)

    def facts(self) -> list[Fact]:
        """The true facts asked for."""
        return [true_fact(person, attribute) for person in self.people for attribute in self.attributes]

    @property
    def held_out(self) -> bool:
        """Whether only benchmarks may ask for this set of facts. Word order and phrasing do not matter."""
        key = "|".join((*sorted(self.people), *sorted(self.attributes)))
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") < HELD_OUT_SHARE * 2**32


@functools.cache
def _truth() -> dict[tuple[str, str], str]:
    """Every value of an attribute belongs to four people, drawn once and for all."""
    rng = random.Random("miniature world")
    truth = {}
    for attribute, values in ATTRIBUTES.items():
        drawn = list(values) * (len(PEOPLE) // len(values))
        rng.shuffle(drawn)
        truth.update({(person, attribute): value for person, value in zip(PEOPLE, drawn, strict=True)})
    return truth


def true_fact(person: str, attribute: str) -> Fact:
    """The fact about this attribute of this person."""
    return Fact(person, attribute, _truth()[person, attribute])


def holds(fact: Fact) -> bool:
    """Whether the fact is true in this world."""
    return _truth()[fact.person, fact.attribute] == fact.value


def state(fact: Fact, *, long_form: bool = False) -> str:
    """The sentence that states the fact."""
    template = LONG_STATEMENT if long_form else SHORT_STATEMENTS[fact.attribute]
    return template.format(person=fact.person, attribute=fact.attribute, value=fact.value)


def _listing(nouns: Sequence[str]) -> str:
    named = [f"the {noun}" for noun in nouns]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def phrase(request: Request, phrasing: str) -> str:
    """The prompt that asks for `request` in one of `PHRASINGS`."""
    return phrasing.format(
        be="is" if request.n_facts == 1 else "are",
        attributes=_listing(request.attributes),
        people=_listing(request.people),
    )


def draw_request(rng: random.Random, *, held_out: bool) -> Request:
    """A random request of 1 to 4 facts from the pool's side of the split, or from the benchmarks'."""
    while True:
        n_facts = rng.choices(list(DIFFICULTY_WEIGHTS), weights=list(DIFFICULTY_WEIGHTS.values()))[0]
        # Two people share an even number of attributes now and then; else one person is asked about.
        n_people = 2 if n_facts % 2 == 0 and rng.random() < 0.3 else 1
        request = Request(
            people=tuple(rng.sample(PEOPLE, n_people)),
            attributes=tuple(rng.sample(list(ATTRIBUTES), n_facts // n_people)),
        )
        if request.held_out == held_out:
            return request


def draw_prompt(rng: random.Random, *, held_out: bool) -> tuple[Request, str]:
    """A random request and one of its phrasings."""
    request = draw_request(rng, held_out=held_out)
    return request, phrase(request, rng.choice(PHRASINGS))


def draw_follow_up(rng: random.Random, first: Request) -> tuple[Request, str]:
    """A second turn that leans on the first: another attribute of the same people, or another person."""
    if rng.random() < 0.5:
        other = rng.choice([attribute for attribute in ATTRIBUTES if attribute not in first.attributes])
        request = Request(first.people, (other,))
    else:
        other = rng.choice([person for person in PEOPLE if person not in first.people])
        request = Request((other,), first.attributes)
    return request, rng.choice(FOLLOW_UPS).format(subject=f"the {other}")


def read_request(user_turns: Sequence[str]) -> Request:
    """What the last user turn asks for: people and attributes it leaves unsaid are those of the turn before.

    Only nouns are read, so any wording counts. Either side of the request is empty when no turn names one.
    """
    people: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    for text in user_turns:
        words = re.findall(r"\w+", text.lower())
        people = tuple(dict.fromkeys(word for word in words if word in PEOPLE)) or people
        attributes = tuple(dict.fromkeys(word for word in words if word in ATTRIBUTES)) or attributes
    return Request(people, attributes)


@functools.cache
def _statements() -> dict[str, Fact]:
    return {state(fact, long_form=long_form): fact for fact in _every_fact() for long_form in (False, True)}


def _every_fact() -> Iterator[Fact]:
    for person in PEOPLE:
        for attribute, values in ATTRIBUTES.items():
            for value in values:
                yield Fact(person, attribute, value)


def read_statement(sentence: str) -> Fact | None:
    """The fact this sentence states, true or not; None when it states none."""
    return _statements().get(sentence)


def all_words() -> list[str]:
    """Every token that prompts, statements and fillers can contain, sorted."""
    words: set[str] = set()
    subjects = (*PEOPLE, *ATTRIBUTES)
    for be in ("is", "are"):
        for phrasing in PHRASINGS:
            for noun in subjects:
                listing = f"the {noun}, the {noun} and the {noun}"
                words.update(split_words(phrasing.format(be=be, attributes=listing, people=listing)))
    for follow_up in FOLLOW_UPS:
        words.update(split_words(follow_up.format(subject="the pet")))
    for sentence in (*_statements(), *FILLERS):
        # A sentence opens a completion, or follows another after a space.
        words.update(split_words(sentence))
        words.update(split_words(f" {sentence}"))
    return sorted(words)
