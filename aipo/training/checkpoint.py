"""Checkpoints inside a stage: written atomically, one kept, gone when the run is done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_STATE = "state.pt"


class CheckpointError(RuntimeError):
    """A checkpoint that must not be resumed from."""


class Checkpoints:
    """The checkpoints of one run. `identity` says which run: another run's checkpoint is refused, not adopted."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.identity = identity

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` optimizer steps; when it is safely there, older ones are removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / f"step-{step:08d}"
        if final.exists():
            return
        partial = self.folder / f"{final.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        with (partial / _STATE).open("wb") as file:
            torch.save({"step": step, "identity": self.identity, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, final)
        for other in self.folder.iterdir():
            if other != final:
                shutil.rmtree(other)

    def load(self) -> dict[str, Any] | None:
        """The newest state, or None. A checkpoint of another run raises CheckpointError."""
        found = sorted(path for path in self.folder.glob("step-*") if path.suffix != ".partial")
        if not found:
            return None
        state = torch.load(found[-1] / _STATE, map_location="cpu", weights_only=True)
        if state["identity"] != self.identity:
            raise CheckpointError(
                f"{found[-1]} belongs to a run with other settings, pairs or model; remove {self.folder} to start anew"
            )
        return state

    def remove(self) -> None:
        """Remove all of them: the run is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


class MetricsFile:
    """One JSON object per optimizer step. Opening it drops what a killed run wrote after its last checkpoint."""

    def __init__(self, path: Path, done_steps: int) -> None:
        self.path = path
        self.rows = [row for row in _complete_rows(path) if row["step"] <= done_steps]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        os.replace(partial, path)

    def append(self, row: Mapping[str, float]) -> None:
        """Write a row, at once."""
        self.rows.append(dict(row))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _complete_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file whose last line may have been cut by a kill."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
