"""docs/objectives.md: every objective has its row, and the row says what the YAML says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import test_trl_parity
from toy_pairs import NAMES, objective

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
NEEDS = {
    "uses_reference": "reference",
    "uses_win_probability": "win probability",
    "uses_prefix": "prefix",
    "batch_coupled": "whole batch",
}


def rows(heading: str) -> dict[str, list[str]]:
    """Cells of each row, by objective, of the table with that first line."""
    lines = PAGE[PAGE.index(heading) :].split("\n\n")[0].splitlines()[2:]
    table = [re.split(r"\s*\|\s*", line.strip("| ")) for line in lines]
    return {cells[0].strip("`"): cells[1:] for cells in table}


MAIN = rows("| objective | loss |")
PARITY = rows("| objective | TRL's counterpart |")


def test_both_tables_have_every_objective_and_no_other() -> None:
    assert sorted(MAIN) == NAMES
    assert sorted(PARITY) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_needs_are_those_declared(name: str) -> None:
    built = objective(name)
    declared = [word for flag, word in NEEDS.items() if getattr(built, flag)]
    assert MAIN[name][3] == (", ".join(declared) or "nothing")


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_the_yaml(name: str) -> None:
    stated = {key: float(value) for key, value in re.findall(r"(\w+) (\d[\d.e-]*\d|\d)(?=[,:])", MAIN[name][4])}
    assert stated == objective(name).loss.keywords


@pytest.mark.parametrize("name", NAMES)
def test_claims_of_parity_are_those_tested(name: str) -> None:
    claimed = PARITY[name][1].split(":")[0]
    tested = test_trl_parity.PARITY.get(name)
    if tested is None:
        assert claimed == "not comparable"
    else:
        assert (claimed == "always") == (tested == "full")
