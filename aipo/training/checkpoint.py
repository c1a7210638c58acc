"""Checkpoints inside a stage: written atomically, one kept. Whoever keeps the trained model removes the last one.

A checkpoint is a folder: tensors in safetensors files, each process's own part in its own, through
torch.distributed.checkpoint; and `state.pt`, small, written last, with the SHA-256 of each of those files. Nothing is
put together on one machine, and what two processes wrote any number of them can read.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter, load, save
from torch.distributed.checkpoint.api import CheckpointException

from aipo.artifacts.files import hash_file, sync_folder
from aipo.artifacts.points import reached
from aipo.training.processes.world import ALONE, World

_STATE = "state.pt"
_FILE_BYTES = 2**30
"""Of one tensor file: so much is put together in memory at a time."""
_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile)
"""What a torn or changed file can raise, depending on where it was hit."""


class CheckpointError(RuntimeError):
    """A checkpoint that must not be resumed from."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is as it was written."""

    folder: Path
    step: int
    values: Mapping[str, Any]
    """What was saved beside the tensors."""
    together: World

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the saved numbers into these tensors, in place; into shards, each process's part.

        Raises CheckpointError where others were saved.
        """
        reader = HuggingFaceStorageReader(str(self.folder))
        found = reader.read_metadata().state_dict_metadata
        if differing := sorted(set(found) ^ set(tensors)):
            raise CheckpointError(
                f"{self.folder}: expected {len(tensors)} tensors, found {len(found)}; only one of the two has "
                f"{', '.join(differing[:3])}. {_remedy(self.folder)}"
            )
        with torch.no_grad(), _as_ours():
            load(dict(tensors), storage_reader=reader, no_dist=self.together.size == 1)


class Checkpoints:
    """The checkpoints of one run. `identity` says which run: another run's checkpoint is refused, not adopted.

    `together` are the processes each of which holds a part of the tensors: all of them call `save` and `load`.
    """

    def __init__(self, folder: Path, identity: str, together: World = ALONE) -> None:
        self.folder = folder
        self.identity = identity
        self.together = together

    def save(self, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any] | None = None) -> None:
        """Write the state after `step` optimizer steps; when it is safely there, older ones are removed.

        `values` are the main process's: numbers, texts and small tensors.
        """
        final = self.folder / f"step-{step:08d}"
        partial = self.folder / f"{final.name}.partial"
        if self.together.from_main(final.exists()):
            return
        if self.together.is_main:
            self.folder.mkdir(exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        self.together.wait()
        path = partial / _STATE
        reached("checkpoint.write", path)
        self._write(partial, tensors)
        hashes = self._hashes(partial)
        if self.together.is_main:
            with path.open("wb") as file:
                torch.save({"step": step, "identity": self.identity, "files": hashes, "values": values or {}}, file)
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
        self.together.wait()

    def load(self) -> Saved | None:
        """The newest state, or None. One of another run, or one that is not as it was written, raises CheckpointError.

        Every file is compared with the SHA-256 that was taken when it was written.
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
            identity, written = state["identity"], state["files"]
        except _UNREADABLE as error:
            raise CheckpointError(
                f"{path} cannot be read ({type(error).__name__}: {error}): it is not as it was written. "
                f"{_remedy(path.parent)}"
            ) from error
        if identity != self.identity:
            raise CheckpointError(
                f"{path.parent} belongs to a run with other settings, pairs or model; move {self.folder} elsewhere to "
                "start anew, or run the command that it belongs to"
            )
        there = self._hashes(path.parent)
        if changed := sorted(name for name in {*written, *there} if written.get(name) != there.get(name)):
            raise CheckpointError(
                f"{path.parent / changed[0]} is not as it was written (SHA-256). {_remedy(path.parent)}"
            )
        return Saved(path.parent, state["step"], state["values"], self.together)

    def _write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        places: dict[str, int] = {}
        size = 0
        for name, tensor in tensors.items():
            places[name] = 1 + size // _FILE_BYTES
            size += tensor.numel() * tensor.element_size() // self.together.size
        writer = HuggingFaceStorageWriter(str(folder), places, save_distributed=True)
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}  # safetensors holds no strides
        with _as_ours():
            save(whole, storage_writer=writer, no_dist=self.together.size == 1)

    def _hashes(self, folder: Path) -> dict[str, str]:
        """The SHA-256 of every tensor file, each taken by one of the processes."""
        files = sorted(folder.glob("*.safetensors"))
        mine = {path.name: hash_file(path) for path in files[self.together.rank :: self.together.size]}
        return {name: digest for part in self.together.gather(mine) for name, digest in part.items()}


def _remedy(checkpoint: Path) -> str:
    return (
        f"`mv {checkpoint} {checkpoint}.damaged` and run the same command again: this round's training starts anew; "
        "nothing else is lost"
    )


@contextmanager
def _as_ours() -> Iterator[None]:
    """Errors as they happened, not as torch.distributed.checkpoint wraps them: a full disk is told as one.

    Nor its remark that one process shares nothing: `no_dist` said so.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
            yield
    except CheckpointException as error:
        _, (cause, _) = min(error.failures.items())
        raise cause from error


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
