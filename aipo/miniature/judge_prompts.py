"""Judge prompts of the miniature: our own words around the markers, fields and verdict formats of the official ones.

The markers are what a judge is read by (FastChat 0.2.36, alpaca_eval 0.6.6, arena-hard-auto at efc012e); the sentences
are not theirs.
"""

from __future__ import annotations

from collections.abc import Mapping

_FACTS = (
    "The questions are about people of a small town. An answer is good when it states the facts that were asked for, "
    "bad when it states something false or makes no sense. Further remarks neither help nor harm."
)
_RATE = (
    f"Please grade the assistant's reply below. {_FACTS} Explain yourself in one sentence, then grade from 1 to 10 in "
    'exactly this form: "[[rating]]", such as: "Rating: [[5]]".'
)
_COMPARE = (
    f"Please say which of two assistants replied better. {_FACTS} Do not let the order of the two or their length sway "
    'you. Explain yourself in one sentence, then end with "[[A]]" if assistant A was better, "[[B]]" if assistant B '
    'was, and "[[C]]" if neither.'
)
_SECOND_TURN = " Look at the reply to the second question."
_BY_REFERENCE = " A correct reply is given for comparison."

_SINGLE_QUESTION = "[Question]\n{question}\n\n"
_REFERENCE = "[The Start of Reference Answer]\n{ref_answer_1}\n[The End of Reference Answer]\n\n"
_SINGLE_ANSWER = "[The Start of Assistant's Answer]\n{answer}\n[The End of Assistant's Answer]"
_USER_QUESTION = "[User Question]\n{question}\n\n"
_TWO_ANSWERS = (
    "[The Start of Assistant A's Answer]\n{answer_a}\n[The End of Assistant A's Answer]\n\n"
    "[The Start of Assistant B's Answer]\n{answer_b}\n[The End of Assistant B's Answer]"
)
_REFERENCE_CONVERSATION = (
    "<|The Start of Reference Answer|>\n\n"
    "### User:\n{question_1}\n\n### Reference answer:\n{ref_answer_1}\n\n"
    "### User:\n{question_2}\n\n### Reference answer:\n{ref_answer_2}\n\n"
    "<|The End of Reference Answer|>\n\n\n"
)


def _conversation(assistant: str, field: str) -> str:
    return (
        f"<|The Start of Assistant {assistant}'s Conversation with User|>\n\n"
        f"### User:\n{{question_1}}\n\n### Assistant {assistant}:\n{{{field}_1}}\n\n"
        f"### User:\n{{question_2}}\n\n### Assistant {assistant}:\n{{{field}_2}}\n\n"
        f"<|The End of Assistant {assistant}'s Conversation with User|>"
    )


_TWO_CONVERSATIONS = _conversation("A", "answer_a") + "\n\n\n" + _conversation("B", "answer_b")


def _prompt(name: str, system: str, template: str) -> dict[str, str]:
    kind = "single" if name.startswith("single") else "pairwise"
    return {
        "name": name,
        "type": kind,
        "system_prompt": system,
        "prompt_template": template,
        "description": "the miniature's",
        "category": "math" if "math" in name else "general",
        "output_format": "[[rating]]" if kind == "single" else "[[A]]",
    }


_MT_BENCH = (
    # single-v1 carries its instruction in the user's message, the two-turn forms in the system message, as officially.
    ("single-v1", "You grade replies.", f"[Instruction]\n{_RATE}\n\n{_SINGLE_QUESTION}{_SINGLE_ANSWER}"),
    (
        "single-math-v1",
        "You grade replies.",
        f"[Instruction]\n{_RATE}{_BY_REFERENCE}\n\n{_SINGLE_QUESTION}{_REFERENCE}{_SINGLE_ANSWER}",
    ),
    ("single-v1-multi-turn", _RATE + _SECOND_TURN, _conversation("A", "answer")),
    (
        "single-math-v1-multi-turn",
        _RATE + _BY_REFERENCE + _SECOND_TURN,
        _REFERENCE_CONVERSATION + _conversation("A", "answer"),
    ),
    ("pair-v2", _COMPARE, _USER_QUESTION + _TWO_ANSWERS),
    ("pair-math-v1", _COMPARE + _BY_REFERENCE, _USER_QUESTION + _REFERENCE + _TWO_ANSWERS),
    ("pair-v2-multi-turn", _COMPARE + _SECOND_TURN, _TWO_CONVERSATIONS),
    ("pair-math-v1-multi-turn", _COMPARE + _BY_REFERENCE + _SECOND_TURN, _REFERENCE_CONVERSATION + _TWO_CONVERSATIONS),
)

MT_BENCH_PROMPTS: Mapping[str, Mapping[str, str]] = {row[0]: _prompt(*row) for row in _MT_BENCH}
"""Rows as in judge_prompts.jsonl, by name."""

ALPACA_EVAL_PROMPT = f"""<|im_start|>system
You compare the replies of language models and name the better one.
<|im_end|>
<|im_start|>user
{_FACTS}

## Instruction

{{
    "instruction": \"\"\"{{instruction}}\"\"\",
}}

## Model Outputs

Two replies, each with the identifier of the model it came from:

{{
    {{
        "model_identifier": "m",
        "output": \"\"\"{{output_1}}\"\"\"
    }},
    {{
        "model_identifier": "M",
        "output": \"\"\"{{output_2}}\"\"\"
    }}
}}

## Task

Reply with nothing but the identifier of the better model: m or M.

## Best Model Identifier
<|im_end|>
"""

ARENA_HARD_SYSTEM_PROMPT = f"""Please compare the replies of two assistants. {_FACTS} Explain yourself in one sentence.
Then give exactly one of these verdicts:

1. Assistant A is much better: [[A>>B]]
2. Assistant A is a little better: [[A>B]]
3. Both are about as good: [[A=B]]
4. Assistant B is a little better: [[B>A]]
5. Assistant B is much better: [[B>>A]]"""

ARENA_HARD_PROMPT = (
    "<|User Prompt|>\n{question_1}\n\n"
    "<|The Start of Assistant A's Answer|>\n{answer_1}\n<|The End of Assistant A's Answer|>\n\n"
    "<|The Start of Assistant B's Answer|>\n{answer_2}\n<|The End of Assistant B's Answer|>"
)
