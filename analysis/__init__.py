"""From artifacts to tables and plots. Never imports torch."""

from __future__ import annotations

from pathlib import Path


def analyse(sweep: Path, *, pdf: bool = False) -> list[Path]:
    """Writes the tables, plots and page of a sweep's folder into it; returns the paths. See `analysis.report`.

    Where nothing behind them changed, nothing is read and nothing imported.
    """
    from analysis import stamp

    if (files := stamp.untouched(sweep, pdf=pdf)) is not None:
        return files
    from analysis.report import analyse as analyse_sweep

    return analyse_sweep(sweep, pdf=pdf)


__all__ = ["analyse"]
