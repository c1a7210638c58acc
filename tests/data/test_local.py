"""The user's own files: every layout that is read, and every malformed row by its place."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo.data.conversations import RowError, content_id, example_from_row
from aipo.data.local import LocalFiles, SourceError
from aipo.records import Example, Message, Prompt, to_row

ASK = {"role": "user", "content": "Name a colour."}
RED = {"role": "assistant", "content": "Red."}
MORE = {"role": "user", "content": "Another?"}
BLUE = {"role": "assistant", "content": "Blue."}
TERSE = {"role": "system", "content": "Be terse."}


def write(path: Path, rows: list[Any]) -> LocalFiles:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8")
    return LocalFiles(str(path))


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_a_plain_list_of_prompts(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / f"prompts{suffix}", [{"prompt": "One?"}, {"prompt": "Two, naïvely?"}, {"prompt": "One?"}])
    examples, dropped = source.load()
    assert [example.prompt.chat for example in examples] == [
        (Message("user", "One?"),),
        (Message("user", "Two, naïvely?"),),
    ]
    assert all(example.responses == () and example.ratings == () for example in examples)
    assert len({example.prompt.prompt_id for example in examples}) == 2
    assert dropped == {"repeated": 1}
    assert source.missing() == []


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_messages_responses_and_scores(tmp_path: Path, suffix: str) -> None:
    row = {"prompt_id": "p7", "prompt": [TERSE, ASK, RED, MORE], "responses": ["Blue.", "Red"], "scores": [2.0, None]}
    (example,), _ = write(tmp_path / f"rows{suffix}", [row]).load()
    assert example.prompt == Prompt("p7", tuple(Message(**turn) for turn in row["prompt"]), "pool")
    assert example.responses == ("Blue.", "Red")
    assert example.ratings[0] == 2.0 and math.isnan(example.ratings[1])


CHAT = (Message("user", "Name a colour."),)


@pytest.mark.parametrize(
    ("row", "responses", "ratings"),
    [
        ({"prompt": "Name a colour.", "chosen": "Red.", "rejected": "Blue."}, ("Red.", "Blue."), (1.0, 0.0)),
        ({"prompt": [ASK], "chosen": [ASK, RED], "rejected": [BLUE]}, ("Red.", "Blue."), (1.0, 0.0)),
        ({"chosen": [ASK, RED], "rejected": [ASK, BLUE]}, ("Red.", "Blue."), (1.0, 0.0)),
        (
            {"prompt": [ASK], "chosen": RED, "rejected": "", "score_chosen": 8, "score_rejected": 8.0},
            ("Red.", ""), (8.0, 8.0),
        ),
        ({"prompt": [ASK], "responses": [[RED], BLUE, "x"]}, ("Red.", "Blue.", "x"), ()),
        ({"prompt": [ASK], "responses": None, "chosen": None, "system": None}, (), ()),
    ],
)  # fmt: skip
def test_ways_to_give_responses(row: dict[str, Any], responses: tuple[str, ...], ratings: tuple[float, ...]) -> None:
    assert example_from_row(row) == Example(Prompt(content_id(CHAT), CHAT, "pool"), responses, ratings)


def test_system_column_is_the_first_message() -> None:
    example = example_from_row(
        {"system": "Be terse.", "prompt": "Name a colour.", "chosen": [ASK, RED], "rejected": ""}
    )
    assert example.prompt.chat == (Message("system", "Be terse."), *CHAT)
    assert example.responses == ("Red.", "")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, r"prompt: expected a string or a list of messages, got no such column"),
        ({"prompt": 3}, r"prompt: expected a string or a list of messages, got int 3"),
        ({"prompt": " "}, r"prompt: expected text, got an empty string; remove the row"),
        ({"prompt": []}, r"prompt: expected a list of messages, got list \[\]"),
        ({"prompt": ["hi"]}, r'prompt\[0\]: expected \{"role": ..., "content": ...\}, got str'),
        ({"prompt": [RED]}, r"prompt\[0\].role: expected 'user' .* got 'assistant'"),
        ({"prompt": [ASK, TERSE]}, r"prompt\[1\].role: expected 'assistant' .* got 'system'"),
        ({"prompt": [ASK, RED]}, r"prompt: expected the last message to be the user's"),
        ({"prompt": [{"role": "tool", "content": "x"}]}, r"prompt\[0\].role: expected system, user or assistant"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, r"content: expected a string \(images"),
        (
            {"prompt": [{**ASK, "tool_calls": [1]}]},
            r"prompt\[0\].tool_calls: .* tool calls and names are not supported",
        ),
        ({"prompt": [TERSE, ASK], "system": "x"}, r"system: expected one system prompt"),
        ({"prompt": "x", "system": 1}, r"system: expected a string, got int 1"),
        ({"prompt": "x", "prompt_id": True}, r"prompt_id: expected a string or a whole number, got bool True"),
        ({"prompt": "x", "responses": "y"}, r"responses: expected a list, got str 'y'"),
        ({"prompt": "x", "responses": ["y", 2]}, r"responses\[1\]: expected a string or messages, got int 2"),
        ({"prompt": "x", "responses": ["y"], "scores": [1, 2]}, r"scores: expected a list of 1 numbers, .* got 2"),
        (
            {"prompt": "x", "responses": ["y"], "scores": ["1"]},
            r"scores\[0\]: expected a finite number, .* got str '1'",
        ),
        ({"prompt": "x", "responses": ["y"], "scores": [True]}, r"scores\[0\]: expected a finite number"),
        ({"prompt": "x", "responses": ["y"], "scores": [math.inf]}, r"scores\[0\]: expected a finite number"),
        ({"prompt": "x", "responses": ["y"], "scores": [math.nan]}, r"scores\[0\]: expected a finite number"),
        (
            {"prompt": "x", "chosen": "y", "rejected": "z", "score_chosen": math.nan, "score_rejected": 0},
            r"score_chosen: expected a finite number, or null for not rated, got float nan",
        ),
        ({"prompt": "x", "scores": [1]}, r"scores: expected a list of 0 numbers"),
        ({"prompt": "x", "responses": ["y"], "chosen": "z", "rejected": "y"}, r"expected either responses and scores"),
        ({"prompt": "x", "chosen": "y"}, r"rejected: expected beside chosen, got no such column"),
        ({"prompt": "x", "rejected": "y"}, r"chosen: expected beside rejected, got no such column"),
        ({"prompt": "x", "score_chosen": 1, "score_rejected": 0}, r"expected beside chosen and rejected, got neither"),
        ({"prompt": "x", "chosen": "y", "rejected": "z", "score_chosen": 1}, r"score_rejected: expected beside"),
        (
            {"prompt": "x", "chosen": "y", "rejected": "z", "score_chosen": 1, "score_rejected": 2},
            r"score_chosen: expected at least score_rejected \(2.0\), got 1.0; swap",
        ),
        ({"prompt": "x", "chosen": [RED, MORE, BLUE], "rejected": "z"}, r"chosen: .* answers of several turns are not"),
        ({"chosen": [ASK, RED], "rejected": [MORE, RED]}, r"chosen and rejected do not begin with the same messages"),
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message):
        example_from_row(row)
    source = write(tmp_path / "rows.jsonl", [{"prompt": "fine"}, row])
    with pytest.raises(SourceError, match=r"rows\.jsonl, line 2: .*" + message):
        source.load()
    (line,) = source.missing()
    assert "line 2" in line


def test_every_malformed_row_is_listed_before_a_run(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"prompt": "fine"}\n\n{"prompt": \n[1]\n{"prompt": "x", "reponses": []}\n\xff\n', encoding="latin-1"
    )
    problems = LocalFiles(str(path)).missing()
    assert [problem.split(": ")[0][-6:] for problem in problems] == ["line 3", "line 4", "line 5", "line 6"]
    assert "expected a JSON object" in problems[0] and "expected an object with a prompt, got list" in problems[1]
    assert "reponses: unknown column" in problems[2] and "ignored_columns=[reponses]" in problems[2]
    rows = [{"prompt": ""}] * 30
    assert len(write(tmp_path / "many.json", rows).missing()) == 10


def test_unknown_columns_can_be_ignored(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    write(path, [{"prompt": "x", "topic": "art"}])
    (example,), _ = LocalFiles(str(path), ("topic",)).load()
    assert example.prompt.chat[0].content == "x"
    with pytest.raises(ValueError, match="'prompt' is a column that is read"):
        LocalFiles(str(path), ("prompt",))


def test_a_prompt_id_names_one_prompt(tmp_path: Path) -> None:
    rows = [{"prompt_id": "a", "prompt": "x"}, {"prompt_id": "a", "prompt": "y"}]
    with pytest.raises(SourceError, match=r"row 2: prompt_id: expected a new one, got 'a' as in .*row 1"):
        write(tmp_path / "rows.json", rows).load()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "prompt\nx", r"expected a file that ends with \.json, \.jsonl, \.parquet, got .*rows\.csv"),
        ("rows.json", "{", r"rows\.json: expected JSON in UTF-8"),
        ("rows.json", "{}", r"rows\.json: expected a list of objects, got dict; one per line is \.jsonl"),
        ("rows.parquet", "no", r"rows\.parquet: expected a Parquet file"),
        ("absent", None, r"no such file or folder: .*absent"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    import re

    if content is not None:
        (tmp_path / name).write_text(content)
    source = LocalFiles(str(tmp_path / name))
    with pytest.raises(SourceError, match=message):
        source.load()
    (line,) = source.missing()
    assert re.search(message, line)


def test_a_folder_is_its_files_by_name_and_identity_is_their_content(tmp_path: Path) -> None:
    source = LocalFiles(str(tmp_path))
    assert source.identity() == {} and "got none" in source.missing()[0]
    write(tmp_path / "b.json", [{"prompt": "second"}])
    write(tmp_path / "a.jsonl", [{"prompt": "first"}])
    (tmp_path / "notes.txt").write_text("no rows")
    assert [example.prompt.chat[0].content for example in source.load()[0]] == ["first", "second"]
    before = source.identity()
    assert sorted(before) == ["a.jsonl", "b.json"] and source.identity() == before
    write(tmp_path / "b.json", [{"prompt": "changed"}])
    assert source.identity()["b.json"] != before["b.json"] and source.identity()["a.jsonl"] == before["a.jsonl"]


text = st.text(min_size=1).filter(str.strip)


@given(prompt=text, answers=st.lists(st.text(), max_size=4), system=text | st.none())
def test_what_is_written_is_what_is_read(prompt: str, answers: list[str], system: str | None) -> None:
    chat = (*((Message("system", system),) if system else ()), Message("user", prompt))
    ratings = tuple(float(number) for number in range(len(answers)))
    expected = Example(Prompt(content_id(chat), chat, "pool"), tuple(answers), ratings)
    flat = {"prompt": prompt, "system": system, "responses": answers, "scores": list(ratings)}
    nested = {
        "prompt": to_row(chat),
        "responses": [[*to_row(chat), {"role": "assistant", "content": answer}] for answer in answers],
        "scores": list(ratings),
    }
    assert example_from_row(flat) == example_from_row(nested) == expected
