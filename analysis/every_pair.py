"""Every series of a sweep against every other one: `python -m analysis.every_pair results/<sweep>`.

For sweeps that take something apart, as AIPO into its two terms: which part differs from which, and not from the
control alone. Writes `tables/every_pair_<benchmark>.{csv,md,tex}` beside the sweep's other tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from aipo.jobs import JobFileError
from analysis import style
from analysis.collect import AnalysisError, Sweep, collect
from analysis.contrasts import QUANTITIES, every_pair
from analysis.estimates import cell, corrected, counted, exact, is_ratio
from analysis.findings import leading
from analysis.replicates import curves, left_out
from analysis.summary import points, title, unique
from analysis.table import Table, digits_for

HEADERS = ("length / its", "score − its", "score − its, at equal length", "length / its, at equal score")
"""In the order of QUANTITIES."""


def table_of(sweep: Sweep) -> Table:
    """The last round of the sweep's leading benchmark, p corrected by Holm over all pairs of a column.

    Raises AnalysisError for no benchmark, or fewer than two series that share replicates.
    """
    import pandas as pd

    benchmark = leading(sweep)
    series = sorted(curves(sweep, benchmark), key=lambda one: style.series_order(*one.series))
    found = every_pair(series)
    if not found:
        raise AnalysisError(f"{sweep.folder}: expected two objectives or variants with scores of the same seeds")

    all_ = [contrast for _, _, mine in found for contrast in mine]
    digits = digits_for([contrast.estimate.value for contrast in all_ if not is_ratio(contrast)])
    cells, data = [], []
    for one, other, mine in found:
        by_quantity = {contrast.quantity: contrast for contrast in mine}
        both = [style.series_name(*series.series) for series in (one, other)]
        cells.append((*both, *(cell(by_quantity.get(quantity), digits) for quantity in QUANTITIES)))
        data.append({"benchmark": benchmark, "round": mine[0].horizon, "series": both[0], "against": both[1]})
        for contrast in mine:
            data[-1] |= exact(contrast)
    fingerprints = unique(d for digests in points(sweep, benchmark)["fingerprints"] for d in digests)
    return Table(
        name=f"every_pair_{benchmark}",
        title=f"{title(sweep, benchmark)}: every pair, after round {all_[0].horizon}",
        data=pd.DataFrame(data),
        header=("objective", "against", *HEADERS),
        cells=tuple(cells),
        notes=(
            f"By seed and base model; in brackets the 95 % interval over {counted([one.estimate for one in all_])}"
            f"{corrected(all_)}.",
            "At equal length: read off the measured curves by interpolation, averaged over the lengths that all "
            "curves compared here pass; at equal score likewise. No line is fitted.",
            *left_out(sweep, benchmark),
        ),
        fingerprints=fingerprints,
        text_columns=2,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis.every_pair", description=__doc__.split("\n")[0])
    parser.add_argument("sweep", type=Path, help="the sweep's folder, as results/<sweep>")
    sweep = parser.parse_args(arguments).sweep
    try:
        table = table_of(collect(sweep))
    except (AnalysisError, JobFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in table.write(sweep / "tables"):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
