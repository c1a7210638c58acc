"""What lies in a store: artifacts, unfinished builds, locks, paid replies, what was set aside, and how large it is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aipo.artifacts.claims import ASIDE, INCOMING, LOCKS
from aipo.artifacts.files import StaleArtifactError, StoreError, weights_of
from aipo.artifacts.manifest import Artifact

REPLIES = "replies"
"""The folder beside the stages that holds what judges were paid for."""
FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Entry:
    """A finished artifact on the disk. An unreadable manifest is None, its parents unknown."""

    artifact: Artifact
    size_bytes: int
    manifest: Mapping[str, Any] | None

    @property
    def parents(self) -> tuple[str, ...]:
        """Fingerprints of what it was made from."""
        return tuple((self.manifest or {}).get("parents", {}).values())

    @property
    def has_weights(self) -> bool:
        """True when it holds a model."""
        return bool(weights_of(self.artifact.path))

    @property
    def has_replies(self) -> bool:
        """True when it holds replies that may have been paid for."""
        return any(self.artifact.path.glob("replies*.jsonl"))


@dataclass(frozen=True)
class Inventory:
    """A store's content; paths are below its root."""

    root: Path
    entries: Mapping[str, Entry]
    """Finished artifacts, by fingerprint."""
    partials: tuple[Path, ...]
    """Folders of unfinished builds."""
    locks: tuple[Path, ...]
    aside: tuple[Path, ...]
    replies: tuple[Path, ...]
    incoming: tuple[Path, ...]
    """Folders in which artifacts of a remote store are put together."""

    @classmethod
    def of(cls, root: Path) -> Inventory:
        """Read `root`. Raises StoreError when it is no folder."""
        if not root.is_dir():
            raise StoreError(f"{root}: no such store; expected the folder that store.root names (outputs by default)")
        entries: dict[str, Entry] = {}
        partials: list[Path] = []
        for stage in sorted(root.iterdir()):
            if not stage.is_dir() or stage.name.startswith(".") or stage.name == REPLIES:
                continue
            for path in sorted(stage.iterdir()):
                digest, _, left = path.name.partition(".partial")
                if not path.is_dir() or not FINGERPRINT.fullmatch(digest):
                    continue
                if path.name != digest:
                    partials.append(path)
                    continue
                artifact = Artifact(stage.name, digest, path)
                try:
                    manifest = artifact.manifest()
                except StaleArtifactError:
                    manifest = None
                entries[digest] = Entry(artifact, size_bytes(path), manifest)
        kept = [_children(root / name) for name in (LOCKS, ASIDE, REPLIES, INCOMING)]
        return cls(root, entries, tuple(partials), *kept)

    def ancestors(self, digests: Iterable[str]) -> set[str]:
        """These artifacts and all that they were made from."""
        found: set[str] = set()
        left = list(digests)
        while left:
            digest = left.pop()
            if digest not in found:
                found.add(digest)
                left += self.entries[digest].parents if digest in self.entries else ()
        return found

    def descendants(self, digests: Iterable[str]) -> set[str]:
        """Artifacts made from any of these, directly or not; not these themselves."""
        found = set(digests)
        begun = set(found)
        while more := {key for key, entry in self.entries.items() if key not in found and found & set(entry.parents)}:
            found |= more
        return found - begun


def size_bytes(path: Path) -> int:
    """Of a file, or of all files below a folder."""
    if not path.is_dir():
        return path.lstat().st_size
    return sum((Path(base) / name).lstat().st_size for base, _, files in os.walk(path) for name in files)


def _children(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.iterdir())) if folder.is_dir() else ()
