"""Records as Arrow columns and back: what a Parquet file holds, without an object per token in between.

`table_of` gives, to the byte, the table that pyarrow infers from the records' plain rows; `records_of` is its inverse.
Nested dataclasses become structs, tuples of one kind lists. No torch here.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

Row = TypeVar("Row")

PLAIN = (str, int, float, bool)


class NotColumnarError(TypeError):
    """Records of several kinds, or a kind with fields that have no column of their own."""


@functools.cache
def _field_types(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


field_types: Callable[[Any], dict[str, Any]] = _field_types
"""The resolved type of every field of a dataclass, in order."""


def is_record(kind: Any) -> bool:
    """Whether this is a dataclass."""
    return dataclasses.is_dataclass(kind)


def without_none(kind: Any) -> Any:
    """`X` for `X | None`, any other type as it is."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return next(arg for arg in typing.get_args(kind) if arg is not types.NoneType)
    return kind


def item_kind(kind: Any) -> Any:
    """`X` for `tuple[X, ...]`, None for any other type."""
    arguments = typing.get_args(kind)
    return arguments[0] if typing.get_origin(kind) is tuple and arguments[1:] == (Ellipsis,) else None


def require_fields(kind: type, names: Iterable[str]) -> None:
    """Raise ValueError where `names` lacks a field of `kind` that has no default, or holds one that is none."""
    found = set(names)
    known, required = _known_and_required(kind)
    if unknown := sorted(found - known):
        raise ValueError(f"{kind.__name__}: unknown field(s) {unknown}; expected {sorted(known)}")
    if missing := sorted(required - found):
        raise ValueError(f"{kind.__name__}: missing field(s) {missing}; got {sorted(found)}")


@functools.cache
def _known_and_required(kind: type) -> tuple[frozenset[str], frozenset[str]]:
    fields = dataclasses.fields(kind)
    required = (field.name for field in fields if field.default is dataclasses.MISSING)
    return frozenset(field.name for field in fields), frozenset(required)


def table_of(records: Sequence[Any]) -> pa.Table:
    """One row per record. NotColumnarError where the records are not all of one dataclass that has columns."""
    import pyarrow as pa

    kinds = set(map(type, records))
    if len(kinds) != 1 or not dataclasses.is_dataclass(kind := kinds.pop()):
        raise NotColumnarError
    columns = {name: _column(hint, [getattr(row, name) for row in records]) for name, hint in field_types(kind).items()}
    return pa.table(columns)


def _column(kind: Any, values: list[Any]) -> pa.Array:
    import pyarrow as pa

    present = [value for value in values if value is not None]
    if not present:
        return pa.nulls(len(values))
    kind = without_none(kind)
    absent = None if len(present) == len(values) else pa.array([value is None for value in values])
    if kind in PLAIN or typing.get_origin(kind) is Literal:
        array = pa.array(values)
        # More than 2 GiB of text does not fit one array of 32-bit offsets.
        return pa.array(values, type=pa.large_string()) if isinstance(array, pa.ChunkedArray) else array
    if is_record(kind):
        if set(map(type, present)) != {kind}:
            raise NotColumnarError
        hints = field_types(kind)
        children = [
            _column(hint, [None if value is None else getattr(value, name) for value in values])
            for name, hint in hints.items()
        ]
        return pa.StructArray.from_arrays(children, names=[*hints], mask=absent)
    if (inner := item_kind(kind)) is not None:
        import numpy as np

        lengths = np.fromiter((0 if value is None else len(value) for value in values), np.int64, len(values))
        offsets = np.concatenate([[0], lengths.cumsum()])
        if offsets[-1] > np.iinfo(np.int32).max:
            raise NotColumnarError
        items = _column(inner, list(chain.from_iterable(present)))
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), items, mask=absent)
    raise NotColumnarError


def records_of(table: pa.Table, kind: type[Row]) -> list[Row]:
    """The records of type `kind` whose table this is. Missing or unknown columns raise ValueError."""
    require_fields(kind, table.column_names)
    hints = field_types(kind)
    records: list[Row] = []
    for batch in table.to_batches():
        columns = [_values(batch.column(name), hints[name]) for name in batch.schema.names]
        records += map(_builder(kind, tuple(batch.schema.names)), *columns)
    return records


def _builder(kind: type[Row], names: tuple[str, ...]) -> Callable[..., Row]:
    """A function from the values of the fields `names`, in that order, to a record."""
    if names == tuple(field_types(kind))[: len(names)]:
        return kind
    return lambda *values: kind(**dict(zip(names, values, strict=True)))


def _values(array: pa.Array, kind: Any) -> list[Any]:
    """The Python values of a column, None where it is null."""
    import pyarrow as pa

    kind = without_none(kind)
    if pa.types.is_struct(array.type) and is_record(kind):
        names = tuple(field.name for field in array.type)
        require_fields(kind, names)
        hints = field_types(kind)
        columns = [_values(child, hints[name]) for name, child in zip(names, array.flatten(), strict=True)]
        built = map(_builder(kind, names), *columns)
        if not array.null_count:
            return list(built)
        # `kind` may refuse the Nones of a row that is not there.
        rows = zip(array.is_valid().to_pylist(), zip(*columns, strict=True), strict=True)
        build = _builder(kind, names)
        return [build(*row) if there else None for there, row in rows]
    if pa.types.is_list(array.type) and (inner := item_kind(kind)) is not None:
        items = _values(array.flatten(), inner)
        lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        ends = lengths.cumsum().tolist()
        spans = zip([0, *ends[:-1]], ends, strict=True)
        found = [tuple(items[start:end]) for start, end in spans]
        if not array.null_count:
            return found
        return [value if there else None for there, value in zip(array.is_valid().to_pylist(), found, strict=True)]
    if not array.null_count and (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return array.to_numpy(zero_copy_only=False).tolist()
    if kind in PLAIN or typing.get_origin(kind) is Literal or pa.types.is_null(array.type):
        return array.to_pylist()
    raise NotColumnarError
