"""Checkpoints inside a stage: written atomically, one kept. Whoever keeps the trained model removes the last one."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from aipo.artifacts.files import sync_folder
from aipo.artifacts.points import reached

_STATE = "state.pt"
_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile)
"""What a torn or changed file can raise, depending on where it was hit."""


class CheckpointError(RuntimeError):
    """A checkpoint that must not be resumed from."""


class Checkpoints:
    """The checkpoints of one run. `identity` says which run: another run's checkpoint is refused, not adopted."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.identity = identity

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` optimizer steps; when it is safely there, older ones are removed."""
        self.folder.mkdir(exist_ok=True)
        final = self.folder / f"step-{step:08d}"
        if final.exists():
            return
        partial = self.folder / f"{final.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        path = partial / _STATE
        reached("checkpoint.write", path)
        with path.open("wb") as file:
            torch.save({"step": step, "identity": self.identity, **state}, file)
            file.flush()
            reached("checkpoint.written", path)
            os.fsync(file.fileno())
        sync_folder(partial)
        reached("checkpoint.replace", final)
        os.replace(partial, final)
        sync_folder(self.folder)
        reached("checkpoint.replaced", final)
        for other in self.folder.iterdir():
            if other != final:
                shutil.rmtree(other)

    def load(self) -> dict[str, Any] | None:
        """The newest state, or None. One of another run, or one that is not as it was written, raises CheckpointError.

        Every tensor is compared with the CRC-32 that torch wrote beside it.
        """
        found = sorted(self.folder.glob(f"step-{'[0-9]' * 8}/{_STATE}"))
        if not found:
            return None
        path = found[-1]
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} does not match its CRC-32")
            state = torch.load(path, map_location="cpu", weights_only=True)
            identity = state["identity"]
        except _UNREADABLE as error:
            raise CheckpointError(
                f"{path} cannot be read ({type(error).__name__}: {error}): it is not as it was written. "
                f"`mv {path.parent} {path.parent}.damaged` and run the same command again: this round's training "
                "starts anew; nothing else is lost"
            ) from error
        if identity != self.identity:
            raise CheckpointError(
                f"{path.parent} belongs to a run with other settings, pairs or model; move {self.folder} elsewhere to "
                "start anew, or run the command that it belongs to"
            )
        return state


class MetricsFile:
    """One JSON object per optimizer step. Opening it drops what a killed run wrote after its last checkpoint."""

    def __init__(self, path: Path, done_steps: int) -> None:
        self.path = path
        self.rows = [row for row in _complete_rows(path) if row["step"] <= done_steps]
        if len(self.rows) != done_steps:
            checkpoints = path.parent / "checkpoints"
            raise CheckpointError(
                f"{path}: expected the {done_steps} steps before the checkpoint, found {len(self.rows)}; "
                f"`mv {checkpoints} {checkpoints}.aside` and run the same command again: this round starts anew"
            )
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        reached("metrics.replace", partial)
        os.replace(partial, path)

    def append(self, row: Mapping[str, float]) -> None:
        """Write a row, at once."""
        self.rows.append(dict(row))
        reached("metrics.append", self.path)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        reached("metrics.appended", self.path)


def _complete_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file whose last line may have been cut by a kill."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
