"""Verdicts on instructions by IFEval's and IFBench's own checkers, which the package if-verifiable brings.

How a text is put to a checker follows `evaluation_lib.py` of both (google-research, instruction_following_eval;
allenai/IFBench): a strict verdict is on the text as it is, a loose one on any of eight versions without its first line,
its last line or its asterisks. A blank text follows nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any

from aipo.components import missing_package

CHECKERS = ("ifeval", "ifbench")
NLTK_DATA: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ifeval": ("tokenizers/punkt_tab",),
        "ifbench": ("tokenizers/punkt_tab", "corpora/stopwords", "taggers/averaged_perceptron_tagger_eng"),
    }
)
"""What the checkers read with NLTK. Not part of the package, and never fetched here."""
EXTRA = "instructions"


class MissingCheckers(RuntimeError):
    """The checkers, or the data they read, are not on this machine."""


@dataclass(frozen=True)
class Instructed:
    """A question as both benchmarks' files have it: a prompt, and the instructions in it with their arguments."""

    question_id: str
    prompt: str
    instructions: tuple[str, ...]
    """For example `keywords:existence`."""
    arguments: tuple[Mapping[str, Any], ...]
    """One mapping for each instruction."""


@dataclass(frozen=True)
class Verdicts:
    """Whether each instruction of a question is followed, in their order."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def missing_checkers(checkers: str) -> list[str]:
    """The packages and the NLTK data that are not there, each with its remedy. Downloads nothing."""
    if lines := _missing_packages(checkers):
        return lines
    import nltk

    absent = []
    for path in NLTK_DATA[checkers]:
        try:
            nltk.data.find(path)
        except LookupError:
            absent.append(path.split("/")[1])
    if not absent:
        return []
    return [
        f"NLTK data for {checkers}: {', '.join(absent)}. With a network: python -m nltk.downloader {' '.join(absent)}. "
        "Without: unpack them into a folder named by NLTK_DATA (tokenizers/, corpora/, taggers/)"
    ]


def _missing_packages(checkers: str) -> list[str]:
    # IFBench's count syllables with syllapy, which reads its table with a part of setuptools that is gone since 82.
    needed = ("if_verifiable", "pkg_resources") if checkers == "ifbench" else ("if_verifiable",)
    return [line for module in needed for line in missing_package(module, EXTRA)]


def verdicts(checkers: str, question: Instructed, text: str) -> Verdicts:
    """The strict and the loose verdict on every instruction of `question`. MissingCheckers, or ValueError for an
    instruction that these checkers do not know."""
    registry = _registry(checkers)
    if unknown := sorted(set(question.instructions) - set(registry)):
        raise ValueError(
            f"question {question.question_id}: {checkers} has no checker for {', '.join(unknown)}; it knows "
            f"{', '.join(sorted(registry))}"
        )
    try:
        with _repeatable():
            return _verdicts(registry, question, text)
    except LookupError as error:  # NLTK's, for data that is not there
        if lines := missing_checkers(checkers):
            raise MissingCheckers("; ".join(lines)) from error
        raise


def _verdicts(registry: Mapping[str, Any], question: Instructed, text: str) -> Verdicts:
    from if_verifiable.common import get_loose_transformations

    versions = [version for version in get_loose_transformations(text) if version.strip()]
    strict, loose = [], []
    for name, given in zip(question.instructions, question.arguments, strict=True):
        checker = registry[name](name)
        checker.build_description(**{key: value for key, value in given.items() if value is not None})
        if "prompt" in (checker.get_instruction_args() or {}):
            checker.build_description(prompt=question.prompt)
        strict.append(bool(text.strip() and checker.check_following(text)))
        loose.append(any(checker.check_following(version) for version in versions))
    return Verdicts(tuple(strict), tuple(loose))


def _registry(checkers: str) -> Mapping[str, Any]:
    """Instruction id -> class of its checker."""
    if lines := _missing_packages(checkers):
        raise MissingCheckers("; ".join(lines))
    with _no_downloads():
        return import_module(f"if_verifiable.{checkers}.instructions_registry").INSTRUCTION_DICT


@contextmanager
def _no_downloads() -> Iterator[None]:
    """Importing the checkers asks NLTK to fetch an old form of its data, which they never read."""
    import nltk

    fetch = nltk.download
    nltk.download = lambda *names, **options: False
    try:
        yield
    finally:
        nltk.download = fetch


@contextmanager
def _repeatable() -> Iterator[None]:
    """Language detection draws numbers, and a checker may: the same text always gets the same verdict."""
    from langdetect import DetectorFactory

    state, seed = random.getstate(), DetectorFactory.seed
    random.seed(0)
    DetectorFactory.seed = 0
    try:
        yield
    finally:
        random.setstate(state)
        DetectorFactory.seed = seed


def instructed(rows: Sequence[Mapping[str, Any]], where: str) -> tuple[Instructed, ...]:
    """Questions from rows of the benchmarks' own files: key, prompt, instruction_id_list, kwargs. ValueError that names
    the first row that is none, or a repeated key."""
    found: dict[str, Instructed] = {}
    for number, row in enumerate(rows, start=1):
        try:
            names, given = tuple(row["instruction_id_list"]), tuple(row["kwargs"])
            question = Instructed(str(row["key"]), row["prompt"], names, given)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{where}, row {number}: expected key, prompt, instruction_id_list and kwargs ({error!r})"
            ) from error
        if not names or len(names) != len(given):
            raise ValueError(f"{where}, row {number}: {len(names)} instructions with {len(given)} kwargs")
        if found.setdefault(question.question_id, question) is not question:
            raise ValueError(f"{where}, row {number}: key {question.question_id} is there twice")
    return tuple(found.values())
