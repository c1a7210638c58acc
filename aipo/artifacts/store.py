"""The artifact store: one folder per finished stage, named by a fingerprint of all that shapes its content.

`<root>/<stage>/<fingerprint>/` holds the data and a `manifest.json`. A stage works in `<fingerprint>.partial/`, writes
its manifest there last, and the folder takes its final name by one atomic rename: a folder without `.partial` is
complete. The fingerprint hashes the stage's resolved config, its version number and its parents' fingerprints, and
nothing else. What does not change the content (machine, commit, packages, seconds, counts) stands in the manifest.

This module knows no stage.
"""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

from aipo.artifacts.claims import Claim, ClaimLost, LockKind, logger
from aipo.artifacts.files import StoreError, hash_file, missing_weights, remove, sync_folder
from aipo.artifacts.manifest import Artifact, fingerprint, seal
from aipo.artifacts.mirror import Mirror
from aipo.artifacts.points import reached
from aipo.artifacts.provenance import commit, provenance
from aipo.artifacts.remote_store import RemoteStore
from aipo.remote.redaction import require_no_key

LONGEST = "x" * 100
"""About as long as the path of a file in a store becomes."""
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass
class StageReport:
    """What a stage's work returns for its manifest."""

    counts: dict[str, float | int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows left out, by reason."""
    scratch: tuple[str, ...] = ()
    """Files and folders that are needed only until the artifact is complete, as checkpoints: removed then."""


@dataclass(frozen=True)
class StageEvent:
    """What a listener learns when a stage ends (or is planned)."""

    stage: str
    fingerprint: str
    outcome: Literal["run", "cached", "planned"]
    seconds: float
    report: StageReport
    note: str


class Store:
    """Runs stages at most once.

    Two processes that need the same stage at once: one works, the other waits for its lock and finds the result.
    `lock="flock"` is released by the system when its owner dies. Where a file system has no working flock (some NFS
    and Lustre mounts), `lock="lease"` renews a claim while its owner lives and lets others take it after 60 s without;
    an owner that wakes up after that can put nothing into place any more.

    A store that is complete for a job is only read. Its files are compared with their manifests whenever they are used.

    `remote` is the URL of a second store, on an object store or elsewhere: what it has is pulled, not made, and what is
    made is pushed to it, or with `push=False` not.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        lock: LockKind = "flock",
        remote: str | None = None,
        push: bool = True,
    ) -> None:
        if lock not in ("flock", "lease"):
            raise ValueError(f"store.lock must be flock or lease, got {lock!r}")
        if not str(root).strip():
            raise ValueError(f"store.root must name a folder, got {str(root)!r}")
        try:
            os.lstat(Path(root) / LONGEST)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise ValueError(f"store.root: no file can have so long a name ({error.strerror}): {root}") from error
        if remote is not None:
            require_no_key("store.remote", remote)
        self.root = Path(root)
        self.lock: LockKind = lock
        self.mirror = None if remote is None else Mirror(self.root, RemoteStore(remote, push))
        self.listeners: list[Callable[[StageEvent], None]] = []
        self.on_begin: list[Callable[[str, str], None]] = []
        """Called with stage and note when an artifact is in no store and is now made, or waited for."""
        self._known: dict[str, Artifact] = {}
        """Those this process has met, by fingerprint."""
        self._remake: dict[str, Callable[[], None]] = {}
        """How to make their pruned weights again."""

    def missing(self) -> list[str]:
        """Why nothing could be written under `root`. Leaves nothing there itself.

        A folder that may only be read is accepted when it holds something: a job needs no more than that if it is all.
        """
        place = self.existing_folder()
        if not place.is_dir():
            return [f"store.root={self.root}: {place} is not a folder; choose another"]
        if place == self.root and os.access(place, os.R_OK | os.X_OK) and any(place.iterdir()):
            return self._missing_remote()
        if not os.access(place, os.W_OK | os.X_OK):
            return [f"store.root={self.root}: no permission to write in {place}; choose another"]
        try:
            with TemporaryFile(dir=place) as file:
                file.write(b"1")
                file.flush()
        except OSError as error:  # a full disk, a quota, a file system whose files are no files
            return [f"store.root={self.root}: nothing can be made in {place} ({error.strerror}); choose another"]
        return self._missing_remote()

    def _missing_remote(self) -> list[str]:
        return [] if self.mirror is None else self.mirror.remote.missing()

    def existing_folder(self) -> Path:
        """`root`, or as much of its path as is there."""
        places = (self.root, *self.root.absolute().parents)
        return next(path for path in places if os.path.exists(path))  # False where a folder on the way is closed

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
        verify: Collection[str] = (),
    ) -> Artifact:
        """The artifact of this stage; `build(folder)` fills its folder if it is not there yet.

        A `resumable` build finds in its folder what an earlier, killed attempt left; others start from an empty one.
        Before a build, the files of its parents are checked; of those that `verify` names (`policy`, or `policy/model`
        for a folder of it), every byte. An exception in `build` leaves no artifact and passes through. Raises
        StaleArtifactError when a file is not what its manifest says, and StoreError when the artifact is not there and
        the disk or its permissions do not let it be made.
        """
        digest = fingerprint(stage, version, config, parents)
        final = self.root / stage / digest
        started = time.perf_counter()
        content = {"stage": stage, "fingerprint": digest, "version": version, "config": config, "parents": parents}
        try:
            if not (there := final.exists()) and self._remote_manifest(stage, digest) is None:
                for told in self.on_begin:
                    told(stage, note)
            executed = not there and self._make(content, build, resumable, verify)
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise
            raise StoreError(
                f"{stage}/{digest}: {error}. Nothing that is finished is lost: make room, or mend the disk or its "
                "permissions, and run the same command again"
            ) from error
        self._remake[digest] = lambda: self._restore(content, build, resumable, verify)
        artifact = Artifact(stage, digest, final, executed)
        manifest = artifact.manifest() if executed else artifact.check()
        if self.mirror is not None:
            self.mirror.push(artifact, manifest)
        self._known[digest] = artifact
        report = StageReport(manifest["counts"], manifest["dropped"])
        seconds = time.perf_counter() - started
        self._tell(StageEvent(stage, digest, "run" if executed else "cached", seconds, report, note))
        return artifact

    def find(self, stage: str, digest: str) -> Artifact | None:
        """The finished artifact of that fingerprint, or None."""
        path = self.root / stage / digest
        return Artifact(stage, digest, path) if path.exists() else None

    def _remote_manifest(self, stage: str, digest: str) -> dict[str, Any] | None:
        try:
            there = None if self.mirror is None else self.mirror.remote.manifest(stage, digest)
        except StoreError:  # what pulls it, or a plan's list of what is missing, says it
            return None
        return there[1] if there else None

    def _tell(self, event: StageEvent) -> None:
        for listener in self.listeners:
            listener(event)

    def _make(
        self,
        content: Mapping[str, Any],
        build: Callable[[Path], StageReport],
        resumable: bool,
        verify: Collection[str],
    ) -> bool:
        """Build the artifact, or wait for whoever does; True when this process built it."""
        claim = Claim(self.root, content["stage"], content["fingerprint"], self.lock)
        while True:
            with claim:
                if claim.final.exists():
                    return False
                try:
                    if self.mirror is not None and self.mirror.pull(claim):
                        return False
                    self._check_parents(content["parents"], verify)
                    self._build(claim, content, build, resumable)
                    return True
                except ClaimLost:
                    lost = True
                except Exception as error:
                    # A claim's folder is gone or renamed once another process has it: not this build's fault.
                    lost = claim.is_lost(error)
                    if not lost:
                        claim.hand_over()
                        raise
                except BaseException:
                    if not claim.is_lost():
                        claim.hand_over()
                    raise
                if lost:
                    logger.warning(
                        "%-11s %s  this process was stopped for so long that %s has taken its work over; that one's is "
                        "used",
                        claim.stage,
                        claim.digest,
                        claim.owner(),
                    )
                    claim.discard()

    def _check_parents(self, parents: Mapping[str, str], verify: Collection[str]) -> None:
        for name, digest in parents.items():
            if (artifact := self._known.get(digest)) is not None:
                if missing_weights(artifact.path):
                    self._remake[digest]()
                loaded = [item.partition("/")[2] for item in verify if item.partition("/")[0] == name]
                artifact.verify(loaded[0]) if loaded else artifact.check()

    def _restore(
        self,
        content: Mapping[str, Any],
        build: Callable[[Path], StageReport],
        resumable: bool,
        verify: Collection[str],
    ) -> None:
        """Make the pruned weights of an artifact again, and put them back when they are the same to the bit."""
        with Claim(self.root, content["stage"], content["fingerprint"], self.lock) as claim:
            names = missing_weights(claim.final)
            if not names or (self.mirror is not None and self.mirror.restore(claim, names)):
                return
            logger.info("%-11s %s  its weights were pruned and are made again", claim.stage, claim.digest)
            self._check_parents(content["parents"], verify)
            files = Artifact(claim.stage, claim.digest, claim.final).manifest()["files"]
            try:
                if not claim.take_over(resumable):
                    build(claim.folder)
            except BaseException:
                claim.hand_over()
                raise
            made = {name: claim.folder / name for name in names}
            other = [
                name for name, path in made.items() if not path.exists() or hash_file(path) != files[name]["sha256"]
            ]
            if other:
                claim.set_aside(claim.folder)
                raise StoreError(
                    f"{claim.final / other[0]} was pruned, and this machine makes other weights than those that its "
                    "manifest names; what came from the pruned ones would not belong to these. Run on a machine like "
                    f"the manifest's, or `mv {claim.final} elsewhere` and run again with new weights"
                )
            claim.put_back(made)
            claim.discard()

    def _build(
        self,
        claim: Claim,
        content: Mapping[str, Any],
        build: Callable[[Path], StageReport],
        resumable: bool,
    ) -> None:
        commit()  # of the code that begins, not of what it was changed to meanwhile
        complete = claim.take_over(resumable)
        folder = claim.folder
        if complete:
            scratch = Artifact(claim.stage, claim.digest, folder).manifest()["scratch"]
        else:
            started = time.perf_counter()
            report = build(folder)
            scratch = report.scratch
            manifest = {
                **content,
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "seconds": round(time.perf_counter() - started, 3),
                "counts": report.counts,
                "dropped": report.dropped,
                "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
                **provenance(),
            }
            seal(folder, manifest, scratch)
        for name in scratch:
            reached("scratch.remove", folder / name)
            remove(folder / name)
        reached("artifact.confirm", folder)
        claim.confirm()
        reached("artifact.rename", folder)
        try:
            os.rename(folder, claim.final)
        except OSError as error:
            if claim.is_lost(error) or claim.final.exists():
                raise ClaimLost from None
            raise
        sync_folder(claim.final.parent)
        reached("artifact.renamed", claim.final)


class PlanStore(Store):
    """A store that executes nothing: it only tells which stages would run and which are there."""

    @classmethod
    def of(cls, store: Store) -> PlanStore:
        """What `store` would do."""
        plan = cls(store.root, store.lock)
        plan.mirror = store.mirror
        return plan

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
        verify: Collection[str] = (),
    ) -> Artifact:
        digest = fingerprint(stage, version, config, parents)
        found = self.find(stage, digest)
        manifest = self._remote_manifest(stage, digest) if found is None else found.manifest()
        report = StageReport() if manifest is None else StageReport(manifest["counts"], manifest["dropped"])
        self._tell(StageEvent(stage, digest, "cached" if manifest else "planned", 0.0, report, note))
        return Artifact(stage, digest, self.root / stage / digest)


__all__ = ["PlanStore", "StageEvent", "StageReport", "Store", "StoreError"]
