"""Rows of official files, read without trusting their shape: what is wrong is told with file and row."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class FileError(ValueError):
    """A file is not what the official tool writes."""


def each_row(
    path: Path, rows: Sequence[Mapping[str, Any]], noun: str, benchmark: str, read: Callable[[Mapping[str, Any]], T]
) -> list[T]:
    """`read` of every row. FileError names the first row that is not of the official form, by its number from 1."""
    if not rows:
        raise FileError(f"{path}: expected one {noun} per line, got none")
    found = []
    for number, row in enumerate(rows, start=1):
        try:
            found.append(read(row))
        except FileError as error:
            raise FileError(f"{path}, {noun} {number}: {error}; is it of {benchmark}?") from None
    return found


def field(row: Any, *names: str) -> Any:
    """The first of `names` that a row has. FileError where it has none."""
    if isinstance(row, Mapping):
        for name in names:
            if name in row:
                return row[name]
        raise FileError(f"missing {[names[0]]}")
    raise FileError(f"expected an object, got {shown(row)}")


def text(value: Any, name: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise FileError(f"expected {name} to be text, got {shown(value)}")
    return value


def name_of(value: Any, name: str) -> str:
    """A name or a number, as text."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise FileError(f"expected {name} to be text or a whole number, got {shown(value)}")
    return str(value)


def number(value: Any, name: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise FileError(f"expected {name} to be a number, got {shown(value)}")
    return value


def first(value: Any, name: str) -> Any:
    """The first item of a list."""
    if not isinstance(value, list) or not value:
        raise FileError(f"expected {name} to be a list with at least one item, got {shown(value)}")
    return value[0]


def shown(value: Any) -> str:
    """A value in an error."""
    return f"{type(value).__name__} {value!r:.60}"


def file_name(name: str) -> str:
    """A model's or judge's name as a file name of its own: no path, not hidden."""
    return re.sub(r"[^\w.@+=-]", "_", name).lstrip(".") or "_"
