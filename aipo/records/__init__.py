"""Records: every row that travels between stages, and how it is read and written."""

from __future__ import annotations

from aipo.records.files import (
    from_row,
    parse_json,
    read_jsonl,
    read_parquet,
    to_row,
    write_jsonl,
    write_parquet,
)
from aipo.records.markdown import markdown_header, markdown_row, markdown_table
from aipo.records.rows import (
    Answer,
    Candidates,
    Chat,
    Completion,
    Decoding,
    Example,
    JudgeReply,
    Judgment,
    Message,
    Metric,
    Pair,
    Prompt,
    QuestionScore,
    RankedPrompt,
    ReferenceLogps,
    WinProbabilities,
)

__all__ = [
    "Answer",
    "Candidates",
    "Chat",
    "Completion",
    "Decoding",
    "Example",
    "JudgeReply",
    "Judgment",
    "Message",
    "Metric",
    "Pair",
    "Prompt",
    "QuestionScore",
    "RankedPrompt",
    "ReferenceLogps",
    "WinProbabilities",
    "from_row",
    "markdown_header",
    "markdown_row",
    "markdown_table",
    "parse_json",
    "read_jsonl",
    "read_parquet",
    "to_row",
    "write_jsonl",
    "write_parquet",
]
