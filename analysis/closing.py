"""What a run or a sweep ends with on the console: the verdict of its report, what may be concluded, and the page.

The numbers are the report's own, kept beside it as `verdict.json`, so that a run that finds everything done shows them
without computing anything.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import style

if TYPE_CHECKING:
    from analysis.page import Verdict

FILE = "verdict.json"
SOURCES = "sources.json"
PAGE = "index.html"
HEADER_LETTERS = 12
"""So much of a header stays on one line, however narrow its column."""
LONG_NAME = 24
"""A name of more letters needs the room of columns that say the same in every row."""
WIDEST = 100
"""Columns of the console that lines are made for."""


@dataclass(frozen=True)
class Closing:
    """The table as text, and the sentences below it."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    sentences: tuple[str, ...]


def closing(verdict: Verdict) -> Closing:
    """The verdict with a column for p where there is one, and the sentence about what nothing was compared with."""
    *left, questions, seeds = verdict.header
    with_p = any(row.p for row in verdict.rows)
    rows = tuple(
        (row.series, row.score, row.interval, row.length, row.ratio, *([row.p or "–"] * with_p), str(row.n), row.seeds)
        for row in verdict.rows
    )
    header = (*left, *(["p"] * with_p), questions, seeds)
    return Closing(verdict.caption, header, rows, verdict.notes, (*verdict.sentences, *_alone(verdict)))


def _alone(verdict: Verdict) -> Iterator[str]:
    if verdict.compared:
        return
    controls = ["control" in row.ratio for row in verdict.rows if row.series != style.BASE_NAME]
    why = "that takes both in one sweep, as with -m objective=aipo,dpo or +experiment=length_vs_score"
    if any(controls) and not all(controls):
        why = "none has all rounds on a seed and base model of the control's"
    yield f"No objective is compared with the control here: {why}."
    if all(row.seeds == "1" for row in verdict.rows):
        yield "There is one seed, and one seed decides nothing; run more (-m seed=0,1,2,...)."


def write(folder: Path, verdict: Verdict | None) -> Path:
    """Writes verdict.json into the sweep's folder; null where no trained policy has a score yet."""
    row = vars(closing(verdict)) if verdict else None
    path = folder / FILE
    path.write_text(json.dumps(row, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    return path


def show(folder: Path) -> None:
    """Print the table and the sentences of the analysis in a sweep's folder, then the page's address."""
    from rich.text import Text

    from aipo.terminal import console, say

    row: dict[str, Any] | None = json.loads((folder / FILE).read_text(encoding="utf-8"))
    if row:
        console.print()
        say(row["caption"], style="bold")
        header, rows, shared = without_shared(row["header"], row["rows"])
        heads, body = table_lines(header, rows)
        for style, lines in (("dim", heads), ("", body)):
            for line in lines:
                console.print(Text(line, style=style), no_wrap=True, overflow="ellipsis", crop=True)
        for note in (*shared, *row["notes"]):
            say(note, style="dim")
        for sentence in row["sentences"]:
            say(sentence, indent="- ")
    if gaps := missing(folder):
        n = f"{len(gaps)} gap{'s' * (len(gaps) != 1)}"
        say(f"this sweep is not complete: {n}, described in {folder / 'report.md'}", style="yellow")
    console.print(Text(f"page: {folder / PAGE}", style="bold"), soft_wrap=True)


def without_shared(
    header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]], list[str]]:
    """Header and rows without their last two columns, questions and seeds, where these only repeat themselves.

    That is where a name needs their room and every row has the same two counts; a sentence then says them once.
    """
    counts = {tuple(row[-2:]) for row in rows}
    wide = any(len(row[0]) > LONG_NAME for row in rows) or _natural_width(header, rows) > WIDEST
    if not wide or len(counts) > 1:
        return list(header), [list(row) for row in rows], []
    (pair,) = counts
    said = ", ".join(f"{name}: {count}" for name, count in zip(header[-2:], pair, strict=True))
    return list(header[:-2]), [list(row[:-2]) for row in rows], [f"In every row {said}."]


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """The header's lines and the rows' lines: a header is folded to the width of its column, and so is a row's name.

    The other cells are never folded, so the first column gives way where the screen is too narrow.
    """
    widths = _natural_widths(header, rows)
    widths[0] = max(8, min(widths[0], WIDEST - sum(widths[1:]) - 2 * (len(widths) - 1)))
    folded = [textwrap.wrap(name, width) for name, width in zip(header, widths, strict=True)]
    height = max(map(len, folded))
    heads = zip(*([""] * (height - len(lines)) + lines for lines in folded), strict=True)
    body = []
    for name, *cells in rows:
        first, *others = textwrap.wrap(name, widths[0], subsequent_indent="  ") or [""]
        body += [(first, *cells), *((line, *[""] * len(cells)) for line in others)]
    return [_line(cells, widths) for cells in heads], [_line(cells, widths) for cells in body]


def _natural_widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    longest = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        max(width, min(len(name), HEADER_LETTERS), *map(len, name.split()))
        for width, name in zip(longest, header, strict=True)
    ]


def _natural_width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Of a table in which no name is folded, with two spaces between columns."""
    return sum(_natural_widths(header, rows)) + 2 * (len(header) - 1)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "  ".join([cells[0].ljust(widths[0]), *rest]).rstrip()


def missing(folder: Path) -> list[str]:
    """What the analysis in a sweep's folder could not show."""
    return json.loads((folder / SOURCES).read_text(encoding="utf-8"))["missing"]
