"""What an analysis was made of, so that it is not made again: a figure that would come out the same is not drawn.

The stamp beside the report holds a hash of everything that shapes the files (the collected frames, this code, the
libraries that draw) and a hash of each file. A changed or missing file is written again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import aipo.stats

if TYPE_CHECKING:
    import pandas as pd

    from analysis.collect import Sweep

STAMP = ".analysis.json"
LIBRARIES = ("jinja2", "matplotlib", "numpy", "pandas", "scipy", "statsmodels")

CODE = (".py", ".csv", ".css", ".js", ".html")
"""Suffixes of the files that shape what is written."""


def content_hash(sweep: Sweep, frames: Iterable[pd.DataFrame], available: Iterable[str]) -> str:
    """Of a sweep with further `frames` and lists of what is `available`, read from its artifacts, and of all code that
    turns them into files."""
    # When and where a job ran shapes no file; what it failed at is among the problems.
    runs = [replace(run, record=replace(run.record, started="", ended=None, host="", pid=0)) for run in sweep.runs]
    parts = [sweep.folder.resolve().name, *map(repr, (runs, sweep.shared_overrides, sweep.problems))]
    parts += [frame.to_csv(index=False) for frame in (sweep.scores, sweep.pairs, *frames)]
    parts += available
    return sha256("\x00".join([_code_hash(), *parts]).encode()).hexdigest()


def unchanged(folder: Path, content: str) -> list[Path] | None:
    """The files of the analysis that is there, if it was made of `content` and nobody touched it since; else None."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        if stamp["content"] != content:
            return None
        paths = [folder / name for name in stamp["files"]]
        hashes = [sha256(path.read_bytes()).hexdigest() for path in paths]
    except (OSError, ValueError, KeyError, TypeError):  # no stamp, or none that can be read: analyse
        return None
    return paths if hashes == list(stamp["files"].values()) else None


def leave(folder: Path, content: str, files: Sequence[Path]) -> None:
    """Write the stamp of an analysis that has just been written."""
    hashes = {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}
    text = json.dumps({"content": content, "files": hashes}, indent=1, ensure_ascii=False)
    (folder / STAMP).write_text(text + "\n", encoding="utf-8", newline="\n")


@functools.cache
def _code_hash() -> str:
    digest = sha256(" ".join(f"{name} {version(name)}" for name in LIBRARIES).encode())
    for folder in (Path(__file__).parent, Path(aipo.stats.__file__).parent):
        for path in sorted(path for suffix in CODE for path in folder.rglob(f"*{suffix}")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\x00" + path.read_bytes())
    return digest.hexdigest()
