"""Damaged official files and data files: read, or refused with a typed error that names the file, within a second."""

from __future__ import annotations

import copy
import json
import random
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import Tally, damaged_bytes, replaced_values

from aipo.benchmarks.official.alpaca_eval_files import read_annotations, read_outputs
from aipo.benchmarks.official.arena_hard_files import read_answers as read_arena_answers
from aipo.benchmarks.official.mt_bench_files import read_answers as read_mt_answers
from aipo.benchmarks.official.scoreboards import arena_hard, mt_bench
from aipo.data.local import LocalFiles, SourceError

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**400, float("nan"), float("inf"), "", "text", "\ud800", "\0", [], {}, [None], [[]],
    {"a": 1}, "[[7]]", {"content": None}, "model_1", "A>B", [1, 2, 3], {"answer": "text"},
)  # fmt: skip


def arena_answer(number: int) -> dict[str, Any]:
    turn = {"content": "some text", "token_len": 3}
    return {"question_id": f"q{number}", "model_id": "m", "choices": [{"index": 0, "turns": [turn]}]}


def arena_answer_2(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": {"answer": "some text"}}]
    return {"uid": f"q{number}", "model": "m", "messages": messages, "metadata": {"token_len": 3}}


def arena_judgment(number: int) -> dict[str, Any]:
    games = [{"judgment": "[[A>B]]", "score": "A>B"}, {"judgment": "[[B>A]]", "score": "B>A"}]
    return {"question_id": f"q{number}", "model": "m", "judge": "j", "games": games}


def mt_answer(number: int) -> dict[str, Any]:
    return {"question_id": number, "model_id": "m", "choices": [{"index": 0, "turns": ["one", "two"]}]}


def mt_single(number: int) -> dict[str, Any]:
    return {"question_id": number, "model": "m", "judge": ["j", "single"], "score": 7, "turn": 1 + number % 2}


def mt_pair(number: int) -> dict[str, Any]:
    row = {"question_id": number, "model_1": "m", "model_2": "n", "judge": ["j", "pair"]}
    return row | {"g1_winner": "model_1", "g2_winner": "tie", "turn": 1}


def annotation(number: int) -> dict[str, Any]:
    row = {"instruction": f"i{number}", "output_1": "a", "output_2": "bb", "generator_1": "n", "generator_2": "m"}
    return row | {"preference": 1.25, "annotator": "j"}


def options(path: Path) -> Namespace:
    return Namespace(
        judgments=[path], answers=[], baseline=None, keep_last=False, published=None, assets=str(path.parent)
    )


READERS: tuple[tuple[str, Callable[[int], dict[str, Any]], Callable[[Path], Any], bool], ...] = (
    ("arena_answers", arena_answer, read_arena_answers, False),
    ("arena_answers_2", arena_answer_2, read_arena_answers, False),
    ("arena_table", arena_judgment, lambda path: arena_hard(options(path)), False),
    ("mt_answers", mt_answer, read_mt_answers, False),
    ("mt_single", mt_single, lambda path: mt_bench(options(path)), False),
    ("mt_pair", mt_pair, lambda path: mt_bench(options(path)), False),
    ("annotations", annotation, read_annotations, True),
    ("model_outputs", lambda n: {"instruction": f"i{n}", "output": "a", "generator": "m"}, read_outputs, True),
)
DATA_ROWS: tuple[dict[str, Any], ...] = (
    {"prompt": "Why?", "responses": ["a", "b"], "scores": [1.0, 2.0], "prompt_id": "p"},
    {
        "prompt": [{"role": "user", "content": "Why?"}],
        "chosen": "a",
        "rejected": "b",
        "score_chosen": 2.0,
        "score_rejected": 1.0,
    },
    {
        "chosen": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "a"}],
        "rejected": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "b"}],
    },
    {"prompt": "Who?", "system": "Be brief."},
)


def encoded(rows: list[Any], listed: bool) -> bytes:
    if listed:
        return json.dumps(rows).encode()
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def damaged(rng: random.Random, rows: list[dict[str, Any]], listed: bool) -> bytes:
    """A row with an odd value in it, a row twice, or other bytes."""
    rows = copy.deepcopy(rows)
    if rng.random() < 0.7:
        for _ in range(rng.choice((1, 1, 2))):
            number = rng.randrange(len(rows))
            if rng.random() < 0.1:
                rows[number] = copy.deepcopy(rng.choice(ODD))
            elif isinstance(rows[number], dict) and rows[number]:
                replaced_values(rng, rows[number], ODD)
        return encoded(rows, listed)
    return damaged_bytes(rng, [encoded(rows, listed)])


def fuzz_official(folder: Path, inputs: int, seed: int) -> Tally:
    rng, tally = random.Random(seed), Tally()
    for number in range(inputs):
        name, make, read, listed = READERS[number % len(READERS)]
        path = folder / (f"{name}.json" if listed else f"{name}.jsonl")
        path.write_bytes(damaged(rng, [make(row) for row in range(3)], listed))
        tally.try_(lambda _, path=path, read=read: named(read, path), path.read_bytes(), (ValueError,))
    return tally


def named(read: Callable[[Path], Any], path: Path) -> None:
    """A refusal names the file, or what of the table could not be made of it."""
    try:
        read(path)
    except ValueError as error:
        assert str(error) and (
            path.name in str(error) or "baseline" in str(error) or "judges" in str(error) or "battles" in str(error)
        ), error
        raise


def fuzz_data(folder: Path, inputs: int, seed: int) -> Tally:
    rng, tally = random.Random(seed), Tally()
    for number in range(inputs):
        kind = ("json", "jsonl", "parquet")[number % 3]
        path = folder / f"pool.{kind}"
        rows = [copy.deepcopy(DATA_ROWS[number % len(DATA_ROWS)]) for _ in range(3)]
        for position, row in enumerate(rows):
            if "prompt_id" in row:
                row["prompt_id"] += str(position)
            if isinstance(row.get("prompt"), str):
                row["prompt"] += str(position)
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
            path.write_bytes(damaged_bytes(rng, [path.read_bytes()]))
        else:
            path.write_bytes(damaged(rng, rows, kind == "json"))

        def load(_: object, path: Path = path) -> None:
            source = LocalFiles(str(path))
            told = source.missing()
            try:
                source.load()
            except SourceError as error:
                assert path.name in str(error) and told
                raise
            assert not told

        tally.try_(load, path.read_bytes(), (SourceError,))
    return tally


def test_official_files_quickly(tmp_path: Path) -> None:
    fuzz_official(tmp_path, 360, seed=0).check()


def test_data_files_quickly(tmp_path: Path) -> None:
    fuzz_data(tmp_path, 300, seed=0).check()


@pytest.mark.slow
def test_ten_thousand_official_files(tmp_path: Path) -> None:
    fuzz_official(tmp_path, 10_000, seed=1).check()


@pytest.mark.slow
def test_ten_thousand_data_files(tmp_path: Path) -> None:
    fuzz_data(tmp_path, 10_000, seed=1).check()
