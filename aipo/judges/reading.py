"""What a rendered judge prompt asks: which verdict, about which answers to which conversation.

Reads the markers of the official templates (FastChat 0.2.36, alpaca_eval 0.6.6, arena-hard-auto at efc012e), so any
prompt with their structure will do, whatever words are around them. Answers may hold such markers themselves: the
question ends at the first marker that can end it, an answer at the last. The first of two turns ends where a second
question follows that both sides were asked, else where the first that looks like one follows: a lone answer that goes
on for the user, in the same words as the template, cannot be told from a turn. Every text is looked through a fixed
number of times, however many markers it holds.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Literal

from aipo.judges.judge import JudgeError
from aipo.records import Chat, Message

_ALPACA_QUESTION, _ALPACA_QUESTION_END = '"instruction": """', '""",\n}'
_ALPACA_FIRST = re.compile(r'"model_identifier": "m",\s*+"output": """')
_ALPACA_SECOND = re.compile(r'"""\n    \},?+\s*+\{\s*+"model_identifier": "M",\s*+"output": """')
_ALPACA_END = '"""\n    }'

_REFERENCE = "[The Start of Reference Answer]\n"
_REFERENCE_END = "\n[The End of Reference Answer]\n\n"

Verdict = Literal["rating", "identifier", "game", "winner"]
Parts = tuple[str, ...]
"""The question and its answers."""


@dataclass(frozen=True)
class JudgePrompt:
    """`verdict`: [[7]], m or M, [[A>B]], or [[A]]. `answers`: one (rating) or two, each with the chat it answers."""

    verdict: Verdict
    answers: tuple[tuple[Chat, str], ...]


def read_judge_prompt(chat: Chat) -> JudgePrompt:
    """Read the first user message of a judge's chat. JudgeError when it has none of the official structures."""
    text = next((message.content for message in chat if message.role == "user"), "")
    conversations = _conversations(text)
    if conversations:
        return JudgePrompt("rating" if len(conversations) == 1 else "winner", tuple(conversations))
    found: tuple[tuple[Verdict, Parts | None], ...] = (
        ("identifier", _alpaca(text)),
        ("game", _game(text)),
        ("winner", _winner(text)),
        ("rating", _rating(text)),
    )
    for verdict, parts in found:
        if parts is not None:
            question = (Message("user", parts[0]),)
            return JudgePrompt(verdict, tuple((question, answer) for answer in parts[1:]))
    raise JudgeError(
        "this judge reads prompts with the markers of MT-Bench, AlpacaEval or Arena-Hard; found none of them in "
        f"{text[:200]!r}"
    )


def _alpaca(text: str) -> Parts | None:
    start = text.find(_ALPACA_QUESTION)
    begin = start + len(_ALPACA_QUESTION)
    question_end = text.find(_ALPACA_QUESTION_END, begin)
    if start < 0 or question_end < 0:
        return None
    first = _ALPACA_FIRST.search(text, question_end + len(_ALPACA_QUESTION_END))
    end = text.rfind(_ALPACA_END)
    if first is None or end < 0:
        return None
    splits = [match for match in _ALPACA_SECOND.finditer(text, first.end()) if match.end() <= end]
    if not splits:
        return None
    return text[begin:question_end], text[first.end() : splits[-1].start()], text[splits[-1].end() : end]


def _game(text: str) -> Parts | None:
    start = text.find("<|User Prompt|>\n")
    begin = start + len("<|User Prompt|>\n")
    opening = "\n\n<|The Start of Assistant A's Answer|>\n"
    question_end = text.find(opening, begin)
    if start < 0 or question_end < 0:
        return None
    answers = _two_answers(
        text,
        question_end + len(opening),
        "\n<|The End of Assistant A's Answer|>\n\n<|The Start of Assistant B's Answer|>\n",
        "\n<|The End of Assistant B's Answer|>",
    )
    return None if answers is None else (text[begin:question_end], *answers)


def _rating(text: str) -> Parts | None:
    end = text.rfind("\n[The End of Assistant's Answer]")
    found = _question(text, "[Question]\n", "[The Start of Assistant's Answer]\n", end)
    return None if found is None else (found[0], text[found[1] : end])


def _winner(text: str) -> Parts | None:
    end = "\n[The End of Assistant B's Answer]"
    between = "\n[The End of Assistant A's Answer]\n\n[The Start of Assistant B's Answer]\n"
    limit = text.rfind(between, 0, max(text.rfind(end), 0))
    found = _question(text, "[User Question]\n", "[The Start of Assistant A's Answer]\n", limit)
    if found is None:
        return None
    answers = _two_answers(text, found[1], between, end)
    return None if answers is None else (found[0], *answers)


def _question(text: str, start: str, opening: str, limit: int) -> tuple[str, int] | None:
    """The question, and where the answer begins, at `limit` at most: after a reference answer, where there is one."""
    begin = text.find(start)
    if begin < 0 or limit < 0:
        return None
    begin += len(start)
    plain = text.find("\n\n" + opening, begin)
    answer = plain + 2 + len(opening)
    if plain < 0 or answer > limit:
        plain = len(text)
    reference = text.find("\n\n" + _REFERENCE, begin)
    if 0 <= reference < plain:
        close = _REFERENCE_END + opening
        closed = text.rfind(close, reference + 2 + len(_REFERENCE), limit)
        if closed >= 0:
            return text[begin:reference], closed + len(close)
    return None if plain == len(text) else (text[begin:plain], answer)


def _two_answers(text: str, begin: int, between: str, end: str) -> tuple[str, str] | None:
    """What stands before and after the last `between` that has an `end` behind it."""
    last = text.rfind(end)
    split = text.rfind(between, begin, last) if last >= 0 else -1
    return None if split < 0 else (text[begin:split], text[split + len(between) : last])


def _conversations(text: str) -> list[tuple[Chat, str]]:
    """Every whole conversation of two turns: Assistant A's, and B's where two are compared."""
    bodies: dict[str, str] = {}
    place = 0
    for name in ("A", "B"):
        opening = f"<|The Start of Assistant {name}'s Conversation with User|>\n\n### User:\n"
        start = text.find(opening, place)
        end = text.rfind(f"\n\n<|The End of Assistant {name}'s Conversation with User|>")
        if 0 <= start and start + len(opening) <= end:
            bodies[name], place = text[start + len(opening) : end], end
    readings = [found for name, body in bodies.items() if (found := _divided(body, name))]
    asked = [frozenset(question for question, _, _ in places) for _, _, places in readings]
    conversations: list[tuple[Chat, str]] = []
    for first, rest, places in readings:
        # Both were asked the same: what one answer only looks like a question is then known for what it is.
        question, end, begin = next((one for one in places if all(one[0] in others for others in asked)), places[0])
        chat = (Message("user", first), Message("assistant", rest[:end]), Message("user", question))
        conversations.append((chat, rest[begin:]))
    return conversations


def _divided(body: str, name: str) -> tuple[str, str, list[tuple[str, int, int]]] | None:
    """A conversation's first question, what follows it, and each place there where a second question may stand.

    A place is the question's text, where the answer before it ends, and where the one behind it begins.
    """
    spoken, asked = f"\n\n### Assistant {name}:\n", "\n\n### User:\n"
    first, _, rest = body.partition(spoken)
    markers = list(re.finditer(re.escape(asked) + "|" + re.escape(spoken), rest))
    places = [
        (rest[user.end() : assistant.start()], user.start(), assistant.end())
        for user, assistant in itertools.pairwise(markers)
        if user.group() == asked and assistant.group() == spoken
    ]
    return (first, rest, places) if places else None
