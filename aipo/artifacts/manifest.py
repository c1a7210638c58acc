"""What an artifact is: its fingerprint, its folder, and the manifest that says what lies in it and whence it came."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aipo.artifacts.files import (
    MANIFEST,
    MissingArtifactError,
    StaleArtifactError,
    check_files,
    record_files,
    sync_folder,
)
from aipo.artifacts.points import reached

SELF_HASH = "manifest_sha256"


@dataclass(frozen=True)
class Artifact:
    """A finished stage (or, in a plan, one to come)."""

    stage: str
    fingerprint: str
    path: Path
    executed: bool = False
    """True when this process made it just now, False when it was there."""

    def manifest(self) -> dict[str, Any]:
        """The manifest's content. Raises StaleArtifactError when it is missing, changed or another artifact's."""
        return load_manifest(self.path, self.stage, self.fingerprint)

    def check(self) -> dict[str, Any]:
        """The manifest, after a look at every file: all are hashed, but large weights only where they look changed.

        Raises StaleArtifactError.
        """
        manifest = self.manifest()
        check_files(self.path, manifest["files"])
        return manifest

    def verify(self, folder: str = "") -> dict[str, Any]:
        """The manifest, after every byte of every file was compared with it; of large weights, of those in `folder`
        alone where it is given. Raises StaleArtifactError."""
        manifest = self.manifest()
        check_files(self.path, manifest["files"], full=folder)
        return manifest


def fingerprint(stage: str, version: int, config: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """16 hex digits of SHA-256 over a canonical JSON of the arguments. Values JSON cannot hold raise TypeError."""
    content = {"stage": stage, "version": version, "config": config, "parents": parents}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def read_manifest(root: str | os.PathLike[str], stage: str, digest: str) -> dict[str, Any]:
    """The manifest of an artifact in the store at `root`, its files checked as before every use (`Artifact.check`).

    Raises StaleArtifactError, also when there is no such artifact.
    """
    folder = Path(root) / stage / digest
    return Artifact(stage, digest, folder).check()


def check_folder(folder: Path) -> dict[str, Any] | None:
    """The manifest of the artifact that lies in `folder`, its files checked; None for a folder of another kind.

    For commands that are given paths. Raises StaleArtifactError.
    """
    if not (folder / MANIFEST).exists():
        return None
    return Artifact(folder.resolve().parent.name, folder.resolve().name, folder).check()


def load_manifest(folder: Path, stage: str, digest: str) -> dict[str, Any]:
    """The manifest in `folder`, which must be that of `stage` and `digest` and hash to what it says of itself.

    Raises StaleArtifactError; where there is no such folder, the MissingArtifactError that is one.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise MissingArtifactError(f"artifact {stage}/{digest} is missing from {folder.parent.parent}")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StaleArtifactError(f"{path} cannot be read ({error})", folder) from error
    return manifest_of(text, path, stage, digest)


def manifest_of(text: bytes, path: Path | str, stage: str, digest: str) -> dict[str, Any]:
    """A manifest's content from its text, which was read at `path`; as `load_manifest`."""
    folder = Path(path).parent
    try:
        manifest = json.loads(text.decode("utf-8"))
    except ValueError as error:
        raise StaleArtifactError(f"{path} cannot be read ({error})", folder) from error
    if not isinstance(manifest, dict) or SELF_HASH not in manifest:
        raise StaleArtifactError(f"{path}: expected a manifest with {SELF_HASH}, found none", folder)
    if (manifest.get("stage"), manifest.get("fingerprint")) != (stage, digest):
        found = f"{manifest.get('stage')}/{manifest.get('fingerprint')}"
        raise StaleArtifactError(f"{path}: expected the one of {stage}/{digest}, found {found}'s", folder)
    if manifest[SELF_HASH] != _self_hash(manifest):
        raise StaleArtifactError(f"{path}: it does not hash to its own {SELF_HASH}", folder)
    return manifest


def seal(folder: Path, manifest: Mapping[str, Any], scratch: Collection[str] = ()) -> None:
    """Make `folder` a complete artifact: every file on the disk, recorded in the manifest, which is written last.

    What lies in `scratch` is not part of it.
    """
    files = record_files(folder, scratch)
    write_manifest(folder, {**manifest, "scratch": list(scratch), "files": files})


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest into `folder`, whole or not at all, with the hash of its own content, safely on the disk."""
    content = {**manifest, SELF_HASH: _self_hash(manifest)}
    temporary = folder / f"{MANIFEST}.tmp"
    reached("manifest.write", temporary)
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.flush()
        reached("manifest.written", temporary)
        os.fsync(file.fileno())
    reached("manifest.replace", temporary)
    os.replace(temporary, folder / MANIFEST)
    sync_folder(folder)
    reached("manifest.replaced", folder / MANIFEST)


def _self_hash(manifest: Mapping[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != SELF_HASH}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
