"""Who may ask for a reply now, among the processes that share a judge's folder."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from filelock import SoftFileLease, Timeout

from aipo.artifacts import claims
from aipo.artifacts.files import make_folder

LOCK_FILE = "asking.lock"
LEASES = "asking"
LEDGER = "ledger"
WAIT_S = 0.05


class KeyClaims(Protocol):
    """Claims of keys, and of the ledger. Not safe for threads: `Replies` holds its mutex around them."""

    def take(self, key: str) -> bool:
        """Claim a key that this process has not claimed; False while another process has it."""
        ...

    def give_back(self, key: str) -> None:
        """Let others claim it."""
        ...

    def forget(self, key: str) -> None:
        """A key that is not claimed has been answered."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Hold the ledger against other processes, waiting for it."""
        ...

    def close(self) -> None:
        """Forget files that are open, as the folder is gone."""
        ...


class ByteLocks:
    """POSIX locks of single bytes of one file: they end with their process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None
        self._taken: set[str] = set()

    def take(self, key: str) -> bool:
        """One byte for each key."""
        if not self._lock(_place(key)):
            return False
        self._taken.add(key)
        return True

    def give_back(self, key: str) -> None:
        """Its byte, unless another key shares it."""
        self._taken.discard(key)
        if self._descriptor is not None and not any(_place(other) == _place(key) for other in self._taken):
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _place(key))

    def forget(self, key: str) -> None:
        """Nothing is remembered."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Byte 0."""
        self._lock(0, wait=True)
        try:
            yield
        finally:
            if self._descriptor is not None:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, 0)

    def close(self) -> None:
        """The lock file, where nothing is claimed."""
        if self._descriptor is not None and not self._taken:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self, place: int, wait: bool = False) -> bool:
        if self._descriptor is None:
            make_folder(self.folder, self.folder.parent.parent)
            self._descriptor = os.open(self.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
            _open_to_the_folders_users(self._descriptor, self.folder)
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place)
        except BlockingIOError:
            return False
        except PermissionError:  # what some systems say for a lock that is held
            return False
        return True


class Leases:
    """A lease for each key, for file systems without locks: a file that its owner renews.

    An owner that dies elsewhere keeps others waiting for the lease's length. One that is stopped for longer than that,
    between a request and its reply, cannot be told from a dead one: its request is asked again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / LEASES
        self._known: dict[str, tuple[SoftFileLease, claims.EmptyMarker]] = {}
        """Of keys that are claimed or waited for: how long another's lease was not renewed is what one sees oneself."""

    def take(self, key: str) -> bool:
        """Make its lease's file, or take over that of an owner who renews it no longer."""
        lease, empty = self._of(key)
        try:
            lease.acquire(timeout=0)
        except Timeout:
            empty.give_up_after(claims.LEASE_SECONDS)
            return False
        return True

    def give_back(self, key: str) -> None:
        """Remove its lease's file, where it still is this process's."""
        lease, _ = self._known.pop(key)
        lease.release()

    def forget(self, key: str) -> None:
        """For how long its lease was not renewed."""
        self._known.pop(key, None)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The ledger's own lease."""
        lease, empty = self._of(LEDGER)
        while True:
            try:
                lease.acquire(timeout=claims.LEASE_SECONDS / 4, poll_interval=WAIT_S)
                break
            except Timeout:
                empty.give_up_after(claims.LEASE_SECONDS)
        try:
            yield
        finally:
            lease.release()

    def close(self) -> None:
        """Nothing is open that matters."""

    def _of(self, key: str) -> tuple[SoftFileLease, claims.EmptyMarker]:
        if key not in self._known:
            make_folder(self.folder, self.folder.parent.parent.parent)
            path = self.folder / f"{key[:32]}.lock"
            lease = SoftFileLease(str(path), lease_duration=claims.LEASE_SECONDS, thread_local=False, mode=0o644)
            self._known[key] = lease, claims.EmptyMarker(path)
        return self._known[key]


def _open_to_the_folders_users(descriptor: int, folder: Path) -> None:
    """The lock file is for whoever may write into the folder, whatever the umask of who made it."""
    try:
        os.fchmod(descriptor, stat.S_IMODE(folder.stat().st_mode) & 0o666 | 0o600)
    except PermissionError:  # another user's, who has done so
        pass


def _place(key: str) -> int:
    """A key's byte in the lock file; byte 0 is the ledger's."""
    return 1 + int(key[:15], 16)
