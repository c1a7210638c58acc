"""One row in the conversational format, as an example; or what is wrong with it, and how to put it right."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from aipo.records import Chat, Example, Message, Prompt, to_row

COLUMNS = (
    "prompt", "prompt_id", "system", "responses", "scores", "chosen", "rejected", "score_chosen", "score_rejected"
)  # fmt: skip
"""Every column that is read."""


class RowError(ValueError):
    """A row is not in the conversational format. The message names the column, what was expected and what was found."""


def example_from_row(row: Mapping[str, Any]) -> Example:
    """The example a row describes; a column that is absent and one that is null are the same. RowError if malformed.

    `prompt`: a string, or messages that end with the user's turn. `system`: a system prompt for it. The responses are
    `responses` (strings, or lists of one assistant message) with optional `scores` (numbers, null where unrated), or
    `chosen` and `rejected`, which may repeat the prompt's messages before the answer, with optional `score_chosen`
    and `score_rejected`; without these two the ratings are 1 and 0. No response at all is fine: a plain prompt.
    A row without `prompt_id` gets one that follows from its chat.
    """
    row = {key: value for key, value in row.items() if value is not None}
    chat = _prompt_of(row)
    prompt_id = row["prompt_id"] if "prompt_id" in row else content_id(chat)
    if not isinstance(prompt_id, str | int) or isinstance(prompt_id, bool) or prompt_id == "":
        raise RowError(f"prompt_id: expected a string or a whole number, got {_shown(prompt_id)}")
    paired = [name for name in ("chosen", "rejected", "score_chosen", "score_rejected") if name in row]
    if paired and ("responses" in row or "scores" in row):
        raise RowError(f"expected either responses and scores, or chosen and rejected; got responses and {paired[0]}")
    responses, ratings = _pair_of(row, chat) if paired else _list_of(row, chat)
    return Example(Prompt(str(prompt_id), chat, "pool"), responses, ratings)


def content_id(chat: Chat) -> str:
    """A prompt id that depends on the chat alone."""
    return "chat-" + hashlib.sha256(json.dumps(to_row(chat)).encode()).hexdigest()[:16]


def chat_from_messages(value: Any, column: str) -> Chat:
    """Messages as a chat: at most one system prompt, at the beginning; then user and assistant in turn. RowError."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise RowError(f"{column}: expected a list of messages, got {_shown(value)}")
    chat = tuple(_message(item, f"{column}[{number}]") for number, item in enumerate(value))
    turns = chat[1:] if chat[0].role == "system" else chat
    for number, turn in enumerate(turns):
        expected = "assistant" if number % 2 else "user"
        if turn.role != expected:
            raise RowError(
                f"{column}[{number + len(chat) - len(turns)}].role: expected {expected!r} (user and assistant take "
                f"turns, after at most one system prompt), got {turn.role!r}"
            )
    return chat


def _prompt_of(row: Mapping[str, Any]) -> Chat:
    prompt = row.get("prompt")
    if prompt is None:
        prompt = _shared_opening(row)
    if isinstance(prompt, str):
        chat: Chat = (Message("user", prompt),)
        if not prompt.strip():
            raise RowError("prompt: expected text, got an empty string; remove the row")
    elif not isinstance(prompt, Sequence):
        raise RowError(f"prompt: expected a string or a list of messages, got {_shown(prompt)}")
    else:
        chat = chat_from_messages(prompt, "prompt")
    if chat[-1].role != "user":
        raise RowError(
            f"prompt: expected the last message to be the user's, got one of role {chat[-1].role!r}; an answer belongs "
            "into responses, chosen or rejected"
        )
    if "system" in row:
        if not isinstance(row["system"], str):
            raise RowError(f"system: expected a string, got {_shown(row['system'])}")
        if chat[0].role == "system":
            raise RowError("system: expected one system prompt, got this column and a system message in prompt")
        chat = (Message("system", row["system"]), *chat) if row["system"].strip() else chat
    return chat


def _shared_opening(row: Mapping[str, Any]) -> Any:
    """The messages before the answer that `chosen` and `rejected` share, where a row has no `prompt` of its own."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise RowError(
            f"prompt: expected a string or a list of messages, got no such column; the row has {sorted(row)}"
        )
    if chosen[:-1] != rejected[:-1]:
        raise RowError("prompt: missing, and chosen and rejected do not begin with the same messages; add it")
    return chosen[:-1]


def _list_of(row: Mapping[str, Any], chat: Chat) -> tuple[tuple[str, ...], tuple[float, ...]]:
    responses = row.get("responses", [])
    if not isinstance(responses, list):
        raise RowError(f"responses: expected a list, got {_shown(responses)}")
    texts = tuple(_answer(item, chat, f"responses[{number}]") for number, item in enumerate(responses))
    scores = row.get("scores")
    if scores is None:
        return texts, ()
    if not isinstance(scores, list) or len(scores) != len(texts):
        found = f"{len(scores)}" if isinstance(scores, list) else _shown(scores)
        raise RowError(f"scores: expected a list of {len(texts)} numbers, one per response, got {found}")
    return texts, tuple(_score(item, f"scores[{number}]") for number, item in enumerate(scores))


def _pair_of(row: Mapping[str, Any], chat: Chat) -> tuple[tuple[str, ...], tuple[float, ...]]:
    for one, other in (("chosen", "rejected"), ("score_chosen", "score_rejected")):
        for has, lacks in ((one, other), (other, one)):
            if has in row and lacks not in row:
                raise RowError(f"{lacks}: expected beside {has}, got no such column")
    if "chosen" not in row:
        raise RowError("score_chosen: expected beside chosen and rejected, got neither")
    texts = _answer(row["chosen"], chat, "chosen"), _answer(row["rejected"], chat, "rejected")
    if "score_chosen" not in row:
        return texts, (1.0, 0.0)
    better, worse = (_score(row[name], name) for name in ("score_chosen", "score_rejected"))
    if better < worse:
        raise RowError(f"score_chosen: expected at least score_rejected ({worse}), got {better}; swap the two answers")
    return texts, (better, worse)


def _answer(value: Any, chat: Chat, column: str) -> str:
    """The text of an answer: a string, a message, or messages that end with it (after the prompt's, or alone)."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not value:
        raise RowError(f"{column}: expected a string or messages, got {_shown(value)}")
    messages = tuple(_message(item, f"{column}[{number}]", may_be_empty=True) for number, item in enumerate(value))
    spoken = tuple(turn for turn in chat if turn.role != "system")
    for opening in (chat, spoken):
        if messages[: len(opening)] == opening:
            messages = messages[len(opening) :]
            break
    if len(messages) != 1 or messages[0].role != "assistant":
        roles = ", ".join(message.role for message in messages) or "none"
        raise RowError(
            f"{column}: expected one assistant message, alone or behind the prompt's messages, got roles {roles}; "
            "answers of several turns are not supported: put the earlier turns into prompt"
        )
    return messages[0].content


def _message(value: Any, column: str, *, may_be_empty: bool = False) -> Message:
    if not isinstance(value, Mapping) or "role" not in value or "content" not in value:
        raise RowError(f'{column}: expected {{"role": ..., "content": ...}}, got {_shown(value)}')
    extra = sorted(key for key, item in value.items() if item is not None and key not in ("role", "content"))
    if extra:
        raise RowError(f"{column}.{extra[0]}: expected role and content alone; tool calls and names are not supported")
    role, content = value["role"], value["content"]
    if role not in ("system", "user", "assistant"):
        raise RowError(f"{column}.role: expected system, user or assistant, got {_shown(role)}")
    if not isinstance(content, str):
        raise RowError(
            f"{column}.content: expected a string (images and parts are not supported), got {_shown(content)}"
        )
    if not content.strip() and not may_be_empty:
        raise RowError(f"{column}.content: expected text, got an empty string; remove the message or the row")
    return Message(role, content)


def _score(value: Any, column: str) -> float:
    """A rating; NaN where it is null: not rated."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RowError(f"{column}: expected a finite number, or null for not rated, got {_shown(value)}")
    return float(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
