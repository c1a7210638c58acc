"""The artifact store: one folder per finished stage, named by a fingerprint of all that shapes its content.

`<root>/<stage>/<fingerprint>/` holds the data and a `manifest.json`. A stage works in `<fingerprint>.partial/`, writes
its manifest there last, and the folder takes its final name by one atomic rename: a folder without `.partial` is
complete. The fingerprint hashes the stage's resolved config, its version number and its parents' fingerprints, and
nothing else. What does not change the content (commit, packages, seconds, counts) stands in the manifest.

This module knows no stage.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import platform
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from filelock import AcquireReturnProxy, FileLock, SoftFileLease, Timeout

MANIFEST = "manifest.json"
RECORDED_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "scikit-learn", "numpy", "pandas", "aipo")


class StaleArtifactError(RuntimeError):
    """An artifact's files are not the ones its manifest lists."""


@dataclass(frozen=True)
class Artifact:
    """A finished stage (or, in a plan, one to come)."""

    stage: str
    fingerprint: str
    path: Path
    executed: bool = False
    """True when this process made it just now, False when it was there."""

    def manifest(self) -> dict[str, Any]:
        """The manifest's content."""
        return json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))


@dataclass
class StageReport:
    """What a stage's work returns for its manifest."""

    counts: dict[str, float | int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows left out, by reason."""


@dataclass(frozen=True)
class StageEvent:
    """What a listener learns when a stage ends (or is planned)."""

    stage: str
    fingerprint: str
    outcome: Literal["run", "cached", "planned"]
    seconds: float
    report: StageReport
    note: str


def fingerprint(stage: str, version: int, config: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """16 hex digits of SHA-256 over a canonical JSON of the arguments. Values JSON cannot hold raise TypeError."""
    content = {"stage": stage, "version": version, "config": config, "parents": parents}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Store:
    """Runs stages at most once.

    Two processes that need the same stage at once: one works, the other waits for its lock and finds the result.
    `lock="flock"` is released by the system when its owner dies. Where a file system has no working flock (some NFS
    and Lustre mounts), `lock="lease"` renews a claim while its owner lives and lets others take it after 60 s without.
    """

    def __init__(self, root: str | os.PathLike[str], lock: Literal["flock", "lease"] = "flock") -> None:
        if lock not in ("flock", "lease"):
            raise ValueError(f"store.lock must be flock or lease, got {lock!r}")
        self.root = Path(root)
        self.lock = lock
        self.listeners: list[Callable[[StageEvent], None]] = []

    def missing(self) -> list[str]:
        """Why nothing could be written under `root`. Writes nothing itself."""
        place = self.existing_folder()
        if not place.is_dir():
            return [f"store.root={self.root}: {place} is not a folder; choose another"]
        if not os.access(place, os.W_OK | os.X_OK):
            return [f"store.root={self.root}: no permission to write in {place}; choose another"]
        return []

    def existing_folder(self) -> Path:
        """`root`, or as much of its path as is there."""
        place = self.root.absolute()
        return next(path for path in (place, *place.parents) if path.exists())

    def run(
        self,
        stage: str,
        *,
        version: int,
        config: Mapping[str, Any],
        parents: Mapping[str, str],
        build: Callable[[Path], StageReport],
        resumable: bool = False,
        note: str = "",
    ) -> Artifact:
        """The artifact of this stage; `build(folder)` fills its folder if it is not there yet.

        A `resumable` build finds in its folder what an earlier, killed attempt left; others start from an empty one.
        An exception in `build` leaves no artifact and passes through.
        """
        digest = fingerprint(stage, version, config, parents)
        final = self.root / stage / digest
        started = time.perf_counter()
        executed = False
        if not final.exists():
            final.parent.mkdir(parents=True, exist_ok=True)
            with self._held(stage, digest):
                if not final.exists():
                    self._build(stage, digest, version, config, parents, build, resumable)
                    executed = True
        artifact = Artifact(stage, digest, final, executed)
        manifest = artifact.manifest()
        _check_files(artifact, manifest)
        seconds = time.perf_counter() - started
        report = StageReport(manifest["counts"], manifest["dropped"])
        self._tell(StageEvent(stage, digest, "run" if executed else "cached", seconds, report, note))
        return artifact

    def find(self, stage: str, digest: str) -> Artifact | None:
        """The finished artifact of that fingerprint, or None."""
        path = self.root / stage / digest
        return Artifact(stage, digest, path) if path.exists() else None

    def _tell(self, event: StageEvent) -> None:
        for listener in self.listeners:
            listener(event)

    def _held(self, stage: str, digest: str) -> AcquireReturnProxy:
        folder = self.root / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        path = str(folder / f"{stage}-{digest}.lock")
        leased = self.lock == "lease"
        lock = SoftFileLease(path, lease_duration=60.0) if leased else FileLock(path, fallback_to_soft=False)
        try:
            return lock.acquire(timeout=1)
        except Timeout:
            logging.getLogger("aipo").info("%-11s %s  waiting for the process that works on it", stage, digest)
            return lock.acquire()
        except NotImplementedError as error:
            raise RuntimeError(f"{folder} is on a file system without flock; run with store.lock=lease") from error

    def _build(
        self,
        stage: str,
        digest: str,
        version: int,
        config: Mapping[str, Any],
        parents: Mapping[str, str],
        build: Callable[[Path], StageReport],
        resumable: bool,
    ) -> None:
        final = self.root / stage / digest
        partial = final.with_name(f"{digest}.partial")
        if partial.exists() and not resumable:
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        started = time.perf_counter()
        report = build(partial)
        manifest = {
            "stage": stage,
            "fingerprint": digest,
            "version": version,
            "config": config,
            "parents": parents,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(time.perf_counter() - started, 3),
            "counts": report.counts,
            "dropped": report.dropped,
            "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
            "commit": _commit(),
            "packages": _packages(),
            "files": _file_sizes(partial),
        }
        temporary = partial / f"{MANIFEST}.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, partial / MANIFEST)
        os.rename(partial, final)


class PlanStore(Store):
    """A store that executes nothing: it only tells which stages would run and which are there."""

    def run(
        self,
        stage: str,
        *,
        version: int,
        config: Mapping[str, Any],
        parents: Mapping[str, str],
        build: Callable[[Path], StageReport],
        resumable: bool = False,
        note: str = "",
    ) -> Artifact:
        digest = fingerprint(stage, version, config, parents)
        found = self.find(stage, digest)
        report = StageReport()
        if found is not None:
            manifest = found.manifest()
            report = StageReport(manifest["counts"], manifest["dropped"])
        self._tell(StageEvent(stage, digest, "cached" if found else "planned", 0.0, report, note))
        return Artifact(stage, digest, self.root / stage / digest)


def _file_sizes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}


def _check_files(artifact: Artifact, manifest: Mapping[str, Any]) -> None:
    for name, size in manifest["files"].items():
        path = artifact.path / name
        actual = path.stat().st_size if path.exists() else None
        if actual != size:
            found = "it is missing" if actual is None else f"it has {actual} bytes"
            raise StaleArtifactError(
                f"{path}: the manifest lists {size} bytes, {found}. The artifact was changed after it was made; "
                f"delete {artifact.path} to have it made again."
            )


@functools.cache
def _commit() -> str | None:
    """The commit of the source tree, with `+` when it has uncommitted changes; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            result = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return result.stdout.strip() if result.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


@functools.cache
def _packages() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
