"""Judges of a store that may be meant as one, and are not: told apart by a name, or by a slash behind an address."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from aipo.judges.replies import WHO
from aipo.remote import redact


def kin(root: Path, judge: Mapping[str, str]) -> list[str]:
    """What differs from this judge, in words, of each other one below `root` with replies and else the same identity.

    None for a judge whose identity names no model.
    """
    found = []
    for who in sorted(root.glob(f"*/{WHO}")):
        other: object = None
        with suppress(OSError, ValueError):
            other = json.loads(who.read_text(encoding="utf-8"))
        if (
            not isinstance(other, dict)
            or other == dict(judge)
            or "model" not in judge
            or _plain(other) != _plain(judge)
        ):
            continue
        if any(who.parent.glob("*.jsonl")):
            different = [name for name in ("name", "endpoint") if other.get(name) != judge.get(name)]
            found.append(", ".join(f"{name} {redact(str(other.get(name)))!r}" for name in different))
    return found


def _plain(judge: Mapping[str, str]) -> dict[str, str]:
    """An identity without its name, and without slashes at the ends of its address."""
    words = str(judge.get("endpoint", "")).split(" ")
    return {**judge, "name": "", "endpoint": " ".join(word.rstrip("/") for word in words)}
