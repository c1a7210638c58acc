"""One constraint as a record, how it travels beside its prompt, and gold: the share of constraints a text meets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from aipo.constraints import checks


@dataclass(frozen=True)
class Constraint:
    """What a text is asked to do. Which fields a kind reads is said in `CHECKS`."""

    kind: str
    words: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    count: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in CHECKS:
            raise ValueError(f"constraint kind must be one of {', '.join(CHECKS)}, got {self.kind!r}")
        needs_words, needs_count = self.kind in NEED_WORDS, self.kind in NEED_COUNT
        if bool(self.words) != needs_words or not all(isinstance(word, str) and word for word in self.words):
            expected = "words" if needs_words else "no words"
            raise ValueError(f"constraint {self.kind}: expected {expected}, got {self.words!r}")
        if not all(isinstance(word, str) and word for word in self.rejected):
            raise ValueError(f"constraint {self.kind}: expected rejected words, got {self.rejected!r}")
        if type(self.count) is not int or (self.count < 1 if needs_count else self.count != 0):
            expected = "a count of at least 1" if needs_count else "no count"
            raise ValueError(f"constraint {self.kind}: expected {expected}, got {self.count!r}")

    def is_met(self, text: str) -> bool:
        """Whether the text does it. A blank text does nothing."""
        return bool(text.strip()) and CHECKS[self.kind](text, self)


Check = Callable[[str, Constraint], bool]

CHECKS: Mapping[str, Check] = {
    "sentences": lambda text, asked: checks.has_sentences(text, asked.count),
    "use": lambda text, asked: all(checks.uses(text, word) for word in asked.words),
    "avoid": lambda text, asked: all(checks.avoids(text, word) for word in asked.words),
    "opening": lambda text, asked: checks.opens_with(text, asked.words[0]),
    "ending": lambda text, asked: checks.ends_with(text, asked.words[0]),
    "bullets": lambda text, asked: checks.has_bullets(text, asked.count),
    "json": lambda text, asked: checks.is_json_with_keys(text, asked.words),
    "lower": lambda text, asked: checks.is_lower_case(text),
    "upper": lambda text, asked: checks.is_upper_case(text),
    "quoted": lambda text, asked: checks.is_quoted(text),
    "fact": lambda text, asked: checks.states(text, asked.words, asked.rejected),
    "numbered": lambda text, asked: checks.has_numbered_items(text, asked.count),
    "paragraphs": lambda text, asked: checks.has_paragraphs(text, asked.count),
    "no_comma": lambda text, asked: checks.has_no_comma(text),
    "title": lambda text, asked: checks.has_title(text),
    "postscript": lambda text, asked: checks.has_postscript(text),
}
NEED_WORDS = frozenset({"use", "avoid", "opening", "ending", "json", "fact"})
NEED_COUNT = frozenset({"sentences", "bullets", "numbered", "paragraphs"})


def share_met(constraints: Sequence[Constraint], text: str) -> float:
    """Gold: the share of the constraints that the text meets, in [0, 1]. ValueError where there is none."""
    if not constraints:
        raise ValueError("expected at least one constraint, got none")
    return sum(constraint.is_met(text) for constraint in constraints) / len(constraints)


def meta_of(constraints: Sequence[Constraint]) -> str:
    """The constraints as JSON, for `Prompt.meta`: a list of objects, each without its empty fields."""
    rows = [
        {field.name: value for field in fields(found) if (value := getattr(found, field.name))} for found in constraints
    ]
    return json.dumps(rows, ensure_ascii=False)


def constraints_of(meta: str) -> tuple[Constraint, ...]:
    """The inverse of `meta_of`. ValueError for anything else."""
    try:
        rows = json.loads(meta)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"constraints: expected a JSON list, got {meta[:80]!r} ({error})") from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"constraints: expected a JSON list with at least one constraint, got {meta[:80]!r}")
    return tuple(_constraint(row) for row in rows)


def _constraint(row: Any) -> Constraint:
    known = {field.name for field in fields(Constraint)}
    if not isinstance(row, dict) or "kind" not in row or not set(row) <= known:
        raise ValueError(f"constraints: expected objects with a kind and {', '.join(sorted(known))}, got {row!r:.80}")
    for name in ("words", "rejected"):
        if not isinstance(row.get(name, []), list):
            raise ValueError(f"constraint {row['kind']!r:.40}: expected a list of {name}, got {row[name]!r:.80}")
    lists = {name: tuple(row[name]) for name in ("words", "rejected") if name in row}
    return Constraint(**{**row, **lists})
