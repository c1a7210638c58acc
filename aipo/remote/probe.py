"""Asks a server for a sign of life before anything is sent to it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aipo.remote.attempts import describe
from aipo.remote.redaction import redact

if TYPE_CHECKING:
    from openai import OpenAI

PROBE_S = 5.0


def probe(client: OpenAI, what: str, url: str, key_variable: str | None, remedy: str) -> list[str]:
    """Nothing when the server answers within 5 s, whatever it says but that the key is wrong; else one line.

    `what` (judge, server), `url` and `remedy` stand in that line.
    """
    import openai

    hush_transport()
    shown = redact(url)
    try:
        client.get("/models", cast_to=object, options={"timeout": PROBE_S, "max_retries": 0})
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        if "scope" in str(error).lower():  # a key that may not list models, but may well be used
            return []
        return [f"key for {shown}: it refuses the one in {key_variable or 'use: none'} ({describe(error)})"]
    except openai.APIConnectionError:
        return [f"{what} {shown}: it does not answer; {remedy}"]
    except Exception:  # it answers, if not to this question, or not in words that the client can read
        return []
    return []


def hush_transport() -> None:
    """openai's transport has a log line for every request."""
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
