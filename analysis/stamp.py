"""What an analysis was made of, so that it is not made again: a figure that would come out the same is not drawn.

The stamp beside the report holds a hash of everything that shapes the files (the collected frames, the manifests of the
artifacts, this code, the libraries that draw) and a hash of each file. A changed or missing file is written again.

It also holds a quicker one, of the jobs' records and of names, sizes and times of the artifacts' files: where that is
as it was, nothing is read at all, and neither pandas nor a plotting library is imported.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aipo.jobs import FILE, SUBMITTED, JobFileError, states

if TYPE_CHECKING:
    import pandas as pd

    from analysis.collect import Sweep

STAMP = ".analysis.json"
LIBRARIES = ("jinja2", "matplotlib", "numpy", "pandas", "scipy", "statsmodels")

CODE = (".py", ".csv", ".css", ".js", ".html")
"""Suffixes of the files that shape what is written."""


def content_hash(sweep: Sweep, frames: Iterable[pd.DataFrame], available: Iterable[str]) -> str:
    """Of a sweep with further `frames` and lines of what is `available` (each artifact with its manifest's hash), and
    of all code that turns them into files."""
    # When and where a job ran shapes no file; what it failed at is among the problems.
    runs = [replace(run, record=replace(run.record, started="", ended=None, host="", pid=0)) for run in sweep.runs]
    parts = [sweep.folder.resolve().name, *map(repr, (runs, sweep.shared_overrides, sweep.problems))]
    parts += [frame.to_csv(index=False) for frame in (sweep.scores, sweep.pairs, *frames)]
    parts += available
    return sha256("\x00".join([_code_hash(), *parts]).encode()).hexdigest()


def unchanged(folder: Path, content: str) -> list[Path] | None:
    """The files of the analysis that is there, if it was made of `content` and nobody touched it since; else None."""
    stamp = _read(folder)
    return None if stamp is None or stamp["content"] != content else _untouched(folder, stamp)


def untouched(folder: Path, *, pdf: bool) -> list[Path] | None:
    """The files of the analysis that is there, if no job and no artifact behind it was touched since; else None."""
    stamp = _read(folder)
    if stamp is None or not stamp.get("sources"):
        return None
    try:
        seen = _quick_hash(folder, stamp["sources"], pdf=pdf)
    except (OSError, JobFileError):
        return None
    return _untouched(folder, stamp) if seen == stamp["quick"] else None


def leave(folder: Path, content: str, files: Sequence[Path], sources: Iterable[Path], *, pdf: bool) -> None:
    """Write the stamp of an analysis that has just been written or found right. `sources`: the folders of the
    artifacts behind it; without any, only the whole comparison tells whether it is right."""
    hashes = {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}
    stamp: dict[str, Any] = {"content": content, "files": hashes}
    if names := sorted(map(str, sources)):
        stamp |= {"quick": _quick_hash(folder, names, pdf=pdf), "sources": names}
    text = json.dumps(stamp, indent=1, ensure_ascii=False)
    (folder / STAMP).write_text(text + "\n", encoding="utf-8", newline="\n")


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        return stamp if isinstance(stamp["files"], dict) and isinstance(stamp["content"], str) else None
    except (OSError, ValueError, KeyError, TypeError):  # no stamp, or none that can be read: analyse
        return None


def _untouched(folder: Path, stamp: dict[str, Any]) -> list[Path] | None:
    paths = [folder / name for name in stamp["files"]]
    try:
        hashes = [sha256(path.read_bytes()).hexdigest() for path in paths]
    except OSError:
        return None
    return paths if hashes == list(stamp["files"].values()) else None


WHERE_AND_WHEN = ("started", "ended", "host", "pid", "scheduler_id", "restarts", "provenance", "overrides")
"""What of a record no table shows. Overrides are compared whatever their order."""


def _quick_hash(folder: Path, sources: Iterable[str], *, pdf: bool) -> str:
    parts: list[Any] = [_code_hash(), pdf, folder.resolve().name]
    for job in states(folder):
        record = job.folder, job.state, job.why
        path = folder / "jobs" / job.folder / FILE
        row = json.loads(path.read_text(encoding="utf-8")) if job.record is not None else {}
        parts += [record, {key: row[key] for key in row if key not in WHERE_AND_WHEN}]
        parts += [sorted(row.get("overrides", ()))]
    submitted = folder / SUBMITTED
    parts += [submitted.read_text(encoding="utf-8") if submitted.exists() else "", [_files(name) for name in sources]]
    return sha256(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _files(folder: str) -> list[tuple[str, int, int, int]] | None:
    """Name, bytes and times of each file; None for a folder that is not there.

    The time of the last change of its inode is one that nobody can put back."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    except FileNotFoundError:
        return None
    return sorted((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in found)


@functools.cache
def _code_hash() -> str:
    digest = sha256(" ".join(f"{name} {version(name)}" for name in LIBRARIES).encode())
    statistics = find_spec("aipo.stats")  # found, not imported: that would load numpy
    assert statistics is not None and statistics.origin is not None
    for folder in (Path(__file__).parent, Path(statistics.origin).parent):
        for path in sorted(path for suffix in CODE for path in folder.rglob(f"*{suffix}")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\x00" + path.read_bytes())
    return digest.hexdigest()
