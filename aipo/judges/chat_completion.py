"""Reads the body of a chat completion, without trusting anything in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aipo.records import JudgeReply
from aipo.remote import BadReply


@dataclass(frozen=True)
class ChatCompletion:
    """What is read of a body. `withheld`: by the endpoint's content filter, or refused by the model in words."""

    reply: JudgeReply
    withheld: bool
    input_tokens: int
    output_tokens: int


class NoLogprobs(BadReply):
    """Log-probabilities were asked for, and the reply has no field for them."""


def read_chat_completion(body: bytes, *, logprobs: bool) -> ChatCompletion:
    """The first choice of a body. Raises BadReply, with the body, for anything that is not what the protocol says."""
    try:
        content = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadReply(f"expected JSON, got {body[:80]!r} ({type(error).__name__}: {str(error)[:80]})", body) from None
    try:
        return _read(content, logprobs)
    except BadReply as error:
        raise type(error)(str(error), body) from None


def _read(content: Any, logprobs: bool) -> ChatCompletion:
    choices = _object(content, "a JSON object").get("choices")
    if not isinstance(choices, list) or not choices:
        raise BadReply(f"expected choices, got {_short(choices)}")
    choice = _object(choices[0], "a choice")
    message = _object(choice.get("message"), "a message")
    model = content.get("model")
    tokens = _usage(content.get("usage"))
    text = message.get("content")
    model = model if isinstance(model, str) and _is_text(model) else None
    refusal = message.get("refusal")
    if choice.get("finish_reason") == "content_filter" or (text is None and isinstance(refusal, str)):
        reply = JudgeReply("", {} if logprobs else None, model, "withheld by the endpoint's content filter")
        return ChatCompletion(reply, True, *tokens)
    if not isinstance(text, str):
        raise BadReply(f"expected the message's content as text, got {_short(text)}")
    if not _is_text(text):
        raise BadReply("the message's content holds a lone surrogate, which is no text")
    top = _top_logprobs(choice.get("logprobs")) if logprobs else None
    return ChatCompletion(JudgeReply(text, top, model), False, *tokens)


def _top_logprobs(logprobs: Any) -> dict[str, float]:
    if logprobs is None or (isinstance(logprobs, Mapping) and not logprobs.get("content")):
        raise NoLogprobs("expected log-probabilities, got none")
    content = _object(logprobs, "log-probabilities").get("content")
    if not isinstance(content, list):
        raise BadReply(f"expected a list of tokens with log-probabilities, got {_short(content)}")
    top = _object(content[0], "a token").get("top_logprobs")
    if not isinstance(top, list):
        raise BadReply(f"expected a list of top_logprobs, got {_short(top)}")
    found: dict[str, float] = {}
    for item in top:
        token, value = _object(item, "a top log-probability").get("token"), item.get("logprob")
        if not isinstance(token, str) or not _is_text(token) or not _is_logprob(value):
            raise BadReply(f"expected a token and its log-probability, got {_short(item)}")
        found[token] = max(found.get(token, -math.inf), float(value))  # one token may come twice: the likelier counts
    return found


def _is_logprob(value: Any) -> bool:
    """A number that fits a float, at most 0 but for rounding."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value)) and value <= 1e-3
    except OverflowError:
        return False


def _usage(usage: Any) -> tuple[int, int]:
    """Tokens of the prompt and of the reply; 0 and 0 where the endpoint does not say both: half a count is no price."""
    if not isinstance(usage, Mapping):
        return 0, 0
    counts: list[Any] = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    whole = [int(n) for n in counts if _is_count(n)]
    return (whole[0], whole[1]) if len(whole) == 2 else (0, 0)


def _is_count(value: Any) -> bool:
    """A whole number of tokens, also one that is written as 12.0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 10**9 and value == int(value)


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadReply(f"expected {what}, got {_short(value)}")
    return value


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _short(value: Any) -> str:
    try:
        return f"{type(value).__name__} {value!r:.120}"
    except (ValueError, RecursionError):  # an int beyond the limit of its digits
        return type(value).__name__
