"""`aipo store push` and `aipo store pull`: a local store and its remote one, without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aipo.artifacts.claims import Claim, LockKind
from aipo.artifacts.files import MANIFEST, StoreError, missing_weights
from aipo.artifacts.inventory import REPLIES, Entry, Inventory
from aipo.artifacts.mirror import Mirror
from aipo.artifacts.remote_store import RemoteStore


def push_all(root: Path, url: str, entries: Sequence[Entry]) -> str:
    """Send artifacts, each checked before, and all kept judge replies. Returns a line that says how much that was.

    Raises StoreError at the first that is changed or cannot be sent.
    """
    mirror = Mirror(root, RemoteStore(url))
    for entry in entries:
        mirror.push(entry.artifact, entry.artifact.verify())
    judges = Inventory.of(root).replies
    for folder in judges:
        mirror.folder(f"{REPLIES}/{folder.name}").push()
    return f"{len(entries)} artifacts and the replies of {len(judges)} judges are in {mirror.remote.shown}"


def pull_whole(root: Path, url: str, fingerprints: Sequence[str], lock: LockKind) -> list[Path]:
    """Bring artifacts with their weights; their folders. Fingerprints may be cut short. Raises StoreError."""
    mirror = Mirror(root, RemoteStore(url, push=False))
    there = [name.split("/") for name in mirror.remote.sizes("") if name.count("/") == 2 and name.endswith(MANIFEST)]
    brought = []
    for digits in fingerprints:
        found = [(stage, digest) for stage, digest, _ in there if digest.startswith(digits)]
        if len(found) != 1:
            raise StoreError(f"{digits}: {len(found)} artifacts begin with it in {mirror.remote.shown}; expected one")
        with Claim(root, *found[0], lock) as claim:
            if not claim.final.exists():
                mirror.pull(claim)
            if names := missing_weights(claim.final):
                mirror.restore(claim, names)
            brought.append(claim.final)
    return brought
