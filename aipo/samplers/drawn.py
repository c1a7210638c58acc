"""Batches of completions that were drawn, kept until the stage they belong to is complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from aipo.records import Completion, Decoding, from_row, to_row
from aipo.remote import Journal


class Drawn:
    """The kept batches of one policy, in a journal of its own folder: a torn last line is a batch that is drawn again.

    A whole batch is one entry. Its key holds every prompt and row of it, in order: with other neighbours the last bits
    of the logits would be others.
    """

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder)
        self._found: dict[str, list[list[Completion]]] | None = None

    def get(self, key: str) -> list[list[Completion]] | None:
        """The completions of each prompt of a batch, or None where it was not drawn yet."""
        if self._found is None:
            self._found = {}
            for row in self._journal.rows():
                groups = [[from_row(Completion, item) for item in group] for group in row["completions"]]
                self._found[row["key"]] = groups
        return self._found.get(key)

    def keep(self, key: str, completions: Sequence[Sequence[Completion]]) -> None:
        """Write a batch down."""
        self._journal.append({"key": key, "completions": [to_row(list(group)) for group in completions]})

    def close(self) -> None:
        """Let go of the file: a folder on NFS cannot be removed before."""
        self._journal.forget()


def batch_key(
    prompts: Sequence[Sequence[int]], rows: Sequence[Sequence[int]], decoding: Decoding, stop: Sequence[str]
) -> str:
    """The key of a batch: its prompts' ids, each row's own key, and how it is decoded."""
    content = [[list(prompt) for prompt in prompts], [list(group) for group in rows], to_row(decoding), list(stop)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
