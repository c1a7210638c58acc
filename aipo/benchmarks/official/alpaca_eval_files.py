"""AlpacaEval's official files (alpaca_eval 0.6.6), in and out: model_outputs, annotations, leaderboard rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aipo.benchmarks.alpaca_eval_assets import AlpacaEvalAssets
from aipo.benchmarks.judging import text_completion
from aipo.benchmarks.official.reading import shown
from aipo.records import Answer, Judgment, Metric, parse_json

LEADERBOARD_COLUMNS = (
    "win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "discrete_win_rate", "mode",
    "avg_length", "length_controlled_winrate", "lc_standard_error",
)  # fmt: skip


@dataclass(frozen=True)
class Annotations:
    """What a score needs of an annotations.json file, per row. `preferences`: P(policy wins); NaN is unscored."""

    policy: str
    baseline: str
    annotator: str
    instructions: tuple[str, ...]
    preferences: tuple[float, ...]
    chars: tuple[int, ...]
    baseline_chars: tuple[int, ...]


def read_outputs(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """(generator, rows {instruction, output, ...}) of a model_outputs.json file."""
    rows = _rows(path, ("instruction", "output"))
    return str(rows[0].get("generator", path.parent.name)), rows


def answers_of(rows: Sequence[Mapping[str, Any]], assets: AlpacaEvalAssets) -> list[Answer]:
    """The answers in a model_outputs.json file, matched to the items by their instruction."""
    outputs = {str(row["instruction"]): str(row["output"]) for row in rows}
    missing = [item["instruction"] for item in assets.items if item["instruction"] not in outputs]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(assets.items)} instructions have no output, first {missing[0][:80]!r}"
        )
    return [
        Answer(str(position), (text_completion(outputs[item["instruction"]]),))
        for position, item in enumerate(assets.items)
    ]


def write_outputs(path: Path, assets: AlpacaEvalAssets, answers: Sequence[Answer], generator: str) -> None:
    """A model_outputs.json file, in the order of the items."""
    by_id = {answer.question_id: answer.turns[0].text for answer in answers}
    rows = [
        {**item, "output": by_id[str(position)], "generator": generator} for position, item in enumerate(assets.items)
    ]
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")


def read_annotations(path: Path) -> Annotations:
    """An annotations.json file of one policy and one annotator; its rows keep their order, which difficulties go by.

    A preference is 1 (the baseline wins) to 2 (the policy wins); 0 and 1.5 are ties, a missing or other one unscored.
    """
    rows = _rows(path, ("instruction", "output_1", "output_2", "preference"))
    names = {}
    for key, missing in (("generator_2", "policy"), ("generator_1", "baseline"), ("annotator", "unknown")):
        found = sorted({str(row.get(key, missing)) for row in rows})
        if len(found) != 1:
            raise ValueError(f"{path}: expected one {key}, got {found}; score them one by one")
        names[key] = found[0]
    return Annotations(
        policy=names["generator_2"],
        baseline=names["generator_1"],
        annotator=names["annotator"],
        instructions=tuple(str(row["instruction"]) for row in rows),
        preferences=tuple(official_preference(row["preference"]) for row in rows),
        chars=tuple(len(row["output_2"]) for row in rows),
        baseline_chars=tuple(len(row["output_1"]) for row in rows),
    )


def official_preference(value: float | None) -> float:
    """An official preference (1..2, or 0 for a tie) as P(policy wins), NaN where there is none."""
    if value is None or math.isnan(value):
        return math.nan
    if value == 0:
        return 0.5
    return value - 1 if 1 <= value <= 2 else math.nan


def write_annotations(
    path: Path,
    assets: AlpacaEvalAssets,
    answers: Sequence[Answer],
    baseline_outputs: Sequence[str],
    judgments: Sequence[Judgment],
    generator: str,
    *,
    baseline: str = "gpt4_1106_preview",
) -> None:
    """An annotations.json file in the order of the items; unscored verdicts have preference null.

    Raises ValueError for judgments in both orders, of which the official file has no room for one.
    """
    by_id = {answer.question_id: answer.turns[0].text for answer in answers}
    verdicts = {judgment.question_id: judgment for judgment in judgments}
    if len(verdicts) != len(judgments):
        raise ValueError(
            f"{path}: expected one judgment for each item, got {len(judgments)} for {len(verdicts)}; a run with "
            "both_orders=true has no official file"
        )
    rows = []
    for position, item in enumerate(assets.items):
        judgment = verdicts[str(position)]
        rows.append(
            {
                "instruction": item["instruction"],
                "output_1": baseline_outputs[position],
                "generator_1": baseline,
                "dataset": item["dataset"],
                "output_2": by_id[str(position)],
                "generator_2": generator,
                "annotator": judgment.judge,
                "preference": None if judgment.value is None else 1 + judgment.value,
                "raw_completion": _raw_completion(judgment),
            }
        )
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")


def leaderboard_row(metrics: Sequence[Metric], mode: str = "community") -> dict[str, Any]:
    """The policy's row of the official leaderboard.csv, keyed by LEADERBOARD_COLUMNS; NaN without length control."""
    by_name = {metric.name: metric for metric in metrics}
    value = {name: metric.value for name, metric in by_name.items()}
    return {
        "win_rate": value["win_rate"],
        "standard_error": value["standard_error"],
        "n_wins": int(value["n_wins"]),
        "n_wins_base": int(value["n_losses"]),
        "n_draws": int(value["n_ties"]),
        "n_total": by_name["win_rate"].n_scored,
        "discrete_win_rate": value["discrete_win_rate"],
        "mode": mode,
        "avg_length": int(value["mean_chars"]),
        "length_controlled_winrate": value.get("lc_win_rate", math.nan),
        "lc_standard_error": value.get("lc_standard_error", math.nan),
    }


def write_leaderboard(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """A leaderboard.csv that alpaca_eval takes as `precomputed_leaderboard`. `rows`: generator -> leaderboard_row."""
    import pandas as pd

    frame = pd.DataFrame.from_dict(dict(rows), orient="index", columns=list(LEADERBOARD_COLUMNS))
    frame.sort_values("length_controlled_winrate", ascending=False).to_csv(path)


def _raw_completion(judgment: Judgment) -> dict[str, Any] | None:
    """The judge's reply the way the OpenAI client returned it to the official code, as far as it was kept."""
    if not judgment.replies:
        return None
    reply = judgment.replies[-1]
    top = [{"token": token, "logprob": logprob} for token, logprob in (reply.top_logprobs or {}).items()]
    return {
        "text": reply.text,
        "message": {"role": "assistant", "content": reply.text},
        "logprobs": {"content": [{"token": reply.text, "top_logprobs": top}]} if top else None,
    }


def _rows(path: Path, fields: Sequence[str]) -> list[dict[str, Any]]:
    try:
        rows = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: expected a JSON array of objects, got {error}") from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path}: expected a JSON array with at least one object")
    for number, row in enumerate(rows):
        if missing := [name for name in fields if not isinstance(row, dict) or name not in row]:
            raise ValueError(f"{path}, entry {number}: missing {missing}")
        for name in fields:
            if name == "preference":
                good = row[name] is None or isinstance(row[name], int | float)
            else:
                good = isinstance(row[name], str)
            if not good:
                raise ValueError(f"{path}, entry {number}: expected {name} of another kind, got {shown(row[name])}")
    return rows
