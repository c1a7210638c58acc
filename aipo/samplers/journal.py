"""What a server has answered so far, on disk: an interrupted stage asks for the rest only."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

from aipo.records import Completion, from_row, to_row


class Journal:
    """An append-only JSONL file of answered requests, each under its key. Safe for threads, not for processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def read(self) -> dict[str, list[Completion]]:
        """Everything answered. A last line without an end, written as the process died, is cut off."""
        if not self.path.exists():
            return {}
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        rows = [json.loads(line) for line in whole.splitlines()]
        return {row["key"]: [from_row(Completion, item) for item in row["completions"]] for row in rows}

    def add(self, key: str, completions: Sequence[Completion]) -> None:
        """Record an answered request."""
        line = json.dumps({"key": key, "completions": to_row(list(completions))}, ensure_ascii=False)
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
