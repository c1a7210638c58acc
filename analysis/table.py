"""A table: exact values for CSV, the same as text for Markdown and LaTeX, and the fingerprints behind it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aipo.records import markdown_table
from analysis import escape

if TYPE_CHECKING:
    import pandas as pd


HEADER_LETTERS = 18
NAMED_FINGERPRINTS = 24
"""Of more, a text names the count and the file that lists them (`sources.json`, under the table's own name)."""


@dataclass(frozen=True)
class Table:
    """What is written under one file name. Texts are plain; each format escapes them its own way."""

    name: str
    """File stem."""
    title: str
    data: pd.DataFrame
    """For CSV: one exact value per cell, a column `fingerprints` (joined by spaces) among them."""
    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    """As shown; a row per row of `data`, a text per text of `header`."""
    notes: tuple[str, ...]
    fingerprints: tuple[str, ...]
    text_columns: int = 1
    """How many columns, from the left, are set flush left."""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.header) for row in self.cells) or len(self.cells) != len(self.data):
            raise ValueError(f"table {self.name}: rows and header differ in size")

    def write(self, folder: Path) -> list[Path]:
        """Writes `<name>.csv`, `<name>.md` and `<name>.tex` into the folder, which it makes where there is none."""
        texts = {"csv": self.csv(), "md": f"## {escape.markdown(self.title)}\n\n{self.markdown()}", "tex": self.latex()}
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for suffix, text in texts.items():
            path = folder / f"{self.name}.{suffix}"
            path.write_text(text, encoding="utf-8", newline="\n")
            paths.append(path)
        return paths

    def csv(self) -> str:
        """Comma-separated values, floats to ten digits."""
        return escape.csv(self.data)

    def markdown(self, *, fingerprints: bool = True) -> str:
        """The table and its notes, without the title."""
        lines = [markdown_table(self.header, self.cells, self.text_columns, escape.markdown)]
        lines += ["", *(f"- {escape.markdown(note)}" for note in self.notes)]
        if fingerprints:
            lines.append(f"- {self._behind()}")
        return "\n".join(lines) + "\n"

    def _behind(self) -> str:
        if len(self.fingerprints) > NAMED_FINGERPRINTS:
            return f"Behind it: {len(self.fingerprints):,} artifacts, whose fingerprints are in sources.json."
        return f"Fingerprints of the artifacts behind it: {' '.join(self.fingerprints) or 'none'}"

    def latex(self) -> str:
        """A `table` with booktabs rules; the fingerprints are comments."""
        columns = "l" * self.text_columns + "r" * (len(self.header) - self.text_columns)
        comments = escape.latex_comment(self._behind())
        header = " & ".join(_latex_header(cell, "lr"[i >= self.text_columns]) for i, cell in enumerate(self.header))
        body = "".join(_latex_row(row) for row in self.cells)
        notes = "".join(f"{escape.latex(note)}\\\\\n" for note in self.notes)
        return (
            f"% Needs \\usepackage{{booktabs,graphicx}}.\n{comments}"
            f"\\begin{{table}}\n\\centering\n\\caption{{{escape.latex(self.title)}}}\n"
            # Shrunk to the text's width where it is wider; a table that fits keeps its size.
            f"\\sbox0{{%\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{header} \\\\\n\\midrule\n{body}\\bottomrule\n"
            f"\\end{{tabular}}}}%\n"
            f"\\ifdim\\wd0>\\textwidth\\resizebox{{\\textwidth}}{{!}}{{\\usebox0}}\\else\\usebox0\\fi\n\n"
            f"\\smallskip\n\\raggedright\\footnotesize\n{notes}\\end{{table}}\n"
        )


def number(value: Any, digits: int) -> str:
    """A number with so many decimals, a typographic minus and thousands separators; an en dash for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    text = f"{value:,.{digits}f}"
    return text.replace("-", "−" if any(digit in text for digit in "123456789") else "")


def digits_for(values: Sequence[float]) -> int:
    """How many decimals show values of this size: one for percentages and lengths, more for small numbers."""
    largest = max((abs(value) for value in values if not math.isnan(value)), default=0.0)
    return 3 if largest <= 1.5 else 2 if largest <= 10 else 1


def _latex_header(cell: str, side: str) -> str:
    """A header in lines of some letters each, so that it makes its column no wider than the numbers need."""
    lines = [escape.latex(line) for line in textwrap.wrap(cell, HEADER_LETTERS, break_long_words=False)]
    stacked = " \\\\ ".join(lines)
    return f"\\shortstack[{side}]{{{stacked}}}" if len(lines) > 1 else stacked


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(escape.latex(cell) for cell in cells) + " \\\\\n"
