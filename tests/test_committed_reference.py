"""Every row of numbers that the README and results/README.md show stands in a table of the committed reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.mark.parametrize("page", ["README.md", "results/README.md"])
def test_rows_of_numbers_come_from_the_reference(repository: Path, page: str) -> None:
    tables = (repository / "results/miniature_reference/tables").glob("*.md")
    known = {line for table in tables for line in table.read_text(encoding="utf-8").splitlines()}
    shown = [line for line in (repository / page).read_text(encoding="utf-8").splitlines() if "p = " in line]
    rows = [line for line in shown if line.startswith("|")]
    assert len(rows) >= 4 and [row for row in rows if row not in known] == []


def test_the_references_jobs_are_there_and_done(repository: Path) -> None:
    files = sorted((repository / "results/miniature_reference/jobs").glob("*/run.json"))
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    assert len(records) == 35 and {record["status"] for record in records} == {"done"}
    seeds = {(record["seed"], record["settings"]["model"]["seed"]) for record in records}
    assert len(seeds) == 7 and len({base for _, base in seeds}) == 3
    assert all(len(record["points"]) == 16 for record in records)
