"""A policy that falls into repeating one character is graded as quickly as any other, and as it was before."""

from __future__ import annotations

import random
import re
import time

import pytest

from aipo.benchmarks.token_counters import estimate_cl100k
from aipo.constraints import checks
from aipo.data.self_instruct import parse_items

LENGTH = 40_000
UNITS = ("!", "\n", "<<", " ", "\t", "p.", "\n* ", "*", "1", "\"'", '."', "{", "[1,", "\n1", "- ", "***", "\r\n", ". ")
WORK = {
    "sentences": checks.count_sentences,
    "bullets": lambda text: checks.has_bullets(text, 1),
    "numbers": lambda text: checks.has_numbered_items(text, 1),
    "title": checks.has_title,
    "postscript": checks.has_postscript,
    "paragraphs": lambda text: checks.has_paragraphs(text, 2),
    "opening": lambda text: checks.opens_with(text, "yes"),
    "json": lambda text: checks.is_json_with_keys(text, ["a"]),
    "cl100k": estimate_cl100k,
    "items": parse_items,
}


@pytest.mark.parametrize("name", WORK)
def test_a_repeated_character_takes_no_time(name: str) -> None:
    for unit in UNITS:
        for text in (unit * (LENGTH // len(unit)), unit * (LENGTH // len(unit)) + "x"):
            began = time.process_time()
            WORK[name](text)
            assert time.process_time() - began < 0.5, (name, unit)


def test_the_verdicts_are_those_of_the_plain_expressions() -> None:
    """Random texts of the characters that matter, against the expressions as IFEval and its like write them."""
    rng = random.Random(0)
    for _ in range(20_000):
        text = "".join(rng.choices(".!?\"')] \n\t\r*-<>pPsS1a\x0b", k=rng.randint(0, 14)))
        parts = re.split(r"[.!?]+[\"')\]]*(?:\s+|$)", text)
        assert checks.count_sentences(text) == sum(any(one.isalnum() for one in part) for part in parts), text
        stars, dashes = (re.findall(form, text, re.MULTILINE) for form in (r"^\s*\*[^\*].*$", r"^\s*-.*$"))
        assert checks.has_bullets(text, len(stars) + len(dashes)), text
        titles = re.findall(r"<<[^\n]+>>", text)
        assert checks.has_title(text) == any(title.lstrip("<").rstrip(">").strip() for title in titles), text
        postscript = re.search(r"\s*p\.\s?s\..*$", text.lower(), re.MULTILINE)
        assert checks.has_postscript(text) == (postscript is not None), text
        items = [item.strip() for item in re.split(r"(?:^|\n)\s*\d+\.(?!\d)", text)]
        assert parse_items(text) == items, text
        lines = re.findall(r"\s*\n\s*", text)
        plain = re.findall(r"[^\W\d_]+|\d{1,3}|[^\w\s]+|_+", text)
        assert estimate_cl100k(text) == round(0.967 * (len(plain) + len(lines))), text
