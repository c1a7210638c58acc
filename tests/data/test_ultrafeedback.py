"""UltraFeedback on small folders in the layout of the two published data sets."""

from __future__ import annotations

import builtins
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest

from aipo.data.local import SourceError
from aipo.data.ultrafeedback import UltraFeedback, UltraFeedbackBinarized
from aipo.records import Message

CARD = """---
configs:
- config_name: default
  data_files:
  - split: train_prefs
    path: data/train_prefs-*
  - split: test_prefs
    path: data/test_prefs-*
---
"""
SHA = "0" * 40


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra `data`")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


def binarized_row(number: int, **changes: Any) -> dict[str, Any]:
    prompt = f"question {number}"

    def conversation(answer: str) -> list[dict[str, str]]:
        return [{"content": prompt + " ", "role": "user"}, {"content": answer, "role": "assistant"}]

    row = {
        "prompt": prompt, "prompt_id": f"{number:064x}",
        "chosen": conversation("good"), "rejected": conversation("bad"), "messages": conversation("good"),
        "score_chosen": 8.5, "score_rejected": 7.0,
    }  # fmt: skip
    return row | changes


def write_binarized(folder: Path, rows: list[dict[str, Any]]) -> UltraFeedbackBinarized:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir()
    (folder / "README.md").write_text(CARD)
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / "train_prefs-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:1]), folder / "data" / "test_prefs-00000-of-00001.parquet")
    return UltraFeedbackBinarized(str(folder), None)


def test_binarized(tmp_path: Path) -> None:
    rows = [binarized_row(0), binarized_row(1, score_chosen=6.0, score_rejected=6.0), binarized_row(0)]
    source = write_binarized(tmp_path, rows)
    examples, dropped = source.load()
    assert dropped == {"repeated": 1, "malformed": 0}
    assert [example.prompt.prompt_id for example in examples] == [f"{0:064x}", f"{1:064x}"]
    assert examples[0].prompt.chat == (Message("user", "question 0"),) and examples[0].prompt.source == "pool"
    assert examples[0].responses == ("good", "bad")
    assert [example.ratings for example in examples] == [(8.5, 7.0), (6.0, 6.0)]
    assert len(UltraFeedbackBinarized(str(tmp_path), None, "test_prefs").load()[0]) == 1
    assert source.missing() == [] and len(source.identity()["sha256"]) == 64


def completion(text: str, overall: float | None, fine: float) -> dict[str, Any]:
    return {"response": text, "model": "m", "principle": "p", "overall_score": overall, "fine-grained_score": fine}


def test_full(tmp_path: Path) -> None:
    rows = [
        {"source": "s", "instruction": "one", "models": ["m"] * 4, "completions": [
            completion("a", 9.0, 4.0), completion("b", 2.0, math.nan), completion("c", None, 3.0),
            completion("d", 2.0, 1.0),
        ]},
        {"source": "s", "instruction": "two", "models": [], "completions": []},
    ]  # fmt: skip
    (tmp_path / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (one, two), dropped = UltraFeedback(str(tmp_path), None).load()
    assert one.responses == ("a", "b", "c", "d") and one.ratings[:2] == (9.0, 2.0)
    assert math.isnan(one.ratings[2]) and one.ratings[3] == 2.0
    assert two.responses == two.ratings == () and dropped == {"repeated": 0, "malformed": 0}
    fine = UltraFeedback(str(tmp_path), None, "fine-grained_score").load()[0][0].ratings
    assert fine[0] == 4.0 and math.isnan(fine[1]) and fine[2:] == (3.0, 1.0)
    with pytest.raises(ValueError, match="rating must be overall_score or fine-grained_score"):
        UltraFeedback("x/y", SHA, "helpfulness")


def test_a_few_malformed_rows_are_counted_many_are_another_data_set(tmp_path: Path) -> None:
    good = [binarized_row(number) for number in range(199)]
    few, many = tmp_path / "few", tmp_path / "many"
    few.mkdir(), many.mkdir()
    _, dropped = write_binarized(few, [*good, binarized_row(200, prompt=" ")]).load()
    assert dropped == {"repeated": 0, "malformed": 1}
    with pytest.raises(SourceError, match=r"split train_prefs, row 99: prompt: expected text.*\(2 rows like it\)"):
        write_binarized(many, [*good[:99], *[binarized_row(200, prompt=" ")] * 2]).load()


def test_another_layout_names_the_column(tmp_path: Path) -> None:
    (tmp_path / "part.jsonl").write_text('{"question": "x"}\n')
    with pytest.raises(SourceError, match=r"row 0: no column '(instruction|completions)' \(1 rows like it\)"):
        UltraFeedback(str(tmp_path), None).load()


def test_a_hub_id_needs_its_commit_and_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    (line,) = UltraFeedbackBinarized("a/b", "main").missing()
    assert line == "data.source.revision: expected the 40-digit commit of a/b, got 'main'"
    (line,) = UltraFeedbackBinarized("no folder", None).missing()
    assert "no such folder, and no hub id: no folder" in line
    (line,) = UltraFeedbackBinarized("a/b", SHA).missing()
    assert "not in the local cache" in line and "hf download --repo-type dataset a/b" in line
    (tmp_path / "a___b" / "default" / "0.0.0" / SHA).mkdir(parents=True)
    assert UltraFeedbackBinarized("a/b", SHA).missing() == []
    assert UltraFeedbackBinarized("a/b", SHA).identity() == {}


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find, load = importlib.util.find_spec, builtins.__import__
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "datasets" else find(name, *rest)
    )

    def refuse(name: str, *rest: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    source = UltraFeedback(str(tmp_path), None)
    assert source.missing() == ["package datasets: pip install -c constraints.txt -e '.[data]'"]
    with pytest.raises(SourceError, match=r"needs the package datasets: pip install -e '\.\[data\]'"):
        source.load()
