"""The legend below a figure's panels: as many columns as fit, and room of its own for every row of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analysis import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS_INCLUDED = 2
"""Rows of entries that the height of a figure already has room for."""
ROW_INCHES = 0.19
"""The height of each row after those, at the legend's font size."""
LETTER_INCHES = 0.075
"""About the width of a letter at that size."""
ENTRY_INCHES = 0.65
"""The line of an entry, and the gaps beside it."""


def draw_legend(figure: Figure, looks: dict[str, dict[str, Any]], *, base: bool) -> None:
    """Draw an entry per name in `looks`, and with `base` the base model's star.

    The figure grows by the rows that it has no room for, so that many variants do not squash its panels. Names that are
    wider than the figure are shortened; tables have them in full.
    """
    from matplotlib.lines import Line2D

    labels = shortened(list(looks), int((figure.get_figwidth() - ENTRY_INCHES) / LETTER_INCHES))
    handles = [
        Line2D([], [], markersize=5.5, linewidth=1.8, label=labels[name], **look) for name, look in looks.items()
    ]
    if base:
        handles.append(
            Line2D([], [], color=style.BASE_COLOUR, marker="*", markersize=9, linewidth=0, label=style.BASE_NAME)
        )
    names = [str(handle.get_label()) for handle in handles]
    columns = legend_columns(names, figure.get_figwidth())
    rows = math.ceil(len(names) / columns)
    figure.set_figheight(figure.get_figheight() + ROW_INCHES * max(0, rows - ROWS_INCLUDED))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def legend_columns(names: Sequence[str], width: float) -> int:
    """The most columns in which these entries, filled in column by column, are no wider than `width` inches."""

    def needed(columns: int) -> float:
        rows, longer = divmod(len(names), columns)  # matplotlib's first columns are one entry longer
        ends = [rows * (number + 1) + min(number + 1, longer) for number in range(columns)]
        parts = [names[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return sum(ENTRY_INCHES + LETTER_INCHES * max(map(len, part)) for part in parts)

    return max((columns for columns in range(1, len(names) + 1) if needed(columns) <= width), default=1)


def shortened(names: Sequence[str], most: int) -> dict[str, str]:
    """A label of at most `most` letters (and at least eight) for each name, no two alike.

    A longer name keeps its beginning and its end, where variants differ, around an ellipsis; where two would read alike
    nevertheless, the ellipsis is numbered.
    """
    most = max(most, 8)
    labels = {name: name for name in names if len(name) <= most}
    for name in names:
        number = 1
        while name not in labels:
            between = "…" if number == 1 else f"…{number}…"
            tail = (most - len(between)) // 2
            label = name[: most - len(between) - tail] + between + name[len(name) - tail :]
            if label not in labels.values():
                labels[name] = label
            number += 1
    return labels
