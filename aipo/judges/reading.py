"""What a rendered judge prompt asks: which verdict, about which answers to which conversation.

Reads the markers of the official templates (FastChat 0.2.36, alpaca_eval 0.6.6, arena-hard-auto at efc012e), so any
prompt with their structure will do, whatever words are around them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from aipo.judges.judge import JudgeError
from aipo.records import Chat, Message

_ALPACA = re.compile(
    r'"instruction": """(?P<question>.*?)""",\n}.*'
    r'"model_identifier": "m",\s*"output": """(?P<a>.*?)"""\n    },?\s*{\s*'
    r'"model_identifier": "M",\s*"output": """(?P<b>.*?)"""\n    }',
    re.DOTALL,
)
_GAME = re.compile(
    r"<\|User Prompt\|>\n(?P<question>.*?)\n\n"
    r"<\|The Start of Assistant A's Answer\|>\n(?P<a>.*)\n<\|The End of Assistant A's Answer\|>\n\n"
    r"<\|The Start of Assistant B's Answer\|>\n(?P<b>.*)\n<\|The End of Assistant B's Answer\|>",
    re.DOTALL,
)
_REFERENCE = r"(?:\[The Start of Reference Answer\]\n.*\n\[The End of Reference Answer\]\n\n)?"
_RATING = re.compile(
    r"\[Question\]\n(?P<question>.*?)\n\n"
    + _REFERENCE
    + r"\[The Start of Assistant's Answer\]\n(?P<a>.*)\n\[The End of Assistant's Answer\]",
    re.DOTALL,
)
_WINNER = re.compile(
    r"\[User Question\]\n(?P<question>.*?)\n\n"
    + _REFERENCE
    + r"\[The Start of Assistant A's Answer\]\n(?P<a>.*)\n\[The End of Assistant A's Answer\]\n\n"
    r"\[The Start of Assistant B's Answer\]\n(?P<b>.*)\n\[The End of Assistant B's Answer\]",
    re.DOTALL,
)
_CONVERSATION = re.compile(
    r"<\|The Start of Assistant (?P<name>[AB])'s Conversation with User\|>\n\n"
    r"### User:\n(?P<first>.*?)\n\n### Assistant (?P=name):\n(?P<reply>.*?)\n\n"
    r"### User:\n(?P<second>.*?)\n\n### Assistant (?P=name):\n(?P<answer>.*?)\n\n"
    r"<\|The End of Assistant (?P=name)'s Conversation with User\|>",
    re.DOTALL,
)

Verdict = Literal["rating", "identifier", "game", "winner"]


@dataclass(frozen=True)
class JudgePrompt:
    """`verdict`: [[7]], m or M, [[A>B]], or [[A]]. `answers`: one (rating) or two, each with the chat it answers."""

    verdict: Verdict
    answers: tuple[tuple[Chat, str], ...]


def read_judge_prompt(chat: Chat) -> JudgePrompt:
    """Read the first user message of a judge's chat. JudgeError when it has none of the official structures."""
    text = next((message.content for message in chat if message.role == "user"), "")
    conversations = [_conversation(match) for match in _CONVERSATION.finditer(text)]
    if conversations:
        return JudgePrompt("rating" if len(conversations) == 1 else "winner", tuple(conversations))
    patterns: tuple[tuple[Verdict, re.Pattern[str]], ...] = (
        ("identifier", _ALPACA),
        ("game", _GAME),
        ("winner", _WINNER),
        ("rating", _RATING),
    )
    for verdict, pattern in patterns:
        if match := pattern.search(text):
            question = (Message("user", match["question"]),)
            sides = ("a",) if verdict == "rating" else ("a", "b")
            return JudgePrompt(verdict, tuple((question, match[side]) for side in sides))
    raise JudgeError(
        "this judge reads prompts with the markers of MT-Bench, AlpacaEval or Arena-Hard; found none of them in "
        f"{text[:200]!r}"
    )


def _conversation(match: re.Match[str]) -> tuple[Chat, str]:
    chat = (Message("user", match["first"]), Message("assistant", match["reply"]), Message("user", match["second"]))
    return chat, match["answer"]
