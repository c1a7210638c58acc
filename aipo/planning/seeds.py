"""How many seeds a sweep needs, by the spread between the seeds of a finished one (`pilot=results/<sweep>`)."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from aipo.stats import detectable_difference, seeds_needed

LEADING = ("gold", "alpaca_eval", "arena_hard", "mt_bench")
"""The first of these that the pilot has is read, else any."""
QUANTITIES = {"log_length": "length / control's", "score_at_equal_length": "score − control's, at equal length"}
"""Columns of the pilot's table of contrasts -> how they are shown; logarithms as ratios."""


@dataclass(frozen=True)
class Spread:
    """One contrast of the pilot."""

    objective: str
    quantity: str
    difference: float
    """Mean over the pilot's seeds; a natural logarithm for lengths."""
    sd: float
    """Of one seed's difference."""
    error_questions: float
    """Standard error from the choice of questions, which no further seed lowers."""


@dataclass(frozen=True)
class Pilot:
    """What a finished sweep knows of its own spread."""

    benchmark: str
    rounds: int
    n_seeds: int
    spreads: tuple[Spread, ...]


def contrast_tables(pilot: Path) -> dict[str, Path]:
    """Benchmark -> the CSV of its contrasts with the control."""
    prefix = "contrasts_"
    found = sorted((pilot / "tables").glob(f"{prefix}*.csv"))
    return {path.stem.removeprefix(prefix): path for path in found if not path.stem.endswith("_of_aipo")}


def read_pilot(pilot: Path, rounds: int) -> Pilot:
    """The spreads after the pilot's last round up to `rounds`, or after its first one shown. ValueError without any."""
    tables = contrast_tables(pilot)
    name = next((name for name in (*LEADING, *tables) if name in tables), None)
    rows = [] if name is None else _rows_of(tables[name])
    if rows and not {"n_seeds", "log_length_se_questions"} <= set(rows[0]):
        raise ValueError(f"pilot: the tables of {pilot} are of an older version; run `aipo analyse {pilot}` first")
    rows = [row for row in rows if int(row["n_seeds"]) > 1]
    if name is None or not rows:
        raise ValueError(
            f"pilot: expected the folder of an analysed sweep with the control (dpo), another objective and two seeds "
            f"or more, got {pilot}; leave pilot out, or run `aipo analyse {pilot}`"
        )
    shown = sorted({int(row["round"]) for row in rows})
    at = max((one for one in shown if one <= rounds), default=shown[0])
    rows = [row for row in rows if int(row["round"]) == at]
    spreads = [spread for row in rows for quantity in QUANTITIES if (spread := _spread(row, quantity)) is not None]
    return Pilot(name, at, min(int(row["n_seeds"]) for row in rows), tuple(spreads))


def _rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _spread(row: dict[str, str], quantity: str) -> Spread | None:
    if not row.get(f"{quantity}_se"):
        return None  # nothing at equal length
    questions = float(row[f"{quantity}_se_questions"])
    variance = max(0.0, float(row[f"{quantity}_se"]) ** 2 - questions**2)
    name = f"{row['objective']} [{row['variant']}]" if row["variant"] else row["objective"]
    return Spread(name, quantity, float(row[quantity]), math.sqrt(variance * int(row["n_seeds"])), questions)


def print_seeds(pilot: Path, rounds: int, n_seeds: int) -> None:
    """What so many seeds would show after so many rounds, and how many each of the pilot's own differences needs."""
    read, console = read_pilot(pilot, rounds), Console(width=132, highlight=False)
    console.print(
        f"\nSeeds: {n_seeds} here. By the spread between the {read.n_seeds} seeds of {pilot} ({read.benchmark}, after "
        f"round {read.rounds}), paired with the control's:",
        style="bold",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False)
    for column in ("objective", "of", "smallest shown in 4 of 5 repetitions", "found there", "seeds it needs"):
        table.add_column(column, justify="left" if column in ("objective", "of") else "right")
    for cells in _rows(read, n_seeds):
        table.add_row(*cells)
    console.print(table)


def _rows(pilot: Pilot, n_seeds: int) -> Iterator[tuple[str, ...]]:
    for spread in pilot.spreads:
        smallest = math.nan
        if n_seeds > 1:
            smallest = detectable_difference(spread.sd, n_seeds, error_questions=spread.error_questions)
        needed = seeds_needed(spread.difference, spread.sd, error_questions=spread.error_questions)
        told = "more questions" if needed is None else f"{needed:,}"
        yield (
            spread.objective,
            QUANTITIES[spread.quantity],
            "one seed shows none" if math.isnan(smallest) else _shown(spread, -smallest, smallest),
            _shown(spread, spread.difference, spread.difference),
            told,
        )


def _shown(spread: Spread, logarithm: float, score: float) -> str:
    return f"{math.exp(logarithm):.2f}" if spread.quantity.startswith("log_") else f"{score:+.3f}".replace("-", "−")
