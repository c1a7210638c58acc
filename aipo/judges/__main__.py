"""`python -m aipo.judges`: how far a judge can be trusted (`quality`), and what every judge was asked (`spent`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from aipo.artifacts import StoreError, check_folder, read_manifest
from aipo.judges.quality import Estimate, QualityError, agreement, length_preference, position
from aipo.judges.replies import open_replies
from aipo.records import Answer, Judgment, from_row, markdown_table, read_jsonl, read_parquet


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m aipo.judges", description="How far a judge can be trusted, and what was spent on it."
    )
    commands = parser.add_subparsers(required=True, metavar="quality|spent")
    quality = commands.add_parser(
        "quality", help="position bias, liking for length, agreement; from verdicts on disk, nothing is asked"
    )
    quality.add_argument("judgments", type=Path, help="a judgments artifact: outputs/judgments/<fingerprint>")
    quality.add_argument(
        "--second", type=Path, help="judgments of the same answers by another judge, or by the same one asked again"
    )
    spent = commands.add_parser("spent", help="requests, replies, tokens and dollars of every judge, over all runs")
    spent.add_argument("store", type=Path, help="the store's folder: outputs")
    parsed = parser.parse_args(arguments)
    if "store" in parsed:
        return _print_spent(parsed.store)
    try:
        judge, estimates, notes = report(parsed.judgments, parsed.second)
    except (QualityError, StoreError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = [(one.name, f"{one.value:.3g}", f"{one.ci95[0]:.3g} to {one.ci95[1]:.3g}", one.n) for one in estimates]
    print(f"judge {judge}\n")
    print(markdown_table(("measure", "value", "95 % interval", "questions"), rows, text_columns=1))
    for note in notes:
        print(f"\n- {note}", end="")
    print()
    return 0


def _print_spent(store: Path) -> int:
    try:
        kept = open_replies(store / "replies")
        ledgers = [(replies.judge, replies.ledger()) for replies in kept]
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not ledgers:
        print(f"error: {store / 'replies'}: no judge's replies are kept there", file=sys.stderr)
        return 1
    rows = []
    for judge, ledger in ledgers:
        dollars = "-" if ledger.dollars is None else f"{ledger.dollars:.2f}"
        counts = (ledger.requests, ledger.replies, ledger.unreadable, ledger.input_tokens, ledger.output_tokens)
        unsettled = f"{ledger.unsettled_dollars:.2f}" if ledger.unsettled_dollars > 1e-9 else "-"
        rows.append((judge.get("name"), *counts, dollars, unsettled))
    names = (
        "judge",
        "requests",
        "replies",
        "unreadable",
        "input tokens",
        "output tokens",
        "dollars",
        "unsettled, at most",
    )
    print(markdown_table(names, rows, text_columns=1))
    for judge, ledger in ledgers:
        tokens = ledger.unpriced_input_tokens, ledger.unpriced_output_tokens
        if any(tokens):
            print(
                f"\n- {judge.get('name')}: {tokens[0]} input and {tokens[1]} output tokens came while no judge.price "
                "was set, and are not among its dollars; judge.max_dollars counts them at the price that is set then"
            )
    return 0


def report(folder: Path, second: Path | None) -> tuple[str, list[Estimate], list[str]]:
    """The judge's name, every measurement its verdicts allow, and why the others are missing.

    Raises StoreError where a file is not what its artifact's manifest says.
    """
    judgments, manifest = _judgments(folder), check_folder(folder) or {"parents": {}}
    if not judgments:
        raise QualityError(f"{folder}: there are no judgments in it; this benchmark asks no judge")
    unscored = sum(judgment.value is None for judgment in judgments)
    notes = [f"{len(judgments) - unscored} of {len(judgments)} verdicts are scored"]
    estimates: list[Estimate] = []
    if judgments[0].order != "single":
        try:
            estimates += position(judgments)
        except QualityError as error:
            notes.append(f"position: {error}")
    store = folder.parent.parent
    chars, baseline = (_chars(store, manifest["parents"].get(name)) for name in ("answers", "baseline"))
    if chars is None or (baseline is None and judgments[0].order != "single"):
        notes.append("length: the baseline's answers are not among the artifacts")
    else:
        estimates.append(length_preference(judgments, chars, None if judgments[0].order == "single" else baseline))
    if second is not None:
        others = _judgments(second)
        estimates += agreement(judgments, others)
        notes.append(f"agreement and kappa: with {others[0].judge} in {second}")
    return judgments[0].judge, estimates, notes


def _judgments(folder: Path) -> list[Judgment]:
    path = folder / "judgments.jsonl"
    if not path.exists():
        raise QualityError(f"{path}: no such file; expected a judgments artifact, outputs/judgments/<fingerprint>")
    check_folder(folder)
    return [from_row(Judgment, row) for row in read_jsonl(path)]


def _chars(store: Path, digest: str | None) -> dict[tuple[str, int], int] | None:
    if digest is None:
        return None
    read_manifest(store, "answers", digest)
    answers = read_parquet(store / "answers" / digest / "answers.parquet", Answer)
    return {
        (answer.question_id, turn): len(completion.text)
        for answer in answers
        for turn, completion in enumerate(answer.turns, start=1)
    }


if __name__ == "__main__":
    sys.exit(main())
