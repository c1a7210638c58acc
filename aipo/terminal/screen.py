"""The screen: at most 100 columns, colours where there is a terminal, lines broken between words and never by it."""

from __future__ import annotations

import logging
import textwrap
from typing import Any

from rich.console import Console, ConsoleDimensions
from rich.text import Text

WIDEST = 100
"""Columns. A wider terminal is not filled, a narrower one is respected."""


class Screen(Console):
    """A rich console of at most `WIDEST` columns, which is what it takes where there is no terminal."""

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        found = super().size
        columns = found.width if self.is_terminal or "COLUMNS" in self._environ else WIDEST
        return ConsoleDimensions(max(20, min(columns, WIDEST)), found.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size


console = Screen(highlight=False)
errors = Screen(stderr=True, highlight=False)


def say(text: str, *, style: str = "", indent: str = "", to: Console | None = None) -> None:
    """Print a text, broken between words; lines after the first are indented as far as `indent` is long. A path or
    address that is longer than a line stays whole, so that it can be copied."""
    screen = to or console
    for paragraph in text.splitlines() or [""]:
        lines = textwrap.wrap(
            paragraph, screen.width, initial_indent=indent, subsequent_indent=" " * len(indent),
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        for line in lines or [""]:
            screen.print(Text(line, style=style), soft_wrap=True)


_details: list[bool] = [False]


def show_details(wanted: bool) -> None:
    """Whether what is logged for the record alone is shown as well."""
    _details[0] = wanted


class Handler(logging.Handler):
    """The console's handler: warnings, and with details everything. The log file beside it has everything always."""

    def __init__(self, stream: Any = None) -> None:
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        """Show the record, its traceback in the file alone."""
        if record.levelno < logging.WARNING:
            if _details[0]:
                console.print(Text(record.getMessage(), style="dim"), no_wrap=True, overflow="ellipsis", crop=True)
            return
        say(record.getMessage(), style="red" if record.levelno >= logging.ERROR else "yellow")
