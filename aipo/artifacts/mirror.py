"""A local store and its remote one: what is pulled from there, what is pushed there, and what is known to be there.

An artifact is pulled as if its weights had been pruned: a job that finds all its stages made needs none of them. They
follow when a stage is about to read them. Of a folder of this machine that is only read, links are made instead.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aipo.artifacts.claims import INCOMING, Claim
from aipo.artifacts.files import (
    MANIFEST,
    WEIGHTS,
    make_folder,
    missing_weights,
    note_pruned,
    record_files,
    remove,
    sync_file,
    sync_folder,
)
from aipo.artifacts.manifest import Artifact
from aipo.artifacts.points import reached
from aipo.artifacts.remote_store import RemoteStore

logger = logging.getLogger("aipo")
PUSHED = ".pushed"
"""Folder of empty files: what is known to be whole in a remote store, which then is not asked again."""


class Mirror:
    """What the store at `root` has to do with `remote`."""

    def __init__(self, root: Path, remote: RemoteStore) -> None:
        self.root = root
        self.remote = remote

    def pull(self, claim: Claim) -> bool:
        """Put a claimed artifact into place, without its weights, if the remote store has it; returns whether.

        Raises StoreError when it is there and not as it was sent, or the remote store does not answer.
        """
        found = self.remote.manifest(claim.stage, claim.digest)
        if found is None:
            return False
        text, manifest = found
        folder = self._incoming(claim)
        there = self.remote.local_folder(claim.stage, claim.digest)
        if there is not None:
            remove(folder)  # a copy or link of an earlier attempt
            make_folder(folder, self.root)
            _link(there, folder, [*manifest["files"], MANIFEST])
            if pruned := [name for name in manifest["files"] if not (folder / name).exists() and _is_weights(name)]:
                note_pruned(folder, pruned)
        else:
            weights = [name for name in manifest["files"] if _is_weights(name)]
            small = [name for name in manifest["files"] if not _is_weights(name)]
            (folder / MANIFEST).unlink(missing_ok=True)
            self.remote.fetch(claim.stage, claim.digest, small, manifest["files"], folder)
            if weights:
                note_pruned(folder, weights)
            record_files(folder, ())
            (folder / MANIFEST).write_bytes(text)
            sync_file(folder / MANIFEST)
        claim.confirm()
        reached("remote.pulled", folder)
        os.rename(folder, claim.final)
        sync_folder(claim.final.parent)
        self._note(claim.stage, claim.digest)
        how = "linked to" if there is not None else "pulled from"
        logger.info("%-11s %s  %s %s", claim.stage, claim.digest, how, self.remote.shown)
        return True

    def restore(self, claim: Claim, names: Sequence[str]) -> bool:
        """Bring weights that are not in the local artifact; False where the remote store has none of the same bits."""
        found = self.remote.manifest(claim.stage, claim.digest)
        files = Artifact(claim.stage, claim.digest, claim.final).manifest()["files"]
        if found is None or any(found[1]["files"].get(name) != files[name] for name in names):
            return False
        if not set(names) <= set(self.remote.sizes(f"{claim.stage}/{claim.digest}")):  # pruned there, too
            return False
        logger.info("%-11s %s  its weights are pulled from %s", claim.stage, claim.digest, self.remote.shown)
        folder = self._incoming(claim)
        self.remote.fetch(claim.stage, claim.digest, names, files, folder)
        claim.put_back({name: folder / name for name in names})
        remove(folder)
        return True

    def push(self, artifact: Artifact, manifest: Mapping[str, Any]) -> None:
        """Send a finished artifact, unless it is known to be there. Raises StoreError."""
        if not self.remote.push or self._noted(artifact.stage, artifact.fingerprint).exists():
            return
        if missing := missing_weights(artifact.path):
            told = "%-11s %s  not pushed to %s: its weights were pruned, as %s"
            logger.warning(told, artifact.stage, artifact.fingerprint, self.remote.shown, missing[0])
            return
        there = self.remote.send(artifact.stage, artifact.fingerprint, artifact.path, manifest)
        if there is not None and there["files"] != manifest["files"]:
            told = "%-11s %s  %s has it from %s, with other bytes than here (%s); both stay as they are"
            said = (self.remote.shown, there.get("host"), manifest.get("host"))
            logger.warning(told, artifact.stage, artifact.fingerprint, *said)
        self._note(artifact.stage, artifact.fingerprint)

    def folder(self, name: str) -> MirroredFolder:
        """A folder of the store that holds no artifact."""
        return MirroredFolder(self.root / name, name, self.remote)

    def _incoming(self, claim: Claim) -> Path:
        """Where an artifact is put together; what an earlier attempt brought is there."""
        folder = self.root / INCOMING / f"{claim.stage}-{claim.folder.name}"
        make_folder(folder, self.root)
        return folder

    def _noted(self, stage: str, digest: str) -> Path:
        return self.root / PUSHED / self.remote.name / f"{stage}-{digest}"

    def _note(self, stage: str, digest: str) -> None:
        noted = self._noted(stage, digest)
        try:
            make_folder(noted.parent, self.root)
            noted.touch()
        except PermissionError:  # a store that is only read: the remote one is asked again next time
            pass


class MirroredFolder:
    """A folder of append-only files, each with one writer: whichever copy of a file is longer holds the other one."""

    def __init__(self, path: Path, name: str, remote: RemoteStore) -> None:
        self._path, self._name, self._remote = path, name, remote
        self._there: dict[str, int] | None = None

    def pull(self) -> None:
        """Bring every file that is not here, or longer there. Raises StoreError."""
        self._there = self._remote.sizes(self._name)
        for name, size in self._there.items():
            path = self._path / name
            if path.exists() and path.stat().st_size >= size:
                continue
            make_folder(path.parent, self._path.parent.parent)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            reached("remote.fetch", path)
            self._remote.fetch_file(f"{self._name}/{name}", temporary)
            os.replace(temporary, path)

    def push(self) -> None:
        """Send every file that is longer here. Raises StoreError."""
        if not self._remote.push:
            return
        if self._there is None:
            self._there = self._remote.sizes(self._name)
        for path in sorted(path for path in self._path.glob("*") if path.is_file() and not path.name.startswith(".")):
            size = path.stat().st_size
            if size > self._there.get(path.name, 0) and not path.name.endswith(".tmp"):
                reached("remote.send", path)
                self._remote.send_file(path, f"{self._name}/{path.name}")
                reached("remote.sent", path)
                self._there[path.name] = size


def _is_weights(name: str) -> bool:
    return name.endswith(WEIGHTS)


def _link(there: Path, folder: Path, names: Sequence[str]) -> None:
    """Links to the files of an artifact that are there."""
    for name in names:
        if (there / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to((there / name).absolute())
