"""Prompts made by code: a request, and two to four constraints that can be met together and that code can check."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from aipo.constraints.constraint import Constraint
from aipo.constraints.words import FIRST_NUMBER, HELD_OUT, NUMBERS, TRAINING, Words

TRAINING_KINDS = (
    "sentences", "use", "avoid", "opening", "ending", "bullets", "json", "lower", "upper", "quoted", "fact",
)  # fmt: skip
HELD_OUT_KINDS = ("numbered", "paragraphs", "no_comma", "title", "postscript")
"""Kinds that no training prompt has."""

_STRUCTURES = ("sentences", "bullets", "json", "numbered", "paragraphs")
_CLASHES = (
    _STRUCTURES,
    ("lower", "upper", "json"),
    ("quoted", "json"),
    ("quoted", "bullets"),
    ("quoted", "numbered"),
    ("quoted", "title"),
    ("quoted", "paragraphs"),
    ("opening", "json"),
    ("ending", "json"),
    ("opening", "title"),
    ("opening", "bullets"),
    ("opening", "numbered"),
    ("no_comma", "json"),
    ("title", "json"),
    ("postscript", "json"),
    ("postscript", "sentences"),
    ("postscript", "ending"),
    ("postscript", "quoted"),
    ("title", "sentences"),
    ("ending", "sentences"),
    ("fact", "numbered"),
)
"""Of each tuple, a prompt has one kind at most. No text could meet both, or a reader could not tell how."""

_WORDINGS: Mapping[str, tuple[str, ...]] = {
    "sentences": ("Answer in exactly {count} {sentences}.", "Your answer must have exactly {count} {sentences}."),
    "use": ("Use the words {words}.", "Your answer must contain the words {words}."),
    "avoid": ("Do not use the word {words}.", "The word {words} must not appear in your answer."),
    "opening": ('Begin your answer with "{phrase}".', 'The first words of your answer must be "{phrase}".'),
    "ending": ('End your answer with "{phrase}"', 'The last words of your answer must be "{phrase}"'),
    "bullets": ("Give a list of exactly {count} bullet points, each beginning with *.",),
    "json": ("Give the whole answer as one JSON object with the keys {words}, and no other text.",),
    "lower": ("Use lowercase letters only.", "Write everything in lowercase, with no capital letters."),
    "upper": ("Use CAPITAL LETTERS only.", "Write everything in capital letters."),
    "quoted": ("Put your whole answer in double quotation marks.",),
    "numbered": ("Give a list of exactly {count} items, numbered 1., 2. and so on, each on a line of its own.",),
    "paragraphs": ("Write exactly {count} paragraphs, divided by a line with ***.",),
    "no_comma": ("Do not use any commas.",),
    "title": ("Put a title above it, in double angular brackets such as <<title>>.",),
    "postscript": ("Add a postscript at the end that begins with P.S.",),
}


@dataclass(frozen=True)
class Task:
    """A prompt's text, what it asks for, and whether a kind of constraint is among it that training never has."""

    text: str
    constraints: tuple[Constraint, ...]
    has_new_kind: bool


def draw_tasks(n: int, seed: int, *, held_out: bool) -> list[Task]:
    """`n` different tasks of one side of the split, the same for equal arguments.

    Held-out tasks use held-out words alone, and every second one has a kind of constraint that training never has.
    """
    rng = random.Random(f"constraints {'held out' if held_out else 'training'} {seed}")
    found: dict[str, Task] = {}
    while len(found) < n:
        task = _draw(rng, HELD_OUT if held_out else TRAINING, new_kind=held_out and len(found) % 2 == 1)
        found.setdefault(task.text, task)
    return list(found.values())


def _draw(rng: random.Random, words: Words, *, new_kind: bool) -> Task:
    wanted = rng.randint(2, 4)
    kinds = [rng.choice(HELD_OUT_KINDS)] if new_kind else []
    offered = list(TRAINING_KINDS + (HELD_OUT_KINDS if new_kind else ()))
    rng.shuffle(offered)
    for kind in offered:
        if len(kinds) == wanted:
            break
        if kind not in kinds and not any(kind in clash and any(k in clash for k in kinds) for clash in _CLASHES):
            kinds.append(kind)
    request = rng.choice(words.requests).format(rng.choice(words.topics))
    constraints: list[Constraint] = []
    if "fact" in kinds:
        kinds.remove("fact")
        request, fact = _passage(rng, words)
        constraints.append(fact)
    lines = [request]
    for kind in kinds:
        constraint = _constraint(rng, words, kind)
        constraints.append(constraint)
        lines.append(_worded(rng, constraint))
    return Task(" ".join(lines), tuple(constraints), any(found.kind in HELD_OUT_KINDS for found in constraints))


def _constraint(rng: random.Random, words: Words, kind: str) -> Constraint:
    if kind == "use":
        return Constraint(kind, tuple(rng.sample(words.keywords, rng.randint(1, 2))))
    if kind == "json":
        return Constraint(kind, tuple(rng.sample(words.keys, rng.randint(2, 3))))
    if kind == "avoid":
        return Constraint(kind, (rng.choice(words.avoided),))
    if kind == "opening":
        return Constraint(kind, (rng.choice(words.openings),))
    if kind == "ending":
        return Constraint(kind, (rng.choice(words.endings),))
    if kind == "sentences":
        return Constraint(kind, count=rng.randint(1, 4))
    if kind in ("bullets", "numbered"):
        return Constraint(kind, count=rng.randint(2, 5))
    return Constraint(kind, count=rng.randint(2, 3)) if kind == "paragraphs" else Constraint(kind)


def _worded(rng: random.Random, asked: Constraint) -> str:
    quoted = [f'"{word}"' for word in asked.words]
    text = rng.choice(_WORDINGS[asked.kind])
    if asked.kind == "use" and len(quoted) == 1:
        text = text.replace("words", "word", 1)
    return text.format(
        count=asked.count,
        sentences="sentence" if asked.count == 1 else "sentences",
        words=" and ".join(([", ".join(quoted[:-1])] if quoted[1:] else []) + quoted[-1:]),
        phrase=asked.words[0] if asked.words else "",
    )


def _passage(rng: random.Random, words: Words) -> tuple[str, Constraint]:
    """Two people's numbers of a thing, and a question about one of them. The other's number is a wrong answer."""
    (first, second), thing = rng.sample(words.names, 2), rng.choice(words.objects)
    place, other_place = rng.sample(words.places, 2)
    here, there = rng.sample(range(len(NUMBERS)), 2)
    passage = f"{first} has {NUMBERS[here]} {thing} at {place}. {second} has {NUMBERS[there]} {thing} at {other_place}."
    asked_first = rng.random() < 0.5
    name, right, wrong = (first, here, there) if asked_first else (second, there, here)
    fact = Constraint("fact", _forms(right), rejected=_forms(wrong))
    return f"{passage} How many {thing} does {name} have? Answer for {name} alone.", fact


def _forms(number: int) -> tuple[str, ...]:
    return NUMBERS[number], str(number + FIRST_NUMBER)
