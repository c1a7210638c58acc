"""Who may build an artifact now, and in which folder.

A claim is a lock of the artifact plus a folder to build in. What an earlier claim left is handed over by renaming its
folder. The last step of a build is renaming its own folder to the artifact's: an owner that was stopped, lost its claim
and woke up finds its folder gone or renamed, and can no longer put anything into place.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from aipo.artifacts.files import (
    MANIFEST,
    PRUNED,
    StaleArtifactError,
    StoreError,
    check_files,
    file_names,
    hash_file,
    make_folder,
    record_files,
    remove,
)
from aipo.artifacts.manifest import load_manifest
from aipo.artifacts.points import reached

logger = logging.getLogger("aipo")

LockKind = Literal["flock", "lease"]
LOCKS = ".locks"
ASIDE = ".aside"
"""Where files go that no longer are what a manifest says: kept, since somebody may have paid for them."""
INCOMING = ".incoming"
"""Where artifacts of a remote store are put together."""
LEASE_SECONDS = 60.0
_POLL_SECONDS = 1.0
_ASK_AGAIN_SECONDS = 60.0


class ClaimLost(Exception):
    """Another process took the claim over, because this one did not renew it in time."""


class EmptyMarker:
    """A lease's file that its owner made and did not live to write its name into.

    filelock takes such a file for an old release's lock, which is held as long as the file is there. Text that is no
    name makes it one that filelock takes over. An owner that was stopped in between writes its name too late and
    loses its claim, as any that is stopped for so long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, float] | None = None

    def give_up_after(self, seconds: float) -> None:
        """Called again and again while waiting: marks the file once it was seen empty for so long."""
        try:
            status = self._path.stat()
            if status.st_size or self._seen is None or self._seen[0] != status.st_ino:
                self._seen = None if status.st_size else (status.st_ino, time.monotonic())
            elif time.monotonic() - self._seen[1] >= seconds:
                with self._path.open("ab") as file:
                    file.write(b"left empty by a process that ended\n")
        except OSError:  # gone, or another user's: the next look tells
            self._seen = None


class Claim:
    """The right to build one artifact; a context manager, which waits for it, and says for whom."""

    def __init__(self, root: Path, stage: str, digest: str, kind: LockKind) -> None:
        self.root, self.stage, self.digest, self.kind = root, stage, digest, kind
        self.final = root / stage / digest
        self.path = root / LOCKS / f"{stage}-{digest}.lock"
        self._lock: FileLock | SoftFileLease | None = None
        self._token = ""
        self._made = False

    def __enter__(self) -> Claim:
        self.acquire(wait=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def acquire(self, *, wait: bool) -> bool:
        """Take the claim; False when another process holds it and `wait` is False."""
        reached("claim.folder", self.path.parent)
        try:
            make_folder(self.path.parent, self.root)
            make_folder(self.final.parent, self.root)
            mode = stat.S_IMODE(self.path.parent.stat().st_mode) & 0o666 | 0o600
            lock: BaseFileLock
            if self.kind == "lease":
                lock = SoftFileLease(str(self.path), lease_duration=LEASE_SECONDS, mode=mode)
            else:
                lock = FileLock(str(self.path), fallback_to_soft=False, mode=mode)
            reached("claim.acquire", self.path)
            if not self._wait(lock, wait):
                return False
        except PermissionError as error:
            raise StoreError(
                f"{self.final} is not in the store, and {error.filename or self.path} does not let this user make it: "
                f"{error.strerror}. Ask its owner to open the store to the group (chmod -R g+w {self.root}), or choose "
                "another store.root"
            ) from error
        except NotImplementedError as error:
            raise StoreError(
                f"{self.path.parent} is on a file system without flock; run with store.lock=lease"
            ) from error
        try:
            reached("claim.acquired", self.path)
            if isinstance(lock, SoftFileLease):
                self._token = lock.token or ""
            else:
                self._name_owner()
        except BaseException:
            lock.release()
            raise
        self._lock, self._made = lock, False
        return True

    def release(self) -> None:
        """Give the claim back."""
        if self._lock is not None:
            lock, self._lock = self._lock, None
            try:
                reached("claim.release", self.path)
            finally:
                lock.release()

    def _wait(self, lock: FileLock | SoftFileLease, wait: bool) -> bool:
        told = None
        seconds = 0.2 if wait else 0.0
        empty = EmptyMarker(self.path)
        while True:
            try:
                lock.acquire(timeout=seconds, poll_interval=min(seconds, _POLL_SECONDS) or 0.05)
                return True
            except Timeout:
                if not wait:
                    return False
            if self.kind == "lease":
                empty.give_up_after(LEASE_SECONDS)
            owner = self.owner()
            if owner != told:
                told = owner
                logger.info("%-11s %s  waiting for %s, which works on it", self.stage, self.digest, owner)
            seconds = min(_ASK_AGAIN_SECONDS, LEASE_SECONDS / 4) if self.kind == "lease" else _ASK_AGAIN_SECONDS

    def owner(self) -> str:
        """Host and process of who holds the claim, as far as the lock's file says it."""
        if self.kind == "lease":
            record = SoftFileLease(str(self.path), lease_duration=LEASE_SECONDS).owner
            return f"process {record.pid} on {record.hostname}" if record else "a process"
        try:
            host, pid = self.path.read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            return "a process"
        return f"process {pid} on {host}"

    def _name_owner(self) -> None:
        try:
            self.path.write_text(f"{socket.gethostname()} {os.getpid()}\n", encoding="utf-8")
        except OSError:  # a full disk: a name is not worth a stage
            pass

    def is_lost(self, error: Exception | None = None) -> bool:
        """True when another process has taken the claim over; `error` is what the work on it ended with.

        What counts is the folder. The lock's file alone can name this process again although another one was in
        between: a contender that is stopped while it looks at the file puts an old one back when it wakes up.
        """
        if not isinstance(self._lock, SoftFileLease):
            return False
        owner = self._lock.owner
        gone = (self._made or isinstance(error, FileNotFoundError)) and not self.folder.exists()
        return owner is None or owner.token != self._token or gone

    def confirm(self) -> None:
        """Raises ClaimLost when another process has taken the claim over."""
        if self.is_lost():
            raise ClaimLost

    @property
    def folder(self) -> Path:
        """Where this claim builds. Under a lease every claim has a folder of its own, named by host and process."""
        if self.kind == "flock":
            return self.final.with_name(f"{self.digest}.partial")
        host = socket.gethostname().replace(".", "_")
        return self.final.with_name(f"{self.digest}.partial-{host}-{os.getpid()}-{self._token[:8]}")

    def take_over(self, resumable: bool) -> bool:
        """Make `folder` ready to build in, from what earlier claims left; True when it already holds everything.

        A left folder with a manifest is an artifact that was finished but not put into place, or one that a user moved
        aside because it was changed: it is verified, and what is not as it was goes to `.aside`. Without a manifest it
        is an unfinished build: kept if it can be resumed, else removed.
        """
        left = self._left()
        complete = next((place for place in left if self._is_complete(place)), None)
        heir = complete or (max(left, key=_size_and_age) if resumable and left else None)
        for place in left:
            if place == heir:
                continue
            if resumable or (place / MANIFEST).exists():
                self.set_aside(place)
            else:
                reached("partial.clear", place)
                remove(self._out_of_reach(place))
        if heir is not None:
            self._adopt(heir)
        else:
            reached("partial.create", self.folder)
            make_folder(self.folder, self.root)
        if complete is None:
            self._clear_manifest()
        self._made = True
        return complete is not None

    def put_back(self, made: Mapping[str, Path]) -> None:
        """Move weights that were pruned from the finished artifact, and are here again, to their places."""
        self.confirm()
        for name, path in made.items():
            reached("artifact.restore", path)
            (self.final / name).parent.mkdir(exist_ok=True)
            os.replace(path, self.final / name)
        (self.final / PRUNED).unlink()
        record_files(self.final, ())

    def discard(self) -> None:
        """Remove what this claim built, after it lost its right to."""
        remove(self.folder)

    def hand_over(self) -> None:
        """Leave the unfinished build to whoever comes next, under a name that says nobody writes there any more."""
        free = self.final.with_name(f"{self.digest}.partial")
        if self.folder != free and self.folder.exists() and not free.exists():
            os.rename(self.folder, free)

    def _left(self) -> list[Path]:
        names = self.final.parent.glob(f"{self.digest}.partial*")
        return sorted(path for path in names if path.is_dir())

    def _is_complete(self, place: Path) -> bool:
        if not (place / MANIFEST).exists():
            return False
        try:
            manifest = load_manifest(place, self.stage, self.digest)
            check_files(place, manifest["files"], full="", without=manifest["scratch"])
        except StaleArtifactError as error:
            logger.warning("%-11s %s  found changed, so it is made again: %s", self.stage, self.digest, error.what)
            return False
        return True

    def _adopt(self, place: Path) -> None:
        if place == self.folder and _is_mine(place):
            return
        reached("partial.take_over", place)
        if _is_mine(place) and not self._may_still_write(place):
            os.rename(place, self.folder)
            return
        # Its owner may be stopped, not dead, with files open: copies are what it cannot reach.
        moved = self.final.with_name(f"{self.digest}.partial-moved-{os.getpid()}")
        if place != moved:
            os.rename(place, moved)
        shutil.copytree(moved, self.folder, dirs_exist_ok=True)
        reached("partial.copied", self.folder)
        try:
            remove(moved)
        except OSError as error:
            logger.warning("%s cannot be removed (%s); its content is in %s", moved, error.strerror, self.folder)

    def _out_of_reach(self, place: Path) -> Path:
        """A left folder under a name that its owner, should it wake up, does not know: it can add nothing more."""
        if self.kind == "flock":
            return place
        hidden = self.final.with_name(f"{self.digest}.partial-cleared-{os.getpid()}-{self._token[8:16]}")
        while hidden.exists():
            hidden = hidden.with_name(f"{hidden.name}-again")
        os.rename(place, hidden)
        return hidden

    def _may_still_write(self, place: Path) -> bool:
        _, _, claim = place.name.partition(".partial-")
        if not claim:
            return False
        host, _, rest = claim.rpartition("-")[0].rpartition("-")
        if host != socket.gethostname().replace(".", "_") or not rest.isdecimal():
            return True
        try:
            os.kill(int(rest), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def _clear_manifest(self) -> None:
        """After a build was interrupted, or an artifact moved aside, its manifest speaks of files that will change."""
        manifest = self.folder / MANIFEST
        if manifest.exists():
            self._set_aside_changed()
        for path in (manifest, self.folder / f"{MANIFEST}.tmp"):
            path.unlink(missing_ok=True)

    def _set_aside_changed(self) -> None:
        try:
            files = load_manifest(self.folder, self.stage, self.digest)["files"]
        except StaleArtifactError:
            return
        for name in file_names(self.folder):
            path = self.folder / name
            if name not in files or hash_file(path) != files[name]["sha256"]:
                self.set_aside(path)

    def set_aside(self, path: Path) -> None:
        """Move a file or folder to `.aside`, under a name that tells whence it came."""
        folder = self.root / ASIDE
        make_folder(folder, self.root)
        name = "-".join(path.relative_to(self.root).parts)
        number = sum(1 for _ in folder.glob(f"{name}*"))
        while (target := folder / f"{name}.{number}").exists():
            number += 1
        reached("aside.move", path)
        os.rename(path, target)
        logger.warning("%-11s %s  %s was set aside as %s", self.stage, self.digest, path, target)


def _is_mine(folder: Path) -> bool:
    """Whether this user may change everything in a folder that another one may have begun."""
    return all(os.access(Path(base) / name, os.W_OK) for base, _, files in os.walk(folder) for name in [".", *files])


def _size_and_age(folder: Path) -> tuple[int, int]:
    total = sum((Path(base) / name).lstat().st_size for base, _, files in os.walk(folder) for name in files)
    return total, folder.stat().st_mtime_ns
