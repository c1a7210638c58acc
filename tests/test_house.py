"""The rules of CONTRIBUTING.md that a tool can keep: the ground, sizes of files, width of prose, layers, types."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GROUND = {"records", "artifacts", "components", "jobs", "iteration"}
LIBRARIES = {"objectives", "stats", "remote"}
LONGEST_MODULE = 400
PROSE_WIDTH = 100
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "results" / "README.md",
]


def _modules() -> list[Path]:
    folders = ("aipo", "analysis", "docs", "speed", "tests")
    return [ROOT / "run.py", *(path for name in folders for path in sorted((ROOT / name).rglob("*.py")))]


def test_five_files_stand_on_the_ground() -> None:
    files = {path.stem for path in (ROOT / "aipo").glob("*.py")} - {"__init__", "__main__"}
    assert files <= GROUND


def test_every_room_is_on_the_plan() -> None:
    rooms = {path.parent.name for path in (ROOT / "aipo").glob("*/__init__.py")}
    plan = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("layers = [")[2].partition("]")[0]
    assert rooms <= set(re.findall(r"\w+", plan))


def test_the_files_of_long_tests_are_there() -> None:
    listed = (ROOT / "tests/conftest.py").read_text(encoding="utf-8").partition("LONG = ")[2].partition(".split()")[0]
    names = re.findall(r"[\w/]+\.py", listed)
    assert len(names) > 10 and [name for name in names if not (ROOT / "tests" / name).is_file()] == []


def test_no_module_is_longer_than_it_can_be_read() -> None:
    lengths = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in _modules()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_MODULE} == {}


def wide_lines(text: str) -> list[str]:
    """Lines of prose above the width: tables, code blocks and lines that cannot be broken (a link) aside."""
    wide, code = [], False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            code = not code
        breakable = " " in line.strip().removeprefix("- ").removeprefix("> ")
        if not code and breakable and len(line) > PROSE_WIDTH and not line.startswith(("|", "    ")):
            wide.append(line)
    return wide


def test_wide_lines_are_found_in_prose_alone() -> None:
    wide = "word " * 30
    assert wide_lines(wide) == [wide]
    assert wide_lines(f"```text\n{wide}\n```\n| {wide} |\n{'x' * 120}\n{'word ' * 20}") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_is_wrapped(page: Path) -> None:
    assert wide_lines(page.read_text(encoding="utf-8")) == []


def test_every_class_that_conf_names_is_typed() -> None:
    """mypy proves only what the list names. Objectives are functions; those below are no Protocol's."""
    named = set()
    for path in (ROOT / "conf").rglob("*.yaml"):
        named |= set(re.findall(r"_target_: aipo\.(?!objectives\b)[\w.]+\.(\w+)", path.read_text(encoding="utf-8")))
    concrete = {
        "Decoding", "Hardware", "Iteration", "KMeansClusters", "ModelShape", "PairFilters", "PolicyRef", "Price",
        "Recipe", "Resources", "SelfInstruct", "Store", "SweepCallback", "Trainer", "Workload",
    }  # fmt: skip
    tree = ast.parse((ROOT / "tests" / "typing_of_components.py").read_text(encoding="utf-8"))
    bound = {
        name.id
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.args.vararg and function.args.vararg.annotation
        for name in ast.walk(function.args.vararg.annotation)
        if isinstance(name, ast.Name)
    }
    untyped = sorted(named - concrete - bound)
    assert not untyped, f"add {', '.join(untyped)} to the classes of their Protocol in tests/typing_of_components.py"


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(folder), "PATH": ""}, capture_output=True, text=True, check=False
    )


def test_a_planted_circle_and_an_import_upwards_break_the_contracts(tmp_path: Path) -> None:
    for name in ("aipo", "analysis"):
        shutil.copytree(
            ROOT / name,
            tmp_path / name,
            ignore=lambda _, names: [n for n in names if n.endswith((".pyc", ".safetensors"))],
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    clean = _lint(tmp_path)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    with (tmp_path / "aipo" / "rankers" / "ranking.py").open("a", encoding="utf-8") as file:
        file.write("\nimport aipo.rankers.length_only\n")
    with (tmp_path / "aipo" / "rankers" / "length_only.py").open("a", encoding="utf-8") as file:
        file.write("\nimport aipo.rankers.ranking\nimport aipo.pipeline.loop\n")
    broken = _lint(tmp_path)
    assert broken.returncode == 1
    assert "No cycles are allowed in aipo.rankers" in broken.stdout
    assert "Nothing imports upwards BROKEN" in broken.stdout
