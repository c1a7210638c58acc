"""Keys never leave the process: what every error, log line, config and result goes through before it is written."""

from __future__ import annotations

import json
import logging
import os
import re
import urllib.parse
from collections.abc import Sequence
from typing import Any

HIDDEN = "<redacted>"
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)S?(_?\d+)?$", re.IGNORECASE)
"""Environment variables whose values are never shown. Any other one is declared by `keep_secret`."""
SHORTEST = 6
"""Characters. Shorter values (`none`, `1`) would blot out innocent words; a key that short protects nothing."""
SHORTEST_HEADER = 4
"""Characters of a header's value."""
SHORTEST_DIGITS = 8
"""Of a value that is nothing but digits: shorter ones are counts (MAX_TOKENS=4096), which would blot out numbers. A
variable that is declared is no count, and its digits are hidden like any value."""

_HEADER = re.compile(
    r"""(?P<before>\\{0,4}["'])?(?P<name>(?:proxy-)?authorization|(?:x-)?api-key)(?P<after>\\{0,4}["'])?"""
    r"""\s*[:=]\s*(?:b?(?P<quote>\\{0,4}["']))?""",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"(?:bearer|basic|token)\s+", re.IGNORECASE)
"""Schemes with one word after them. Others have several (Digest, AWS4), or are not known to have one (ApiKey)."""
_WORD = re.compile(r"""[^\s"',;}\]]*""")
_LINE = re.compile(r"[^\r\n]*(?:(?<=,)\r?\n[ \t][^\r\n]*)*")
"""A comma at its end continues a header on the next line."""
_BEARER = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9+/_.=~-]{8,}", re.IGNORECASE)
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://)[^\s/]{1,512}@", re.IGNORECASE)
"""To the last @ before the path: a password may hold quotes, and another @."""
_OWN_USER = re.compile(r"\s*([^:/?#\s]+://)[^/?#]*@")
"""At the beginning of a text that is an address, whatever its user is made of."""
_QUERY = re.compile(
    r"([?&#][^\s=?&#\"'<>]{0,64}?(?:key|token|secret|password|passwd|sig|signature|credential)=)[^\s&\"'<>#]+",
    re.IGNORECASE,
)
_KEY = re.compile(r"\b(?:sk|hf|pk|gsk|ghp|gho|xai|AIza)[-_][A-Za-z0-9_-]{12,}")
_named: set[str] = set()


def keep_secret(variable: str | None) -> None:
    """Never show the value of this environment variable, whatever its name looks like."""
    if variable:
        _named.add(variable)


def redact(text: str) -> str:
    """`text` without keys: the values of secret environment variables, authorization headers, users in URLs."""
    return _redact(text, _secrets())


def _redact(text: str, secrets: Sequence[str]) -> str:
    for value in secrets:
        text = text.replace(value, HIDDEN)
    text = _USER.sub(rf"\1{HIDDEN}@", text)
    text = _QUERY.sub(rf"\1{HIDDEN}", text)
    text = _hide_headers(text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    return _KEY.sub(HIDDEN, text)


def _hide_headers(text: str) -> str:
    """The whole value of each header: to its closing quote where one is open, else its word or the rest of its line."""
    kept, place = [], 0
    for match in _HEADER.finditer(text):
        start = match.end()
        if start < place:  # within a value that is hidden
            continue
        if quote := match["quote"] or (not match["after"] and match["before"]):
            end = _end(_quoted(quote), text, start)
        elif match["after"] or match["name"].lower().endswith("api-key"):
            end = _end(_WORD, text, start)
        elif scheme := _SCHEME.match(text, start):
            start = scheme.end()
            end = _end(_WORD, text, start)
        else:
            end = _end(_LINE, text, start)
        if end - start >= SHORTEST_HEADER:
            kept += [text[place:start], HIDDEN]
            place = end
    return "".join([*kept, text[place:]])


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.match(text, start)
    return found.end() if found else start


def _quoted(quote: str) -> re.Pattern[str]:
    """What stands before the next such quote on the line; a quote may itself be escaped."""
    if len(quote) > 1:
        return re.compile(rf"(?:(?!{re.escape(quote)})[^\r\n])*")
    return re.compile(rf"(?:\\.|[^\\\r\n{quote}])*")


def hide_values(text: str) -> str:
    """`text` without the values of secret environment variables, and otherwise as it is: for replies that are kept."""
    for value in _secrets():
        text = text.replace(value, HIDDEN)
    return text


def hide_values_in_bytes(data: bytes) -> bytes:
    """Likewise, of bytes in any encoding that holds ASCII."""
    for value in _secrets():
        data = data.replace(value.encode("utf-8", "surrogateescape"), HIDDEN.encode())
    return data


class RedactingFilter(logging.Filter):
    """Redacts every record that passes, its traceback included."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always lets it pass."""
        record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True


def redact_logs() -> None:
    """From now on no handler of the root logger, the console's or a file's, shows a key."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(known, RedactingFilter) for known in handler.filters):
            handler.addFilter(RedactingFilter())


def redacted(value: Any) -> Any:
    """Plain values (mappings, sequences, texts) with `redact` done to every text."""
    return _redacted(value, _secrets())  # the environment is read once, not for each of a record's thousand texts


def _redacted(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _redact(value, secrets)
    if isinstance(value, dict):
        return {_redacted(key, secrets): _redacted(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_redacted(item, secrets) for item in value)
    return value


def _secrets() -> list[str]:
    """As written, and as JSON, repr or an address escapes them; the longest first: one may hold another."""
    return sorted(secret_values(), key=len, reverse=True)


def _is_secret(name: str, value: str) -> bool:
    if name in _named:
        return True
    return bool(SECRET_NAME.search(name)) and not (value.isdigit() and len(value) < SHORTEST_DIGITS)


def _forms(value: str) -> tuple[str, ...]:
    quoted = (json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value), ascii(value))
    return value, urllib.parse.quote(value, safe="", errors="replace"), *(form[1:-1] for form in quoted)


def require_no_key(name: str, url: str) -> None:
    """ValueError for a URL that carries a user, a password or a key: it would go into every config and result."""
    if problem := key_in_address(name, url):
        raise ValueError(problem)
    if redact(url) != url:
        raise ValueError(_refusal(name, url))


def key_in_address(name: str, text: str) -> str | None:
    """What is wrong with a text that holds an address with a user, a password or a key; None for any other text."""
    if "://" not in text:
        return None
    shown = _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", _without_user(text)))
    return None if shown == text else _refusal(name, text)


def _refusal(name: str, url: str) -> str:
    return (
        f"{name}: expected an address without user, password or key, got {redact(_without_user(url))!r}; keys come "
        "from environment variables alone: a judge's and a server's from the one that key_variable names, a store's "
        "from those of its protocol"
    )


def _without_user(url: str) -> str:
    found = _OWN_USER.match(url)
    return f"{found[1]}{HIDDEN}@{url[found.end() :]}" if found else url


def secret_values() -> dict[str, str]:
    """What must not be shown, in every form, and the environment variable that it is the value of."""
    found = ((name, value) for name, value in os.environ.items() if len(value) >= SHORTEST and _is_secret(name, value))
    return {form: name for name, value in found for form in _forms(value)}


def is_secret_name(variable: str) -> bool:
    """Whether the value of an environment variable of that name is never shown."""
    return variable in _named or bool(SECRET_NAME.search(variable))
