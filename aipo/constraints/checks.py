"""Checks of a text, as pure functions: True where the text does what was asked.

Where IFEval (arXiv 2311.07911) defines the same constraint, the verdict is its own; each docstring names it. A text
without a visible character does nothing that was asked (`share_met`), as in IFEval's evaluation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence

# A sentence ends at marks before white space or the end: 3.5 is one number. Quotes and brackets may stand between.
# These say what IFEval's expressions say, and are never slower than the text is long, whatever a policy repeats.
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++[\"')\]]*+(?:\s++|$)")
_STAR_ITEM = re.compile(r"^[^\S\n]*+\*[^\*].*$", re.MULTILINE)
_DASH_ITEM = re.compile(r"^[^\S\n]*+-.*$", re.MULTILINE)
_NUMBERED_ITEM = re.compile(r"^[ \t]*+(\d++)[.)][ \t]++\S", re.MULTILINE)
_POSTSCRIPT = re.compile(r"p\.\s?s\.")
_FENCES = ("```json", "```Json", "```JSON", "```")


def count_sentences(text: str) -> int:
    """Stretches of text with a letter or digit, divided at . ! or ?. "Mr. Hill" counts as the end of one."""
    return sum(any(character.isalnum() for character in part) for part in _SENTENCE_END.split(text))


def has_sentences(text: str, count: int) -> bool:
    """Exactly `count` sentences, however long."""
    return count_sentences(text) == count


def uses(text: str, word: str) -> bool:
    """The word is there, in either case and as part of a longer one: IFEval's keywords:existence."""
    return re.search(re.escape(word), text, re.IGNORECASE) is not None


def avoids(text: str, word: str) -> bool:
    """The word is not there, in either case, as a word of its own: IFEval's keywords:forbidden_words."""
    return re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) is None


def opens_with(text: str, phrase: str) -> bool:
    """The text begins with the phrase, in either case; white space and quotation marks before it are let pass."""
    return re.match(rf"[\s\"']*{re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None


def ends_with(text: str, phrase: str) -> bool:
    """The text ends with the phrase, in either case, quotation marks aside: IFEval's startend:end_checker."""
    return text.strip().strip('"').lower().endswith(phrase.strip().lower())


def has_bullets(text: str, count: int) -> bool:
    """Exactly `count` lines that begin with * or -: IFEval's detectable_format:number_bullet_lists."""
    return len(_STAR_ITEM.findall(text)) + len(_DASH_ITEM.findall(text)) == count


def has_numbered_items(text: str, count: int) -> bool:
    """The lines that begin with a number and . or ) are numbered 1, 2, ... `count`, in order."""
    return [int(number) for number in _NUMBERED_ITEM.findall(text) if len(number) < 9] == list(range(1, count + 1))


def is_json_with_keys(text: str, keys: Iterable[str]) -> bool:
    """The whole text is one JSON object with exactly these keys, a Markdown fence aside; no value is empty."""
    value = text.strip()
    for fence in _FENCES:
        value = value.removeprefix(fence)
    try:
        found = json.loads(value.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and set(found) == set(keys) and all(str(item).strip() for item in found.values())


def is_lower_case(text: str) -> bool:
    """No capital letter: IFEval's change_case:english_lowercase, its language detection aside."""
    return text.islower()


def is_upper_case(text: str) -> bool:
    """No small letter: IFEval's change_case:english_capital, its language detection aside."""
    return text.isupper()


def is_quoted(text: str) -> bool:
    """The whole text is in double quotation marks: IFEval's startend:quotation."""
    value = text.strip()
    return len(value) > 1 and value[0] == '"' and value[-1] == '"'


def states(text: str, accepted: Sequence[str], rejected: Sequence[str]) -> bool:
    """One of the accepted words is there as a word of its own, in either case, and none of the rejected ones.

    The rejected ones stand in the same passage, so copying the passage states nothing.
    """
    return any(not avoids(text, word) for word in accepted) and all(avoids(text, word) for word in rejected)


def has_no_comma(text: str) -> bool:
    """No comma: IFEval's punctuation:no_comma."""
    return "," not in text


def has_paragraphs(text: str, count: int) -> bool:
    """`count` paragraphs divided by a line of ***: IFEval's length_constraints:number_paragraphs."""
    parts = re.split(r"\s?\*\*\*\s?", text)
    inner = parts[1:-1] if len(parts) > 1 else []
    return all(part.strip() for part in inner) and sum(bool(part.strip()) for part in parts) == count


def has_title(text: str) -> bool:
    """A title in double angular brackets, <<such as this>>: IFEval's detectable_format:title."""
    return any(title.lstrip("<").rstrip(">").strip() for title in _titles(text))


def _titles(text: str) -> Iterator[str]:
    """What `<<[^\\n]+>>` finds: of every line, from its first << to its last >>."""
    for line in text.split("\n"):
        begin, end = line.find("<<"), line.rfind(">>")
        if 0 <= begin < end - 2:
            yield line[begin : end + 2]


def has_postscript(text: str) -> bool:
    """A postscript that begins with P.S.: IFEval's detectable_content:postscript for that marker."""
    return _POSTSCRIPT.search(text.lower()) is not None
