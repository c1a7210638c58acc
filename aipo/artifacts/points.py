"""Named points at which a process may be killed or a call may fail, so that tests can make exactly that happen.

Outside tests `hook` is None and a point costs one comparison. `tests/faults` sets it in a child process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

POINTS = (
    "claim.folder",
    "claim.acquire",
    "claim.acquired",
    "claim.release",
    "partial.take_over",
    "partial.copied",
    "partial.create",
    "partial.clear",
    "aside.move",
    "data.sync",
    "data.synced",
    "manifest.write",
    "manifest.written",
    "manifest.replace",
    "manifest.replaced",
    "scratch.remove",
    "artifact.confirm",
    "artifact.rename",
    "artifact.renamed",
    "artifact.restore",
    "remote.fetch",
    "remote.pulled",
    "remote.send",
    "remote.sent",
    "remote.manifest",
    "remote.complete",
    "checkpoint.write",
    "checkpoint.written",
    "checkpoint.replace",
    "checkpoint.replaced",
    "metrics.replace",
    "metrics.append",
    "metrics.appended",
)
"""Every registered point: the writes, renames and locks of the store and of a training run's checkpoints."""

hook: Callable[[str, Path | None], None] | None = None


def reached(point: str, path: Path | None = None) -> None:
    """Tell that `point` is reached; `path` is the file or folder it is about."""
    if hook is not None:
        hook(point, path)
