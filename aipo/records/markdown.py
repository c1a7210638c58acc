"""Rows as a Markdown table: every table that this project writes or prints as Markdown is written here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any


def plain_cell(cell: Any) -> str:
    """The cell on one line; a bar in it is no end of the cell. For text of our own: Markdown and HTML stay as they
    are."""
    return " ".join(str(cell).split()).replace("|", r"\|")


def markdown_row(cells: Iterable[Any], cell: Callable[[Any], str] = plain_cell) -> str:
    """One line; `cell` makes a cell harmless."""
    return "| " + " | ".join(map(cell, cells)) + " |"


def markdown_header(
    names: Sequence[Any], text_columns: int | None = None, cell: Callable[[Any], str] = plain_cell
) -> str:
    """The two lines above the rows. `text_columns`: how many columns, from the left, are flush left, the rest being
    numbers; None: all."""
    left = len(names) if text_columns is None else text_columns
    rule = "|".join("---" if place < left else "---:" for place in range(len(names)))
    return f"{markdown_row(names, cell)}\n|{rule}|"


def markdown_table(
    names: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    text_columns: int | None = None,
    cell: Callable[[Any], str] = plain_cell,
) -> str:
    """Header and rows, without a line's end after the last."""
    return "\n".join([markdown_header(names, text_columns, cell), *(markdown_row(row, cell) for row in rows)])
