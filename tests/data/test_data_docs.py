"""docs/data.md says what the code does: its examples are read, its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from composing import composed

from aipo.data.conversations import COLUMNS
from aipo.data.local import LocalFiles
from aipo.data.pairs import REASONS


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "data.md").read_text(encoding="utf-8")


def first_column(page: str, heading: str) -> list[str]:
    """The names in the first column of the table whose header row begins with `heading`."""
    table = page.split(f"\n| {heading} |")[1].split("\n\n")[0]
    return [name for row in table.split("\n")[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]


def test_examples_are_read(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```jsonl\n(.*?)```", page, re.DOTALL)
    for number, block in enumerate(blocks):
        (tmp_path / f"{number}.jsonl").write_text(block, encoding="utf-8")
    source = LocalFiles(str(tmp_path))
    assert source.missing() == []
    examples, dropped = source.load()
    assert len(examples) == 7 and dropped == {"repeated": 0}
    assert [example.ratings for example in examples[3:]] == [(8, 3.5), (9, 2), (1, 0), (1, 0)]


def test_tables_are_complete(page: str, repository: Path) -> None:
    assert first_column(page, "reason") == list(REASONS)
    conf = repository / "conf/data/selection"
    assert set(first_column(page, "selection")) == {path.stem for path in conf.glob("*.yaml")}
    assert set(first_column(page, "column")) == set(COLUMNS)
    assert set(first_column(page, "source")) == {path.stem for path in (repository / "conf/data/source").glob("*.yaml")}
    assert set(first_column(page, "ranker")) == {path.stem for path in (repository / "conf/ranker").glob("*.yaml")}


def test_recipes_are_as_written(page: str, repository: Path) -> None:
    rows = page.split("\n| `data=` |")[1].split("\n\n")[0].split("\n")[2:]
    for row in rows:
        name, *parts = [cell.strip(" `") for cell in row.split("|")[1:5]]
        node = composed("scale=miniature", f"data={name}").data
        assert [node[key] for key in ("prompts", "responses", "ranking")] == parts
    assert len(rows) == len(list((repository / "conf" / "data").glob("*.yaml"))) == 5


def test_the_self_instruct_reasons_are_those_of_the_code(page: str, repository: Path) -> None:
    code = (repository / "aipo/data/self_instruct.py").read_text(encoding="utf-8")
    written = set(re.findall(r'return "(\w+)"', code)) | set(re.findall(r'dropped\["(\w+)"\]', code)) | {"duplicate"}
    section = page.split("## Self-Instruct")[1].split("\n## ")[0].split("counted in the manifest")[1]
    assert set(re.findall(r"`(\w+)`", section)) - {"prompts"} == written
