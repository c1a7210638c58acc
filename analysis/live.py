"""The page of a sweep that still runs: `python -m analysis.live results/<sweep>` writes index.html and nothing else.

It is the page that the analysis at the end writes of the same artifacts, byte for byte; tables, plots and report wait
for the end. A run starts this after a round, `aipo view` while somebody looks.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from aipo.jobs import FILE as JOB
from aipo.jobs import SUBMITTED
from analysis.closing import PAGE

Seen = tuple[tuple[str, int], ...]
"""The files that say how far the jobs are, and when each was written."""


def seen(sweep: Path) -> Seen:
    """What jobs say now; another value once one of them got further, began or ended."""
    found = []
    for path in (sweep / SUBMITTED, *sorted(sweep.glob(f"jobs/*/{JOB}"))):
        try:
            found.append((str(path.relative_to(sweep)), path.stat().st_mtime_ns))
        except FileNotFoundError:  # no such file, or a job that is just being replaced
            pass
    return tuple(found)


def has_begun(sweep: Path) -> bool:
    """Whether any job has a record."""
    return any(sweep.glob(f"jobs/*/{JOB}"))


def is_behind(sweep: Path) -> bool:
    """Whether a job got further since the page was written."""
    try:
        written = (sweep / PAGE).stat().st_mtime_ns
    except FileNotFoundError:
        return True
    return any(at > written for _, at in seen(sweep))


def refresh(sweep: Path) -> bool:
    """Write the page of what is there now. Raises AnalysisError where there is nothing to show yet.

    False where the jobs got further meanwhile: what was read is then old, and the page that is there may be newer.
    """
    from analysis import page, sheets
    from analysis.page.render import render, replace

    before = seen(sweep)
    material = sheets.gather(sweep)
    verdict = page.verdict(material.sweep, material.plotted)
    html = render(material.sweep, sheets.sheets(material), verdict, material.missing)
    if seen(sweep) != before:
        return False
    replace(sweep / PAGE, html)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Once. Prints the CPU seconds that it took."""
    from analysis.collect import AnalysisError

    (sweep,) = sys.argv[1:] if arguments is None else arguments
    try:
        refresh(Path(sweep))
    except (AnalysisError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{time.process_time():.2f}")
    return 0


if __name__ == "__main__":
    os.nice(19)  # whoever trains goes first
    sys.exit(main())
