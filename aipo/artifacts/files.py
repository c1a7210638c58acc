"""Files of an artifact: hashed, brought safely to the disk, readable by the group, and checked before every use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aipo.artifacts.points import reached

MANIFEST = "manifest.json"
PRUNED = ".pruned"
"""In a finished artifact: the names of its weights, where they were removed to save space."""
WEIGHTS = ".safetensors"
ALWAYS_HASHED_BYTES = 8 * 2**20
"""Files are hashed at every use. Of weights from this size on, an unchanged inode, size and times stand for the hash
until somebody loads them."""
_RACY_NS = 100_000_000
"""A file changed this shortly before it was hashed may change again without a new time stamp."""


class StoreError(RuntimeError):
    """The store cannot do what was asked; the message says what was expected, what was found and what to do."""


class StaleArtifactError(StoreError):
    """An artifact's files are not the ones its manifest lists: `what` is wrong, and a remedy that deletes nothing."""

    def __init__(self, what: str, folder: Path) -> None:
        self.what = what
        super().__init__(
            f"{what}. The artifact was changed after it was made. `mv {folder} {folder}.partial` and run the same "
            "command again: what is intact is kept, the rest is set aside and made again."
        )


class MissingArtifactError(StaleArtifactError):
    """There is no such artifact."""

    def __init__(self, what: str) -> None:
        self.what = what
        StoreError.__init__(self, f"{what}; run the same command again to make it, or put the store back there")


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_names(folder: Path, without: Iterable[str] = ()) -> list[str]:
    """Every file below `folder`, by its relative name, sorted; the manifest and what lies in `without` left out."""
    left_out = {MANIFEST, PRUNED, f"{MANIFEST}.tmp", *without}
    names = []
    for base, folders, files in os.walk(folder):
        here = Path(base).relative_to(folder)
        folders[:] = sorted(name for name in folders if (here / name).as_posix() not in left_out)
        names += [name for file in files if (name := (here / file).as_posix()) not in left_out]
    return sorted(names)


def record_files(folder: Path, scratch: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file of a finished build, all of it brought to the disk, readable by whom the umask
    (or a shared store's own permissions) lets read."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    records: dict[str, dict[str, Any]] = {}
    folders = {folder}
    for name in file_names(folder, scratch):
        path = folder / name
        reached("data.sync", path)
        _allow(path, mode & 0o444)
        began = time.time_ns()
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            status = os.fstat(file.fileno())
        reached("data.synced", path)
        records[name] = {"bytes": status.st_size, "sha256": digest}
        _remember(path, status, digest, began)
        folders.update(parent for parent in path.parents if parent.is_relative_to(folder))
    for place in sorted(folders, reverse=True):
        _allow(place, mode)
        sync_folder(place)
    return records


def check_files(
    folder: Path, files: Mapping[str, Mapping[str, Any]], *, full: str | None = None, without: Iterable[str] = ()
) -> None:
    """Compare the files below `folder` with their records.

    Every file is hashed, but for weights of `ALWAYS_HASHED_BYTES` and more whose hash this user's machine remembers for
    the same inode, size and times. Those in the folder `full` of the artifact (`""`: anywhere) are hashed in any case.
    What lies in `without` need not be listed. Raises StaleArtifactError, which names the first file that is missing
    (unless it was pruned), changed or not listed.
    """
    gone = set(missing_weights(folder))
    for name, record in files.items():
        path = folder / name
        if name in gone:
            continue
        expected = f"{path}: the manifest lists {record['bytes']} bytes"
        try:
            status = path.stat()
        except OSError as error:
            raise StaleArtifactError(f"{expected}, it is missing ({error.strerror})", folder) from error
        if status.st_size != record["bytes"]:
            raise StaleArtifactError(f"{expected}, it has {status.st_size} bytes", folder)
        loaded = full is not None and (full == "" or name.startswith(f"{full}/"))
        if not loaded and _is_large(path, status) and _remembered(path, status) == record["sha256"]:
            continue
        began = time.time_ns()
        try:
            actual = hash_file(path)
        except OSError as error:
            raise StaleArtifactError(f"{path} cannot be read ({error.strerror})", folder) from error
        if actual != record["sha256"]:
            raise StaleArtifactError(f"{path}: the manifest lists SHA-256 {record['sha256']}, it has {actual}", folder)
        _remember(path, status, actual, began)
    found = (name for name in file_names(folder, without) if name not in files)
    unlisted = [name for name in found if not Path(name).name.startswith(".")]
    if unlisted:
        raise StaleArtifactError(f"{folder / unlisted[0]}: the manifest does not list this file", folder)


def weights_of(folder: Path) -> list[Path]:
    """The files of an artifact that hold a model's weights."""
    return sorted(folder.rglob(f"*{WEIGHTS}"))


def prune(folder: Path) -> None:
    """Remove the weights of a finished artifact. All else stays, and a note that says what is missing on purpose."""
    note_pruned(folder, {path.relative_to(folder).as_posix() for path in weights_of(folder)} | set(_pruned(folder)))
    for path in weights_of(folder):
        remove(path)


def note_pruned(folder: Path, names: Iterable[str]) -> None:
    """Write down in an artifact which of its weights are not there on purpose."""
    temporary = folder / f"{PRUNED}.tmp"
    temporary.write_text(json.dumps(sorted(names)), encoding="utf-8")
    sync_file(temporary)
    os.replace(temporary, folder / PRUNED)
    sync_folder(folder)


def missing_weights(folder: Path) -> list[str]:
    """Names of the weights that were pruned from an artifact and are not back."""
    return [name for name in _pruned(folder) if not (folder / name).exists()]


def _pruned(folder: Path) -> list[str]:
    try:
        return list(json.loads((folder / PRUNED).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StaleArtifactError(f"{folder / PRUNED} cannot be read ({error})", folder) from error


def sync_file(path: Path) -> None:
    """Bring a file's content to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, root: Path) -> None:
    """A folder of the store, open to whom the umask and `root`'s own permissions let in: a group-writable root makes a
    store for the group, whatever the umasks of its users."""
    made = []
    place = folder
    while not place.exists():
        made.append(place)
        place = place.parent
    for place in reversed(made):
        place.mkdir(exist_ok=True)
        if place != root and place.is_relative_to(root):
            _allow(place, stat.S_IMODE(root.stat().st_mode) & 0o2077)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it. What vanishes meanwhile is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_unless_gone)
    else:
        path.unlink(missing_ok=True)


def _unless_gone(function: Any, path: str, failure: Any) -> None:
    if not isinstance(failure[1], FileNotFoundError):
        raise failure[1]


def _allow(path: Path, more: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode | more != mode:
        try:
            path.chmod(mode | more)
        except PermissionError:  # another user's, who shared it as far as they wanted
            pass


# What a large file of weights hashed to, while it is the same inode with the same size and times. A note, not a proof:
# it lies in this user's cache folder, is never needed, and `verify` does not ask it.

_noted: dict[str, str] = {}


def _note_of(path: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(f"{socket.gethostname()}:{path.resolve()}".encode(errors="surrogateescape")).hexdigest()
    return cache / "aipo" / "hashed" / key[:2] / key


def _is_large(path: Path, status: os.stat_result) -> bool:
    return path.suffix == WEIGHTS and status.st_size >= ALWAYS_HASHED_BYTES


def _state(status: os.stat_result) -> str:
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _remember(path: Path, status: os.stat_result, digest: str, began_ns: int) -> None:
    if not _is_large(path, status) or status.st_ctime_ns > began_ns - _RACY_NS:
        return
    try:
        note = _note_of(path)
        _noted[str(note)] = f"{_state(status)} {digest}"
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_name(f"{note.name}.{os.getpid()}")
        temporary.write_text(_noted[str(note)], encoding="utf-8")
        os.replace(temporary, note)
    except (OSError, RuntimeError):  # no home, a full or read-only disk: it is hashed again next time
        pass


def _remembered(path: Path, status: os.stat_result) -> str | None:
    try:
        note = _note_of(path)
        text = _noted.get(str(note)) or note.read_text(encoding="utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError):
        return None
    state, _, digest = text.rpartition(" ")
    return digest if state == _state(status) else None
