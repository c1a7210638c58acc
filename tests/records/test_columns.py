"""Records as Arrow columns: the same bytes as pyarrow makes of plain rows, and the same records back."""

import hashlib
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aipo.records import (
    Answer,
    Candidates,
    Completion,
    Decoding,
    Example,
    JudgeReply,
    Judgment,
    Message,
    Metric,
    Pair,
    Prompt,
    RankedPrompt,
    from_row,
    read_parquet,
    to_row,
    write_parquet,
)
from aipo.records.columns import NotColumnarError, table_of

floats = st.floats(allow_nan=False, width=64)
ids = st.lists(st.integers(0, 2**40), max_size=5).map(tuple)
completions = st.builds(Completion, st.text(max_size=5), ids, st.sampled_from(["stop", "length"]), st.none() | floats)
prompts = st.builds(
    Prompt,
    st.text(max_size=3),
    st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), st.text(max_size=3)), max_size=3).map(tuple),
    st.just("pool"),
)
numbers = st.lists(floats | st.integers(-9, 9).map(float), max_size=3).map(tuple)
KINDS = {
    Prompt: prompts,
    Answer: st.builds(Answer, st.text(max_size=3), st.lists(completions, max_size=2).map(tuple)),
    Example: st.builds(Example, prompts, st.lists(st.text(max_size=3), max_size=3).map(tuple), numbers),
    Candidates: st.builds(
        Candidates, prompts, st.lists(completions, max_size=3).map(tuple), st.none() | numbers
    ),
    Pair: st.builds(
        Pair, st.text(max_size=3), st.text(max_size=3), ids, completions, completions, floats, floats,
        st.none() | floats,
    ),
    RankedPrompt: st.builds(RankedPrompt, st.text(max_size=3), numbers),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=60)
@given(data=st.data())
def test_bytes_and_round_trip(kind, data, tmp_path_factory):
    records = data.draw(st.lists(KINDS[kind], max_size=4))
    folder = tmp_path_factory.mktemp("parquet")
    write_parquet(folder / "ours.parquet", records)
    pq.write_table(pa.Table.from_pylist([to_row(record) for record in records]), folder / "plain.parquet")
    ours, plain = ((folder / f"{name}.parquet").read_bytes() for name in ("ours", "plain"))
    assert hashlib.sha256(ours).hexdigest() == hashlib.sha256(plain).hexdigest()
    if records:
        assert read_parquet(folder / "ours.parquet", kind) == records
        assert [from_row(kind, to_row(record)) for record in records] == records


@dataclass(frozen=True)
class Turn:
    """A record with a nested one that may be absent, and that would refuse absent values."""

    decoding: Decoding | None


def test_nested_record_that_is_none(tmp_path):
    rows = [Turn(None), Turn(Decoding(1.0, 1.0, 0, 8)), Turn(None)]
    write_parquet(tmp_path / "rows.parquet", rows)
    assert read_parquet(tmp_path / "rows.parquet", Turn) == rows


def test_kinds_without_columns_are_written_as_plain_rows(tmp_path):
    """A mapping and a pair of fixed length have no column here; both ways of writing give the same rows back."""
    judgment = Judgment("q", 1, "single", 7.0, (JudgeReply("[[7]]", {"a": -0.5}, "judge"),), "judge", "0" * 64)
    metric = Metric("win_rate", 50.0, (40.0, 60.0), 10, 0)
    for record in (judgment, metric):
        with pytest.raises(NotColumnarError):
            table_of([record])
        write_parquet(tmp_path / "rows.parquet", [record])
        assert read_parquet(tmp_path / "rows.parquet", type(record)) == [record]


def test_unknown_and_missing_columns_are_named(tmp_path):
    pq.write_table(pa.table({"question_id": ["q"], "surprise": [1]}), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"Answer: unknown field\(s\) \['surprise'\]"):
        read_parquet(tmp_path / "rows.parquet", Answer)
    pq.write_table(pa.table({"question_id": ["q"]}), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"Answer: missing field\(s\) \['turns'\]"):
        read_parquet(tmp_path / "rows.parquet", Answer)
    pq.write_table(pa.Table.from_pylist([{"question_id": "q", "turns": [{"text": "a"}]}]), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"Completion: missing field\(s\) \['finish', 'token_ids'\]"):
        read_parquet(tmp_path / "rows.parquet", Answer)
