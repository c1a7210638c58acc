"""Prompts, with or without responses, from the user's own JSON, JSONL or Parquet files."""

from __future__ import annotations

import functools
import hashlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from aipo.data.conversations import COLUMNS, RowError, example_from_row
from aipo.records import Chat, Example, parse_json

logger = logging.getLogger("aipo")
SUFFIXES = (".json", ".jsonl", ".parquet")
SHOWN_PROBLEMS = 10
COUNTED_BYTES = 64 * 2**20
"""Larger files are not read for the check of a config alone."""


class SourceError(ValueError):
    """A source's files cannot be read as what they should be."""


@dataclass(frozen=True)
class LocalFiles:
    """Rows of one file, or of every .json, .jsonl and .parquet file of a folder by name, in the files' order.

    Suffixes may be in capitals. What else lies in a folder, subfolders too, is not read, and a warning names it.

    The columns are those of `aipo.data.conversations.example_from_row`; docs/data.md has examples. Any other column
    is an error until `ignored_columns` names it, so that a misspelt one is not lost.
    """

    path: str
    """A file or a folder. `.json` holds a list of objects, `.jsonl` an object per line."""
    ignored_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ignored_columns", tuple(self.ignored_columns))  # YAML gives lists
        if read := sorted(set(self.ignored_columns) & set(COLUMNS)):
            raise ValueError(f"data.source.ignored_columns: {read[0]!r} is a column that is read; take it off the list")

    def missing(self) -> list[str]:
        """What keeps the files from being read: none there, or the first malformed rows, one line each."""
        try:
            malformed = (str(found) for found in self._rows() if isinstance(found, SourceError))
            found = list(islice(malformed, SHOWN_PROBLEMS))
            if not found:
                self.load()  # ids that come twice show only here
            return found
        except SourceError as error:
            return [str(error)]

    is_world: ClassVar[bool] = False

    def identity(self) -> Mapping[str, str]:
        """SHA-256 of every file by its name; empty while there is none that can be read, which `missing` tells."""
        try:
            files = self._files()
            hashes = {}
            for path in files:
                with path.open("rb") as file:
                    hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
            return hashes
        except (SourceError, OSError):
            return {}

    @property
    def brings_responses(self) -> bool:
        """Whether a row has two responses; true for what `pool_size` does not count."""
        content = self._content()
        return content is None or content.responses

    @property
    def brings_ratings(self) -> bool:
        """Whether a row has two rated responses, likewise."""
        content = self._content()
        return content is None or content.ratings

    def pool_size(self) -> int | None:
        """The prompts in the files. None for files that `missing` refuses, and for more than COUNTED_BYTES."""
        content = self._content()
        return None if content is None else content.prompts

    def _content(self) -> _Content | None:
        """What the files hold, read once for as long as they do not change."""
        try:
            stamps = [(file, file.stat()) for file in self._files()]
            if sum(stamp.st_size for _, stamp in stamps) > COUNTED_BYTES:
                return None
            return _read_content(self, tuple((str(file), stamp.st_size, stamp.st_mtime_ns) for file, stamp in stamps))
        except (SourceError, OSError):
            return None

    def load(self) -> tuple[list[Example], dict[str, int]]:
        """All rows; a prompt that came before is dropped and counted as `repeated`.

        SourceError names file, row, what was expected and what was found. No row at all is one, too.
        """
        examples: list[Example] = []
        seen: dict[str, tuple[Chat, str]] = {}
        chats: set[Chat] = set()
        repeated = 0
        for found in self._rows():
            if isinstance(found, SourceError):
                raise found
            place, example = found
            prompt = example.prompt
            chat, earlier = seen.setdefault(prompt.prompt_id, (prompt.chat, place))
            if chat != prompt.chat:
                raise SourceError(f"{place}: prompt_id: expected a new one, got {prompt.prompt_id!r} as in {earlier}")
            if prompt.chat in chats:
                repeated += 1
                continue
            chats.add(prompt.chat)
            examples.append(example)
        if not examples:
            raise SourceError(f"data.source.path: no rows in {self.path}; expected at least one with a prompt")
        _tell_unread(Path(self.path))
        return examples, {"repeated": repeated}

    def _files(self) -> list[Path]:
        path = Path(self.path)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if _is_read(file))
            if not files:
                raise SourceError(f"data.source.path: expected {', '.join(SUFFIXES)} files in {path}, got none")
            return files
        if not path.is_file():
            raise SourceError(f"data.source.path: no such file or folder: {path} (looked for from {Path.cwd()})")
        if not _is_read(path):
            raise SourceError(f"data.source.path: expected a file that ends with {', '.join(SUFFIXES)}, got {path}")
        return [path]

    def _rows(self) -> Iterator[tuple[str, Example] | SourceError]:
        """Each row with its place, or what is wrong with it."""
        for path in self._files():
            for place, row in _file_rows(path):
                if isinstance(row, SourceError):
                    yield row
                    continue
                try:
                    yield place, self._example(row)
                except RowError as error:
                    yield SourceError(f"{place}: {error}")

    def _example(self, row: Any) -> Example:
        if not isinstance(row, dict):
            raise RowError(f"expected an object with a prompt, got {type(row).__name__}")
        for name in row:
            if name not in COLUMNS and name not in self.ignored_columns:
                raise RowError(
                    f"{name}: unknown column; expected {', '.join(COLUMNS)}. Rename it, or leave it out with "
                    f"data.source.ignored_columns=[{','.join((*self.ignored_columns, name))}]"
                )
        return example_from_row(row)


@dataclass(frozen=True)
class _Content:
    """How many prompts there are, and whether any has two responses, and two rated ones."""

    prompts: int
    responses: bool
    ratings: bool


@functools.lru_cache(maxsize=16)
def _read_content(source: LocalFiles, stamps: tuple[tuple[str, int, int], ...]) -> _Content:
    examples, _ = source.load()
    rated = [sum(not math.isnan(rating) for rating in example.ratings) for example in examples]
    return _Content(len(examples), any(len(example.responses) > 1 for example in examples), max(rated, default=0) > 1)


def _is_read(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _tell_unread(folder: Path) -> None:
    """Warn of what lies in a folder and is not read, hidden files aside."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")] if folder.is_dir() else []
    unread = sorted(entry.name + "/" * entry.is_dir() for entry in entries if not _is_read(entry))
    if unread:
        names = ", ".join(unread[:SHOWN_PROBLEMS]) + (", ..." if len(unread) > SHOWN_PROBLEMS else "")
        _warn_once(
            f"data.source.path: of the {len(entries)} entries of {folder}, {len(unread)} are not read: {names}; rows "
            f"are read from {', '.join(SUFFIXES)} files, and from no subfolder"
        )


@functools.lru_cache(maxsize=64)
def _warn_once(text: str) -> None:
    """Files are read more than once before a run; their warning is shown once."""
    logger.warning("%s", text)


def _file_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows with their places; where one, or the file, cannot be read, a SourceError in its place."""
    try:
        yield from _READERS[path.suffix.lower()](path)
    except SourceError as error:
        yield f"{path}", error
    except OSError as error:
        yield f"{path}", SourceError(f"{path}: expected a file that can be read, got {error}")


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        rows = parse_json(path.read_bytes(), unique_keys=True)
    except ValueError as error:
        raise SourceError(f"{path}: expected JSON in UTF-8, got {error}") from error
    if not isinstance(rows, list):
        raise SourceError(f"{path}: expected a list of objects, got {type(rows).__name__}; one per line is .jsonl")
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", row


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                yield place, parse_json(line, unique_keys=True)
            except ValueError as error:
                yield place, SourceError(f"{place}: expected a JSON object in UTF-8, got {error}")


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
        raise SourceError(f"{path}: expected a Parquet file, got {error}") from error
    names = table.schema_arrow.names
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise SourceError(f"{path}: expected columns of different names, got {twice[0]!r} twice; keep one of them")
    number = 0
    batches = table.iter_batches()
    while True:
        try:
            batch = next(batches, None)
            rows = [] if batch is None else batch.to_pylist()
        except (pa.ArrowException, OSError, ValueError, OverflowError, NotImplementedError) as error:
            yield f"{path}", SourceError(f"{path}, after row {number}: expected rows that can be read, got {error}")
            return
        if batch is None:
            return
        for row in rows:
            number += 1
            yield f"{path}, row {number}", row


_READERS = {".json": _json_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
