"""docs/objectives.md: what is written from the code is up to date, and claims of parity are those tested."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import test_trl_parity
from toy_pairs import NAMES

from aipo.objectives.aliases import ALIASES, EXPLANATIONS


@pytest.fixture(scope="module")
def tables(repository: Path) -> ModuleType:
    """docs/tables.py, which is a script and no module of a package."""
    spec = importlib.util.spec_from_file_location("docs_tables", repository / "docs" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_tables"] = module
    spec.loader.exec_module(module)
    return module


def test_what_is_written_from_the_code_is_up_to_date(tables: ModuleType) -> None:
    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.rewritten(page) == page, "docs/objectives.md is out of date: run python docs/tables.py"


def test_every_objective_has_its_row_and_section(tables: ModuleType) -> None:
    parts = tables.generated()
    assert re.findall(r"^\| \[`(\w+)`\]", parts["table"], re.MULTILINE) == NAMES
    assert re.findall(r"^### (\w+)$", parts["formulas"], re.MULTILINE) == NAMES


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("beta: 0.1   # AIPO", "beta: 0.1   ## AIPO", None),
        ("beta: 0.1   # AIPO paper, length-vs-score figure", "beta: 0.1", "where the value comes from: beta"),
        ("aipo.objectives.aipo\n", "aipo.objectives.terms.policy_margin\n", "docstring of one paragraph"),
    ],
)
def test_a_gap_is_named(tables: ModuleType, tmp_path: Path, old: str, new: str, message: str | None) -> None:
    text = (tables.FOLDER / "aipo.yaml").read_text(encoding="utf-8")
    assert old in text
    file = tmp_path / "aipo.yaml"
    file.write_text(text.replace(old, new), encoding="utf-8")
    if message is None:
        assert tables.Described.read(file).coefficients["alpha"][0] == "0.07"
        return
    with pytest.raises(ValueError, match=message):
        tables.Described.read(file)


def test_aliases_lead_to_objectives() -> None:
    assert set(ALIASES.values()) <= set(NAMES)
    assert not set(ALIASES) & set(NAMES)
    assert set(EXPLANATIONS) <= set(ALIASES)


def test_claims_of_parity_are_those_tested(repository: Path) -> None:
    page = (repository / "docs" / "objectives.md").read_text(encoding="utf-8")
    lines = page.split("| objective | TRL's counterpart |")[1].split("\n\n")[0].splitlines()[2:]
    claimed = {cells[1].strip("` "): cells[3].strip() for cells in (line.split("|") for line in lines)}
    assert list(claimed) == list(test_trl_parity.PARITY), "one row of docs/objectives.md for each entry of PARITY"
    for name, claim in claimed.items():
        assert (claim == "always") == (test_trl_parity.PARITY[name] == "full"), name
