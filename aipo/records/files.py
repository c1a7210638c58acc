"""Reading and writing of rows: Parquet for rows that a stage writes at once, JSONL for what is appended to.

`to_row` turns a record into plain values (nested dataclasses become dicts, tuples lists), `from_row` is its inverse.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aipo.records.columns import (
    PLAIN,
    NotColumnarError,
    field_types,
    is_record,
    records_of,
    require_fields,
    table_of,
    without_none,
)

if TYPE_CHECKING:
    import pyarrow as pa

Row = TypeVar("Row")

_PLAIN = frozenset(PLAIN)


def to_row(record: Any) -> Any:
    """A dataclass as plain values, recursively; other values are returned as they are."""
    if dataclasses.is_dataclass(record):
        return {name: to_row(getattr(record, name)) for name in field_types(type(record))}
    if isinstance(record, tuple | list):
        # Token ids: nothing to look into.
        return list(record) if _PLAIN.issuperset(map(type, record)) else [to_row(item) for item in record]
    if isinstance(record, Mapping):
        return {key: to_row(value) for key, value in record.items()}
    return record


def _restore(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    kind = without_none(kind)
    origin = typing.get_origin(kind)
    if origin is tuple:
        arguments = typing.get_args(kind)
        if arguments[-1] is not Ellipsis:
            return tuple(_restore(part, item) for part, item in zip(arguments, value, strict=True))
        return tuple(value) if arguments[0] in _PLAIN else tuple(_restore(arguments[0], item) for item in value)
    if origin is not None and issubclass(origin if isinstance(origin, type) else object, Mapping):
        return dict(value)
    if is_record(kind):
        return from_row(kind, value)
    return value


def from_row(kind: type[Row], row: Mapping[str, Any]) -> Row:
    """The record of type `kind` that `to_row` turned into `row`. Missing or unknown fields raise ValueError."""
    require_fields(kind, row)
    hints = field_types(kind)
    return kind(**{name: _restore(hints[name], value) for name, value in row.items()})


def write_parquet(path: Path, records: Iterable[Any]) -> None:
    """Write records (dataclasses or dicts) as one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(records)
    try:
        table = table_of(rows)
    except NotColumnarError:
        table = pa.Table.from_pylist([to_row(row) for row in rows])
    pq.write_table(table, path)


def read_parquet(path: Path, kind: type[Row], rows: Callable[[pa.Table], Sequence[int]] | None = None) -> list[Row]:
    """Read back what `write_parquet` wrote from records of type `kind`.

    `rows` names, from the table, the places of those wanted, in the order wanted; the rest become no objects.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = file.read(use_threads=False)
    if rows is not None:
        table = table.take(list(rows(table)))
    try:
        return records_of(table, kind)
    except NotColumnarError:
        return [from_row(kind, row) for row in table.to_pylist()]


def write_jsonl(path: Path, records: Iterable[Any]) -> None:
    """Write records (dataclasses or dicts), one JSON object per line."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(to_row(record), ensure_ascii=False) + "\n")


def parse_json(data: bytes, *, unique_keys: bool = False) -> Any:
    """The JSON value in UTF-8 bytes, a byte order mark aside. ValueError, in words, for everything that a row cannot
    hold: other encodings, nesting without end, numbers beyond a float, halves of surrogate pairs; and with
    `unique_keys` an object with a key twice, of which all but the last would be lost."""
    hook = _object_of_unique_keys if unique_keys else None
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_int=_parse_int, object_pairs_hook=hook)
    except RecursionError:
        raise ValueError("values nested too deeply") from None
    if b"\\u" in data:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair (\\ud800 to \\udfff), which is no character") from None
    return value


def _object_of_unique_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        twice = next(key for place, (key, _) in enumerate(items) if key in dict(items[:place]))
        raise ValueError(f"an object with the key {twice!r} twice; keep one of them")
    return found


def _parse_int(digits: str) -> int:
    if len(digits) > 300:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def read_jsonl(path: Path, wanted: Callable[[bytes], bool] | None = None) -> list[dict[str, Any]]:
    """The objects of a JSONL file. A malformed line raises ValueError that names the file and the line number.

    Lines that are not `wanted` are passed over without a look into them.
    """
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip() or (wanted is not None and not wanted(line)):
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: expected one JSON object per line, got {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: expected a JSON object, got {type(row).__name__}")
            rows.append(row)
    return rows
