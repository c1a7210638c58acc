"""The journal that processes share: whole lines, checked, and never cut by a reader."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aipo.remote import Journal, JournalError

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_appended_is_read_once_by_everybody_else(tmp_path: Path) -> None:
    one, two = Journal(tmp_path / "a"), Journal(tmp_path / "a")
    assert list(two.rows()) == []
    line = one.append({"key": "é\n", "value": [1, None]})
    assert line.read()["key"] == "é\n"
    two.append({"key": 2})
    assert [row["key"] for row in two.rows()] == ["é\n"] and list(two.rows()) == []
    assert [row["key"] for row in one.rows()] == [2]
    assert sorted(str(row["key"]) for row in Journal(tmp_path / "a").rows()) == ["2", "é\n"]


def test_a_line_without_an_end_is_left_alone(tmp_path: Path) -> None:
    writer, reader = Journal(tmp_path), Journal(tmp_path)
    path = writer.append({"n": 1}).path
    with path.open("ab") as file:
        file.write(b'{"n": 2')
    size = path.stat().st_size
    assert [row["n"] for row in reader.rows()] == [1] and path.stat().st_size == size
    with path.open("ab") as file:  # its writer goes on
        file.write(b', "crc32": "5c5ee3a7"}\n')
    with pytest.raises(JournalError, match="line 2: not as it was written"):
        list(reader.rows())


def test_nothing_of_a_line_stays_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, write = Journal(tmp_path), os.write
    journal.append({"n": 1})

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:10])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        journal.append({"n": 2})
    monkeypatch.undo()
    journal.append({"n": 3})
    assert sorted(row["n"] for row in Journal(tmp_path).rows()) == [1, 3]


def test_processes_write_side_by_side(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from aipo.remote import Journal; journal = Journal(Path(sys.argv[1]))\n"
        "for number in range(200): journal.append({'n': number, 'text': 'x' * 5000})"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    writers = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) for _ in range(3)]
    reader, seen = Journal(tmp_path), []
    while any(writer.poll() is None for writer in writers):
        seen += [row["n"] for row in reader.rows()]
    seen += [row["n"] for row in reader.rows()]
    assert sorted(seen) == sorted(3 * list(range(200)))
