"""Every row that travels between stages, and how it is read and written.

Rows are frozen dataclasses. `to_row` turns one into plain values (nested dataclasses become dicts, tuples lists),
`from_row` is its inverse. Parquet holds rows that a stage writes at once, JSONL what is appended to. No torch here.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from aipo.columns import PLAIN, NotColumnarError, field_types, records_of, require_fields, table_of, without_none

Row = TypeVar("Row")

_PLAIN = frozenset(PLAIN)


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


Chat = tuple[Message, ...]


@dataclass(frozen=True)
class Decoding:
    """How tokens are drawn. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 switch the filters off."""

    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("temperature", self.temperature == 0 or 1e-3 <= self.temperature <= 100, "0, or from 0.001 to 100"),
            ("top_p", 0 < self.top_p <= 1, "in (0, 1]"),
            ("top_k", self.top_k >= 0, "at least 0 (0 = off)"),
            ("max_new_tokens", 1 <= self.max_new_tokens <= 10**6, "from 1 to 1000000"),
        ):
            if not good:
                raise ValueError(f"Decoding.{name} must be {expected}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Completion:
    """What a policy returned for one prompt.

    `token_ids` are the ids exactly as sampled, and exactly what training sees: with the end-of-turn token at the end
    iff `finish == "stop"`, without it when the completion was cut at the token limit. `text` is decoded without it.
    `logp` is the sampler's own summed log-prob in nats at temperature 1 without filters, where it returns an exact one.
    """

    text: str
    token_ids: tuple[int, ...]
    finish: Literal["stop", "length"]
    logp: float | None = None

    @property
    def n_tokens(self) -> int:
        """Policy tokens of the visible text: the end-of-turn token is not counted."""
        return len(self.token_ids) - (self.finish == "stop")


@dataclass(frozen=True)
class Prompt:
    """A chat that waits for a completion. `source` says where it came from: pool, self_instruct, ..."""

    prompt_id: str
    chat: Chat
    source: str


@dataclass(frozen=True)
class Example:
    """A pool prompt with the responses its data set brings (may be empty), and the data set's own rating of each."""

    prompt: Prompt
    responses: tuple[str, ...] = ()
    ratings: tuple[float, ...] = ()


@dataclass(frozen=True)
class Candidates:
    """All completions of one prompt and, once ranked, the ranker's score of each (larger is better)."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    scores: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Pair:
    """A preference pair, as ids. `win_probability` is the ranker's P(chosen beats rejected), where it gives one.

    A win share is the mean probability that a side beats a candidate of its prompt, itself among them at 1/2; None
    where no objective asked for it.
    """

    pair_id: str
    prompt_id: str
    prompt_token_ids: tuple[int, ...]
    chosen: Completion
    rejected: Completion
    chosen_score: float
    rejected_score: float
    win_probability: float | None = None
    chosen_win_share: float | None = None
    rejected_win_share: float | None = None


@dataclass(frozen=True)
class Answer:
    """A policy's answer to a benchmark question, one completion per turn."""

    question_id: str
    turns: tuple[Completion, ...]


@dataclass(frozen=True)
class JudgeReply:
    """A judge's raw reply. `top_logprobs`: token -> nats of the first reply token, where asked for.

    A reply that cannot be read has no text and no log-probs, and `error` says why; no verdict can be read from it.
    """

    text: str
    top_logprobs: Mapping[str, float] | None = None
    model: str | None = None
    """The model the endpoint says it used."""
    error: str | None = None


@dataclass(frozen=True)
class Judgment:
    """One verdict. `value`: rating 1-10, or preference for the policy in [0, 1] (tie 0.5); None: unscored."""

    question_id: str
    turn: int
    order: Literal["single", "baseline_first", "policy_first"]
    value: float | None
    replies: tuple[JudgeReply, ...]
    """Every reply this verdict rests on, in order: empty where none was needed, two where a retry turn was asked."""
    judge: str
    prompt_sha256: str


@dataclass(frozen=True)
class Metric:
    """One number of a benchmark. Win rates are percent, 0-100. `ci95` is a 95 % interval where one is defined."""

    name: str
    value: float
    ci95: tuple[float, float] | None
    n_scored: int
    n_unscored: int


@dataclass(frozen=True)
class QuestionScore:
    """What one question contributes to a metric that is a weighted mean over questions."""

    question_id: str
    metric: str
    """The metric's name; sum(weight * value) / sum(weight) over the scored questions is its value."""
    value: float | None
    """None: unscored."""
    weight: float
    n_chars: float
    """Mean over the turns of the answer, and so is `n_tokens`."""
    n_tokens: float


def to_row(record: Any) -> Any:
    """A dataclass as plain values, recursively; other values are returned as they are."""
    if dataclasses.is_dataclass(record):
        return {name: to_row(getattr(record, name)) for name in field_types(type(record))}
    if isinstance(record, tuple | list):
        # Token ids: nothing to look into.
        return list(record) if _PLAIN.issuperset(map(type, record)) else [to_row(item) for item in record]
    if isinstance(record, Mapping):
        return {key: to_row(value) for key, value in record.items()}
    return record


def _restore(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    kind = without_none(kind)
    origin = typing.get_origin(kind)
    if origin is tuple:
        arguments = typing.get_args(kind)
        if arguments[-1] is not Ellipsis:
            return tuple(_restore(part, item) for part, item in zip(arguments, value, strict=True))
        return tuple(value) if arguments[0] in _PLAIN else tuple(_restore(arguments[0], item) for item in value)
    if origin is not None and issubclass(origin if isinstance(origin, type) else object, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(kind):
        return from_row(kind, value)
    return value


def from_row(kind: type[Row], row: Mapping[str, Any]) -> Row:
    """The record of type `kind` that `to_row` turned into `row`. Missing or unknown fields raise ValueError."""
    require_fields(kind, row)
    hints = field_types(kind)
    return kind(**{name: _restore(hints[name], value) for name, value in row.items()})


def write_parquet(path: Path, records: Iterable[Any]) -> None:
    """Write records (dataclasses or dicts) as one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(records)
    try:
        table = table_of(rows)
    except NotColumnarError:
        table = pa.Table.from_pylist([to_row(row) for row in rows])
    pq.write_table(table, path)


def read_parquet(path: Path, kind: type[Row]) -> list[Row]:
    """Read back what `write_parquet` wrote from records of type `kind`."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    try:
        return records_of(table, kind)
    except NotColumnarError:
        return [from_row(kind, row) for row in table.to_pylist()]


def write_jsonl(path: Path, records: Iterable[Any]) -> None:
    """Write records (dataclasses or dicts), one JSON object per line."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(to_row(record), ensure_ascii=False) + "\n")


def parse_json(data: bytes) -> Any:
    """The JSON value in UTF-8 bytes, a byte order mark aside. ValueError, in words, for everything that a row cannot
    hold: other encodings, nesting without end, numbers beyond a float, halves of surrogate pairs."""
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_int=_parse_int)
    except RecursionError:
        raise ValueError("values nested too deeply") from None
    if b"\\u" in data:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair (\\ud800 to \\udfff), which is no character") from None
    return value


def _parse_int(digits: str) -> int:
    if len(digits) > 300:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file. A malformed line raises ValueError that names the file and the line number."""
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: expected one JSON object per line, got {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: expected a JSON object, got {type(row).__name__}")
            rows.append(row)
    return rows


@dataclass(frozen=True)
class ReferenceLogps:
    """A pair's log-probs under the reference policy, in nats, summed over completion tokens."""

    pair_id: str
    chosen: float
    rejected: float
    chosen_prefix: float
    """Over the first min(chosen, rejected) tokens only; so is `rejected_prefix`."""
    rejected_prefix: float


@dataclass(frozen=True)
class RankedPrompt:
    """A ranking row: the ranker's score of each candidate."""

    prompt_id: str
    scores: tuple[float, ...]
