"""`python -m analysis results/<sweep>`: its tables and plots. `python -m analysis paper`: the paper's length figure."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

OK, ERROR, INCOMPLETE = 0, 1, 3


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Tables and plots of a sweep, from the artifacts on disk.",
        epilog="Exit codes: 0 all jobs are in them; 3 written, but the jobs listed are missing or incomplete; "
        "1 nothing to analyse, or the paper's lines were not reproduced; 2 usage.",
    )
    parser.add_argument(
        "target",
        help="a sweep's folder, as results/<sweep>; or `paper`: the paper's length figure, its lines checked",
    )
    parser.add_argument("--out", type=Path, default=Path("results/paper"), help="folder for `paper` (%(default)s)")
    parser.add_argument("--pdf", action="store_true", help="plots as PDF beside the PNG (`paper` always has them)")
    parsed = parser.parse_args(arguments)
    return draw_paper(parsed.out) if parsed.target == "paper" else analyse_sweep(Path(parsed.target), pdf=parsed.pdf)


def analyse_sweep(folder: Path, *, pdf: bool = False) -> int:
    """Analyses one sweep, prints what was written and what is missing."""
    from aipo.jobs import JobFileError
    from analysis import analyse, closing
    from analysis.collect import AnalysisError

    try:
        written = analyse(folder, pdf=pdf)
    except (AnalysisError, JobFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ERROR
    gaps = closing.missing(folder)
    closing.show(folder)
    print(f"{len(written)} files in {folder}; start with {folder / 'index.html'} or report.md")
    for line in gaps:
        from analysis.escape import one_line

        print(f"missing: {one_line(line)}", file=sys.stderr)
    return INCOMPLETE if gaps else OK


def draw_paper(out: Path) -> int:
    """Draws the paper's length figure into `out` and holds the fitted lines against the published ones."""
    from analysis import published

    out.mkdir(parents=True, exist_ok=True)
    for path in published.length_figure(out / "length_vs_score"):
        print(f"wrote {path}")
    checks = published.check_lines()
    print(published.report(checks))
    return OK if all(check.good for check in checks) else ERROR


if __name__ == "__main__":
    sys.exit(main())
