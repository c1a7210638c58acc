"""`python -m aipo.benchmarks`: score files that the official tools wrote, and write our artifacts in their formats."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aipo.artifacts import StoreError, check_folder, read_manifest
from aipo.benchmarks.official.reading import file_name

BENCHMARKS = ("mt_bench", "alpaca_eval", "arena_hard")
SCORE_OPTIONS = {
    "gamed": ("alpaca_eval",),
    "baseline": ("arena_hard", "mt_bench"),
    "published": ("alpaca_eval", "arena_hard"),
    "keep_last": ("mt_bench",),
}
"""Options of `score` that mean something for some benchmarks only."""


def main(arguments: Sequence[str] | None = None, program: str = "python -m aipo.benchmarks") -> int:
    """Parse and run; returns the exit status. What cannot be read or scored is one line on stderr, not a traceback.

    `program` is what the user typed before `score` or `export`, for the help.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description="Score files that the official tools wrote; write a run's answers and judgments in their formats.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser(
        "score",
        help="score judgments made by the official tools, as they are",
        description="Scores judgments made by the official tools, as they are: a table on the standard output.",
        epilog="Formats and examples: docs/benchmarks.md. Exit codes: 0 scored; 1 cannot be read or scored; 2 usage.",
    )
    score.add_argument("--benchmark", required=True, choices=BENCHMARKS, help="whose files they are")
    score.add_argument(
        "--judgments", required=True, nargs="+", type=Path, metavar="FILE",
        help="mt_bench: <judge>_single.jsonl or <judge>_pair.jsonl; alpaca_eval: annotations.json, one per model; "
        "arena_hard: model_judgment/<judge>/*.jsonl, one per model (they share the official interval)",
    )  # fmt: skip
    score.add_argument(
        "--answers", nargs="+", type=Path, default=[], metavar="FILE", help="the models' answers, for their lengths"
    )
    score.add_argument("--assets", metavar="FOLDER", help="asset cache (default: $AIPO_ASSETS, else ~/.cache/aipo)")
    score.add_argument(
        "--gamed", type=Path, metavar="CSV", help="alpaca_eval: another df_gamed.csv than the cached one"
    )
    score.add_argument("--baseline", metavar="MODEL", help="arena_hard (default gpt-4-0314) and mt_bench pairs")
    score.add_argument(
        "--published", type=Path, metavar="CSV", help="alpaca_eval, arena_hard: an official leaderboard to compare with"
    )
    score.add_argument("--keep-last", action="store_true", help="mt_bench: count repeated lines once, as AIPO does")
    export = commands.add_parser(
        "export",
        help="write answers and judgments of a run as official files",
        description="Writes answers and judgments of a run as files that the official tools open; prints their paths.",
        epilog="Only runs on the official questions (benchmark=alpaca_eval and so on) have official files.",
    )
    export.add_argument(
        "--benchmark", required=True, choices=(*BENCHMARKS, "mt_bench_pairwise"), help="whose format to write"
    )
    export.add_argument(
        "--scores", type=Path, metavar="FOLDER",
        help="outputs/scores/<fingerprint>, which results/<sweep>/jobs/<job>/run.json names: finds the two below",
    )  # fmt: skip
    export.add_argument("--answers", type=Path, metavar="PARQUET", help="outputs/answers/<fingerprint>/answers.parquet")
    export.add_argument(
        "--judgments", type=Path, metavar="JSONL", help="outputs/judgments/<fingerprint>/judgments.jsonl"
    )
    export.add_argument("--baseline-answers", type=Path, metavar="PARQUET", help="mt_bench_pairwise: the other side")
    export.add_argument("--baseline", default="baseline", metavar="MODEL", help="mt_bench_pairwise: its name")
    export.add_argument("--model", required=True, help="the policy's name in the files")
    export.add_argument("--out", required=True, type=Path, metavar="FOLDER")
    export.add_argument("--assets", metavar="FOLDER", help="asset cache (default: $AIPO_ASSETS, else ~/.cache/aipo)")
    options = parser.parse_args(arguments)
    for name, benchmarks in SCORE_OPTIONS.items() if options.command == "score" else ():
        if getattr(options, name) and options.benchmark not in benchmarks:
            parser.error(f"--{name.replace('_', '-')} is an option for {' and '.join(benchmarks)}")
    for option in ("model", "baseline") if options.command == "export" else ():
        given = getattr(options, option)
        if given != file_name(given):
            parser.error(
                f"--{option}: expected a name that can be a file's, got {given!r}; for example {file_name(given)}"
            )
    if options.command == "export" and not (options.scores or options.answers):
        parser.error("export needs --scores, or --answers")
    try:
        if options.command == "score":
            _check([*options.judgments, *options.answers])
            from aipo.benchmarks.official.scoreboards import SCOREBOARDS

            print(table(*SCOREBOARDS[options.benchmark](options)))
        else:
            from aipo.benchmarks.official.exports import EXPORTS

            if options.scores:
                _find_parents(options)
            _check(filter(None, (options.answers, options.judgments, options.baseline_answers)))
            for file in EXPORTS[options.benchmark](options):
                print(file)
    except (StoreError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _find_parents(options: argparse.Namespace) -> None:
    """Sets the paths that were not given to those of the artifacts which the scores came from."""
    folder = options.scores.resolve()
    store, stage, digest = folder.parents[1], folder.parent.name, folder.name
    parents = read_manifest(store, stage, digest)["parents"]
    if "answers" not in parents:
        raise ValueError(f"{options.scores}: expected a scores artifact, got one of stage {stage!r}")
    options.answers = options.answers or store / "answers" / parents["answers"] / "answers.parquet"
    if "judgments" in parents:
        options.judgments = options.judgments or store / "judgments" / parents["judgments"] / "judgments.jsonl"
    if "baseline" in parents:
        baseline = store / "answers" / parents["baseline"] / "answers.parquet"
        options.baseline_answers = options.baseline_answers or baseline


def _check(files: Iterable[Path]) -> None:
    """StoreError where a file lies in an artifact, and that is not what its manifest says."""
    for folder in {file.parent for file in files}:
        check_folder(folder)


def table(rows: Sequence[Sequence[Any]], notes: Sequence[str] = ()) -> str:
    """Aligned columns; the first row is the header. Floats get two decimals, None a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return f"[{value[0]:.2f}, {value[1]:.2f}]"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
