"""Damaged inputs, deterministic by seed."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

PIECES = (
    "[[", "]]", "[", "]", "7", "10", "1" * 50, ".", "A", "B", ">", "<", "=", "m", "M", "Score:", "*", " ", "\n", "\n\n",
    '"""', "{", "}", ",", ":", "null", "-", "e999", "\\ud800", "\0", "é", "\ufeff", "\u2028", "Infinity", "NaN", "[]",
    "<|The Start of Assistant A's Answer|>\n", "\n<|The End of Assistant A's Answer|>\n\n", "### User:\n",
    "<|The Start of Assistant B's Conversation with User|>\n\n### User:\n", "[The Start of Assistant's Answer]\n",
    "[The Start of Reference Answer]\n", "\n[The End of Reference Answer]\n\n", '"model_identifier": "m",',
)  # fmt: skip
WEIGHT_OF_LONG = 0.002


def damaged_text(rng: random.Random, good: Sequence[str]) -> str:
    """One of `good` with a few cuts, copies and insertions; sometimes one piece, or two, very often."""
    if rng.random() < WEIGHT_OF_LONG:
        unit = "".join(rng.choices(PIECES, k=rng.randint(1, 2)))
        text = unit * (rng.choice((1_000, 20_000)) // len(unit))
        return rng.choice(good)[: rng.randint(0, 400)] + text if rng.random() < 0.5 else text
    text = rng.choice(good) if rng.random() < 0.9 else ""
    for _ in range(rng.randint(1, 5)):
        place = rng.randint(0, len(text))
        other = rng.randint(place, min(len(text), place + 40))
        action = rng.random()
        if action < 0.5:
            text = text[:place] + rng.choice(PIECES) * rng.choice((1, 1, 1, 3)) + text[place:]
        elif action < 0.8:
            text = text[:place] + text[other:]
        else:
            text = text[:other] + text[place:]
    return text


def damaged_bytes(rng: random.Random, good: Sequence[bytes]) -> bytes:
    """One of `good` with bytes flipped, cut, copied or put in."""
    data = bytearray(rng.choice(good))
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        place = rng.randrange(len(data) + 1)
        action = rng.random()
        if action < 0.4 and place < len(data):
            data[place] = rng.randrange(256)
        elif action < 0.6:
            del data[place : place + rng.randint(1, 40)]
        elif action < 0.8:
            data[place:place] = rng.choice(PIECES).encode("utf-8")
        else:
            data[place:place] = data[place : place + rng.randint(1, 60)]
    return bytes(data)


def replaced_values(rng: random.Random, value: object, odd: Sequence[object]) -> object:
    """A JSON value with one value somewhere in it replaced by an odd one, or taken away."""
    places = list(_places(value))
    holder, key = rng.choice(places)
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = copy.deepcopy(rng.choice(odd))
    return value


def _places(value: object) -> Iterator[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)


@dataclass
class Tally:
    """What came of the inputs. `slow`: above 1 s, with the seconds."""

    accepted: int = 0
    refused: int = 0
    untyped: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def try_(self, call, value: object, typed: tuple[type[Exception], ...]) -> None:
        """Call, and note how it ends. An exception that is none of `typed` is untyped."""
        started = perf_counter()
        try:
            call(value)
        except typed as error:
            self.refused += 1
            if type(error) not in typed and not isinstance(error, (OSError, ValueError, RuntimeError)):
                self.untyped.append(f"{type(error).__name__}: {str(error)[:100]} for {value!r:.200}")
        except Exception as error:
            self.untyped.append(f"{type(error).__name__}: {str(error)[:100]} for {value!r:.200}")
        else:
            self.accepted += 1
        seconds = perf_counter() - started
        self.slowest_s = max(self.slowest_s, seconds)
        if seconds > 1:
            self.slow.append(f"{seconds:.1f} s for {value!r:.200}")

    def check(self) -> None:
        """No untyped exception, nothing slow."""
        print(f"{self.accepted} accepted, {self.refused} refused, slowest {self.slowest_s:.3f} s")
        assert not self.untyped, self.untyped[:5]
        assert not self.slow, self.slow[:5]
