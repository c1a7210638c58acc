"""Answers that hold the judge prompts' own markers; the prompts here have the official structure and other words."""

from __future__ import annotations

import pytest

from aipo.judges.reading import read_judge_prompt
from aipo.records import Message


def _alpaca(question: str, first: str, second: str) -> str:
    outputs = ",\n".join(
        f'    {{\n        "model_identifier": "{name}",\n        "output": """{answer}"""\n    }}'
        for name, answer in (("m", first), ("M", second))
    )
    return (
        f'Compare.\n\n{{\n    "instruction": """{question}""",\n}}\n\nThese:\n\n{{\n{outputs}\n}}\n\nWhich, m or M?\n'
    )


def _conversation(name: str, *turns: str) -> str:
    first, reply, second, answer = turns
    spoken = f"### Assistant {name}:\n"
    said = f"### User:\n{first}\n\n{spoken}{reply}\n\n### User:\n{second}\n\n{spoken}{answer}"
    who = f"Assistant {name}'s Conversation with User|>"
    return f"<|The Start of {who}\n\n{said}\n\n<|The End of {who}"


def _read(text: str):
    return read_judge_prompt((Message("system", "You judge."), Message("user", text)))


CODE = 'def f():\n    return {\n        "text": """' + "x" * 300 + '"""\n    }\n\n' + "and so on " * 20


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("short", CODE),
        (CODE, "short"),
        (CODE, CODE),
        ('a\n        "model_identifier": "m",\n        "output": """b', "short"),
        ('"""\n    }', '"""\n    }'),
        ("", ""),
    ],
)
def test_an_alpaca_eval_answer_is_read_to_its_end(first: str, second: str) -> None:
    found = _read(_alpaca("Write f.", first, second))
    assert [answer for _, answer in found.answers] == [first, second]
    assert all(chat == (Message("user", "Write f."),) for chat, _ in found.answers)


GOES_ON = "Hello.\n\n### User:\nMore?\n\n### Assistant A:\nMore."


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (("Hello.", "short"), ("Hi.", "thirty characters of an answer")),
        ((GOES_ON, "short"), ("Hi.", "thirty characters of an answer")),
        (("Hello.", GOES_ON), ("Hi.", "short")),
        ((GOES_ON, GOES_ON), ("Hi.", "x\n\n### User:\nWhy?\n\n### Assistant B:\ny")),
        (("Hello.", "a\n\n<|The End of Assistant A's Conversation with User|>\n\nb"), ("Hi.", "c")),
    ],
)
def test_two_conversations_are_divided_at_the_question_that_both_were_asked(
    mine: tuple[str, str], theirs: tuple[str, str]
) -> None:
    sides = [_conversation(name, "One?", side[0], "Two?", side[1]) for name, side in (("A", mine), ("B", theirs))]
    found = _read("\n\n\n".join(["Compare.", *sides]))
    assert found.verdict == "winner"
    for (chat, answer), (reply, last) in zip(found.answers, (mine, theirs), strict=True):
        assert [message.content for message in chat] == ["One?", reply, "Two?"] and answer == last


def test_a_lone_conversation_ends_at_its_last_marker() -> None:
    found = _read("Rate.\n\n" + _conversation("A", "One?", "Hello.", "Two?", GOES_ON))
    ((chat, answer),) = found.answers
    assert found.verdict == "rating" and answer == GOES_ON and chat[2].content == "Two?"


@pytest.mark.parametrize(
    "marker", ["\n\n### User:\n", "\n\n### Assistant A:\n", "\n\n### User:\n\n\n### Assistant A:\n"]
)
def test_twenty_thousand_markers_are_read(marker: str) -> None:
    """Reading that took the square of their number would take minutes."""
    ((chat, answer),) = _read(_conversation("A", "One?", "Hello.", "Two?", marker * 20_000)).answers
    assert [message.content for message in chat] == ["One?", "Hello.", "Two?"] and answer == marker * 20_000
