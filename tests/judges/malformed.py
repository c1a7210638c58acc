"""Responses that no endpoint should send: at least 200 bodies and headers, deterministic."""

from __future__ import annotations

import copy
import gzip
import json
import random
from collections.abc import Iterator
from typing import Any

GOOD: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion",
    "created": 0,
    "model": "judge",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "[[7]]"},
            "logprobs": {
                "content": [{"token": "m", "logprob": -0.1, "top_logprobs": [{"token": "m", "logprob": -0.1}]}]
            },
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
VALUES: tuple[Any, ...] = (None, [], {}, "", "text", 0, -1, 1e308, True, [None], [[]], "\ud800", {"a": None}, ["a"])
PATHS: tuple[tuple[Any, ...], ...] = (
    ("choices",),
    ("choices", 0),
    ("choices", 0, "message"),
    ("choices", 0, "message", "content"),
    ("choices", 0, "logprobs"),
    ("choices", 0, "logprobs", "content"),
    ("choices", 0, "logprobs", "content", 0),
    ("choices", 0, "logprobs", "content", 0, "top_logprobs"),
    ("choices", 0, "logprobs", "content", 0, "top_logprobs", 0),
    ("choices", 0, "logprobs", "content", 0, "top_logprobs", 0, "token"),
    ("choices", 0, "logprobs", "content", 0, "top_logprobs", 0, "logprob"),
    ("usage",),
    ("usage", "prompt_tokens"),
    ("model",),
    ("choices", 0, "finish_reason"),
)


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A good body with one value replaced."""
    body = copy.deepcopy(GOOD)
    place: Any = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return body


def responses() -> Iterator[tuple[str, int, bytes, dict[str, str]]]:
    """(name, status, body, headers) of each."""
    good = json.dumps(GOOD).encode()
    plain: dict[str, str] = {}
    for path in PATHS:
        for value in VALUES:
            yield f"{'.'.join(map(str, path))}={value!r}", 200, json.dumps(changed(path, value)).encode(), plain
    for name, body in {
        "nothing": b"",
        "NUL": b"\0" * 20,
        "Latin-1": json.dumps(GOOD, ensure_ascii=False).replace("[[7]]", "é").encode("latin-1"),
        "UTF-16": json.dumps(GOOD).encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + good,
        "deep": b"[" * 100_000,
        "deep objects": b'{"choices":' * 50_000 + b"1" + b"}" * 50_000,
        "a huge int": good.replace(b'"created": 0', b'"created": ' + b"9" * 10_000),
        "a huge usage": good.replace(b'"prompt_tokens": 1', b'"prompt_tokens": ' + b"9" * 4_000),
        "a huge logprob": good.replace(b"-0.1", b"-" + b"9" * 4_000),
        "NaN": good.replace(b"-0.1", b"NaN"),
        "Infinity": good.replace(b"-0.1", b"Infinity"),
        "cut": good[:-30],
        "two bodies": good + good,
        "HTML": b"<html>bad gateway</html>",
        "a stream": b"data: " + good + b"\n\ndata: [DONE]\n\n",
        "a text": b'"text"',
        "a number": b"7",
        "null": b"null",
        "repeated keys": b'{"choices": 1, ' + good[1:],
    }.items():
        yield name, 200, body, plain
    for header, values in {
        "Content-Type": ("text/html", "", "application/json; charset=klingon", "\xff\xfe", "multipart/x"),
        "Content-Encoding": ("gzip", "br", "klingon", "deflate, gzip"),
        "Retry-After": ("inf", "nan", "-1", "1e999", "9" * 400, "soon", "Wed, 99 Foo 9999 99:99:99 GMT", "\xff", ""),
        "X-Request-Id": ("\xff" * 50, "x" * 30_000),
    }.items():
        for value in values:
            for status in (200, 429, 503):
                yield f"{status} {header}: {value[:30]!r}", status, good, {header: value}
    yield "gzip", 200, gzip.compress(good), {"Content-Encoding": "gzip"}
    for status in (201, 204, 206, 304, 418, 422, 451, 500, 501, 520, 599):
        yield f"status {status}", status, good, plain
    rng = random.Random(0)
    for number in range(60):
        body = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        yield f"flipped bytes {number}", 200, bytes(body), plain
