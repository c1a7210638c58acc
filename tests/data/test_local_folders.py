"""Files and folders of the user's own: what is not read is named, and no file hides the problems of another."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo.data.local import LocalFiles, SourceError
from aipo.records import parse_json


def _prompts(source: LocalFiles) -> list[str]:
    return [example.prompt.chat[0].content for example in source.load()[0]]


def _parquet(path: Path, prompts: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": pa.array(prompts, pa.string())}), path)


def test_the_case_of_a_suffix_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "A.JSONL").write_text('{"prompt": "one"}\n')
    (tmp_path / "b.Json").write_text('[{"prompt": "two"}]')
    _parquet(tmp_path / "c.PARQUET", ["three"])
    assert _prompts(LocalFiles(str(tmp_path))) == ["one", "two", "three"]
    assert _prompts(LocalFiles(str(tmp_path / "A.JSONL"))) == ["one"]
    assert sorted(LocalFiles(str(tmp_path)).identity()) == ["A.JSONL", "b.Json", "c.PARQUET"]


def test_what_is_not_read_is_named_and_counted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "one"}\n')
    (tmp_path / "x.csv").write_text("prompt\ntwo\n")
    (tmp_path / ".hidden").write_text("")
    for folder in ("sub", "z.jsonl"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jsonl").write_text('{"prompt": "three"}\n')
    source = LocalFiles(str(tmp_path))
    with caplog.at_level(logging.WARNING, logger="aipo"):
        assert source.missing() == [] and _prompts(source) == ["one"]
    (record,) = caplog.records
    assert f"of the 4 entries of {tmp_path}, 3 are not read: sub/, x.csv, z.jsonl/; rows are read" in record.message


@pytest.mark.parametrize("name", ["none.jsonl", "blank.jsonl", "list.json", "none.parquet", "folder"])
def test_no_rows_are_said_to_be_none(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
        (path / "a.jsonl").write_text("\n")
        _parquet(path / "b.parquet", [])
    elif name.endswith(".parquet"):
        _parquet(path, [])
    else:
        path.write_text({"none.jsonl": "", "blank.jsonl": "\n  \n", "list.json": "[]"}[name])
    source = LocalFiles(str(path))
    assert source.missing() == [f"data.source.path: no rows in {path}; expected at least one with a prompt"]
    assert source.pool_size() is None, "then no setting is compared with 0 prompts"


def test_an_empty_file_beside_others_is_none(tmp_path: Path) -> None:
    _parquet(tmp_path / "a.parquet", [])
    _parquet(tmp_path / "b.parquet", ["one"])
    assert _prompts(LocalFiles(str(tmp_path))) == ["one"] and LocalFiles(str(tmp_path)).missing() == []


def test_an_unreadable_file_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no")
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.jsonl").write_text('{"prompt": 3}\n')
    (tmp_path / "d.jsonl").write_text('{"prompt": "one"}\n')
    problems = LocalFiles(str(tmp_path)).missing()
    assert [Path(problem.split(": ")[0]).name for problem in problems] == ["a.parquet", "b.json", "c.jsonl, line 1"]
    with pytest.raises(SourceError, match=r"a\.parquet: expected a Parquet file"):
        LocalFiles(str(tmp_path)).load()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_the_right_to_read_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "one"}\n')
    (tmp_path / "a.jsonl").chmod(0)
    source = LocalFiles(str(tmp_path))
    (problem,) = source.missing()
    assert "a.jsonl: expected a file that can be read, got" in problem and source.identity() == {}


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_a_key_that_comes_twice_is_refused(tmp_path: Path, name: str) -> None:
    row = '{"prompt": "one", "prompt": "two"}'
    (tmp_path / name).write_text(f"[{row}]" if name.endswith(".json") else row)
    (problem,) = LocalFiles(str(tmp_path / name)).missing()
    assert "got an object with the key 'prompt' twice; keep one of them" in problem


def test_a_parquet_column_that_comes_twice_is_refused(tmp_path: Path) -> None:
    """The first of them was lost."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table([["one"], ["an id"], ["two"]], names=["prompt", "prompt_id", "prompt"])
    pq.write_table(table, tmp_path / "rows.parquet")
    (problem,) = LocalFiles(str(tmp_path / "rows.parquet")).missing()
    path = tmp_path / "rows.parquet"
    assert problem == f"{path}: expected columns of different names, got 'prompt' twice; keep one of them"


keys = st.lists(st.text(max_size=3), max_size=6)


@given(keys, keys)
def test_keys_are_unique_in_every_object_by_itself(outer: list[str], inner: list[str]) -> None:
    def written(names: list[str], value: str) -> str:
        return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name in names) + "}"

    text = written(outer, written(inner, "1")).encode()
    twice = len(set(outer)) < len(outer) or (bool(outer) and len(set(inner)) < len(inner))
    if twice:
        with pytest.raises(ValueError, match="an object with the key .* twice"):
            parse_json(text, unique_keys=True)
    else:
        assert parse_json(text, unique_keys=True) == json.loads(text)
    assert parse_json(text) == json.loads(text)
