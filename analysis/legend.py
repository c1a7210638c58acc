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


def draw_legend(figure: Figure, looks: dict[str, dict[str, Any]], *, base: bool) -> None:
    """Draw an entry per name in `looks`, and with `base` the base model's star.

    The figure grows by the rows that it has no room for, so that many variants do not squash its panels.
    """
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], markersize=5.5, linewidth=1.8, label=name, **look) for name, look in looks.items()]
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
        # About 0.075 inches a letter at this font size, and 0.65 for the line and the gaps.
        return sum(0.65 + 0.075 * max(map(len, part)) for part in parts)

    return max((columns for columns in range(1, len(names) + 1) if needed(columns) <= width), default=1)
