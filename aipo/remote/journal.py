"""An append-only journal that many processes share: a folder of JSONL files, one for each process that writes.

No file has two writers, so nothing is locked and nobody ever cuts a file that another process is writing. A last line
without an end (a process killed while writing, or a line just being written) is left where it is and not read. Every
line ends with a checksum of the rest of it.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import stat
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHECKSUM = b', "crc32": "'


class JournalError(ValueError):
    """A line was changed after it was written."""


@dataclass(frozen=True)
class Line:
    """Where a line stands: it begins at byte `offset` of `path` and has `length` bytes, its end included."""

    path: Path
    offset: int
    length: int

    def read(self) -> dict[str, Any]:
        """Its row. Raises JournalError when it does not match its checksum."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.length)
        check(data, self.path)
        row: dict[str, Any] = json.loads(data.decode("utf-8"))
        return row


class Journal:
    """The journal in `folder`. Safe for threads, processes and machines that share a file system.

    The folder and this process's file are made by the first `append`. `shared`: other machines write into the folder,
    through a file system that shows them what is on its server only, and this one what it asks for anew: every line is
    brought to the disk at once, and every file opened before its size is believed.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self.folder = folder
        self._shared = shared
        self._lock = threading.RLock()
        self._read: dict[Path, int] = {}
        """How far each file was read."""
        self._own: Path | None = None
        self._descriptor: int | None = None
        self._owner = 0

    def append(self, row: Mapping[str, Any]) -> Line:
        """Write a row down. It is with the operating system when this returns; `sync` brings it to the disk.

        OSError when it cannot be written; nothing of it is then in the journal.
        """
        data = encode(row)
        with self._lock:
            descriptor, path = self._file()
            offset = os.lseek(descriptor, 0, os.SEEK_END)
            written = 0
            try:
                while written < len(data):
                    written += os.write(descriptor, data[written:])
                if self._shared:
                    os.fsync(descriptor)
            except OSError:
                self._abandon(descriptor, offset)
                raise
            line = Line(path, offset, len(data))
            if self._read.get(path, 0) == offset:
                self._read[path] = offset + len(data)
            return line

    def sync(self) -> None:
        """Bring what was appended to the disk, so that it survives a power cut."""
        with self._lock:
            if self._descriptor is not None and self._owner == os.getpid():
                os.fsync(self._descriptor)

    def unread(self) -> Iterator[tuple[Line, bytes]]:
        """Whole lines of all files that were neither returned nor appended by this object before, checked."""
        with self._lock:
            for path in self.files():
                start = self._read.get(path, 0)
                if not self._shared and path.stat().st_size <= start:
                    continue
                with path.open("rb") as file:
                    file.seek(start)
                    data = file.read()
                whole = data[: data.rfind(b"\n") + 1]
                self._read[path] = start + len(whole)
                offset = start
                for content in whole.splitlines(keepends=True):
                    check(content, path, offset)
                    yield Line(path, offset, len(content)), content
                    offset += len(content)

    def rows(self) -> Iterator[dict[str, Any]]:
        """`unread`, as rows."""
        for _, content in self.unread():
            yield json.loads(content.decode("utf-8"))

    def files(self) -> list[Path]:
        """The files, in the order of their names: that of their first lines."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder) if entry.name.endswith(".jsonl"))
        except FileNotFoundError:
            return []
        return [self.folder / name for name in names]

    def vanished(self) -> bool:
        """Whether a file that was read is gone."""
        return not set(self._read) <= set(self.files())

    def forget(self) -> None:
        """Read everything anew."""
        with self._lock:
            self._read.clear()
            self._close()

    def _file(self) -> tuple[int, Path]:
        if self._owner != os.getpid():  # after a fork the file stays the parent's
            self._close()
        if self._descriptor is None or self._own is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            host = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())[:40]
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            self._own = self.folder / f"{stamp}-{host}-{os.getpid()}-{secrets.token_hex(3)}.jsonl"
            self._descriptor = os.open(self._own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
            self._owner = os.getpid()
            # Whoever may look into the folder may read what is in it, whatever the umask.
            mode = stat.S_IMODE(self.folder.stat().st_mode) & 0o044 | 0o600
            os.fchmod(self._descriptor, mode)
        return self._descriptor, self._own

    def _abandon(self, descriptor: int, offset: int) -> None:
        """Take a half-written line back; where even that fails, its file gets no further line."""
        try:
            os.ftruncate(descriptor, offset)
        except OSError:
            pass
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._own = self._descriptor = None


def encode(row: Mapping[str, Any]) -> bytes:
    """A row as a line with its checksum, lone surrogates as escapes."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)[:-1]
    try:
        body = text.encode("utf-8")
    except UnicodeEncodeError:
        body = json.dumps(row, allow_nan=False)[:-1].encode("ascii")
    return body + _CHECKSUM + f'{zlib.crc32(body):08x}"}}\n'.encode()


def check(line: bytes, path: Path, offset: int | None = None) -> None:
    """Raise JournalError unless a line matches its checksum."""
    body, found, rest = line.rpartition(_CHECKSUM)
    if found and rest == f'{zlib.crc32(body):08x}"}}\n'.encode():
        return
    where = "" if offset is None else f", line {_line_number(path, offset)}"
    raise JournalError(
        f"{path}{where}: not as it was written (its checksum differs): {line[:60]!r}. While no run is at work, delete "
        "this line: what it held is then asked for again, and nothing else is"
    )


def _line_number(path: Path, offset: int) -> int:
    return path.read_bytes()[:offset].count(b"\n") + 1
