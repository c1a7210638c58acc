"""Arena-Hard's official files (lm-sys/arena-hard-auto at efc012e), in and out, and the table its show_result prints."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aipo.benchmarks.arena_hard import (
    ORDERS,
    STRONG_WEIGHT,
    ArenaHardAssets,
    game_request,
    game_text,
    game_value,
    policy_battles,
)
from aipo.benchmarks.judging import text_completion
from aipo.benchmarks.official.reading import FileError, each_row, field, first, name_of, number, shown, text
from aipo.benchmarks.verdicts import parse_game
from aipo.records import Answer, JudgeReply, Judgment, read_jsonl, write_jsonl


@dataclass(frozen=True)
class Standing:
    """One policy in the official table. Win rates in percent; `interval` is the official pooled one."""

    policy: str
    rating: float
    rating_interval: tuple[float, float]
    win_rate: float
    interval: tuple[float, float]
    n_battles: int
    """With strong verdicts counted as often as they weigh; of the baseline: all."""


def read_answers(path: Path) -> tuple[str, list[Answer], float | None]:
    """(model id, answers, mean `token_len` where the file has it) of a model_answer file."""
    rows = each_row(path, read_jsonl(path), "answer", "Arena-Hard", _answer)
    last = {question: (text, tokens) for question, text, tokens, _ in rows}
    answers = [Answer(question, (text_completion(text),)) for question, (text, _) in last.items()]
    known = [tokens for _, tokens in last.values() if tokens is not None]
    mean = sum(known) / len(known) if len(known) == len(last) else None
    return rows[0][3], answers, mean


def _answer(row: Mapping[str, Any]) -> tuple[str, str, float | None, str]:
    """(question, text, token_len, model) of a line, as v0.1 has it (question_id, choices) or as later versions do (uid,
    messages)."""
    question = name_of(field(row, "question_id", "uid"), "question_id")
    model = name_of(field(row, "model_id", "model"), "model_id")
    if "choices" in row:
        turn = first(field(first(row["choices"], "choices"), "turns"), "turns")
        content, place = field(turn, "content"), turn
    else:
        messages = field(row, "choices", "messages")
        first(messages, "messages")
        content, place = field(messages[-1], "content"), {}
    if isinstance(content, Mapping):
        content = field(content, "answer")
    count = place.get("token_len")
    for holder in ("conv_metadata", "metadata"):
        if count is None and isinstance(row.get(holder), Mapping):
            count = row[holder].get("token_len")
    return question, text(content, "the answer"), None if count is None else number(count, "token_len"), model


def write_answers(path: Path, answers: Sequence[Answer], model: str, token_counts: Sequence[int] | None = None) -> None:
    """A model_answer file. `token_counts`: cl100k tokens per answer; without them `token_len` is left out."""
    now = time.time()
    rows = []
    for position, answer in enumerate(answers):
        row: dict[str, Any] = {
            "question_id": answer.question_id,
            "answer_id": f"{model}-{answer.question_id}",
            "model_id": model,
            "choices": [{"index": 0, "turns": [{"content": answer.turns[0].text}]}],
            "tstamp": now,
        }
        if token_counts is not None:
            row["choices"][0]["turns"][0]["token_len"] = token_counts[position]
            row["conv_metadata"] = {"token_len": token_counts[position]}
        rows.append(row)
    write_jsonl(path, rows)


def read_judgments(path: Path) -> tuple[str, list[Judgment]]:
    """(model, two judgments per question) of a model_judgment file, its own `score` taken as it stands."""
    rows = each_row(path, read_jsonl(path), "judgment", "Arena-Hard", _games)
    judgments = [judgment for _, games in rows for judgment in games]
    models = {model for model, _ in rows}
    if len(models) != 1:
        raise ValueError(f"{path}: expected the judgments of one model, got {sorted(models)}")
    return models.pop(), judgments


def _games(row: Mapping[str, Any]) -> tuple[str, list[Judgment]]:
    question = name_of(field(row, "question_id", "uid"), "question_id")
    model, judge, games = (field(row, name) for name in ("model", "judge", "games"))
    if not isinstance(games, list) or len(games) != len(ORDERS):
        raise FileError(f"expected two games for question {question}, got {shown(games)}")
    judgments = []
    for order, game in zip(ORDERS, games, strict=True):
        said, score = field(game, "judgment"), field(game, "score")
        said = text(field(said, "answer") if isinstance(said, Mapping) else said, "judgment")
        value = None if score is None else game_value(text(score, "score"), order)
        judgments.append(Judgment(question, 1, order, value, (JudgeReply(said),), name_of(judge, "judge"), ""))
    return name_of(model, "model"), judgments


def write_judgments(
    path: Path,
    assets: ArenaHardAssets,
    answers: Sequence[Answer],
    baseline: Mapping[str, str],
    judgments: Sequence[Judgment],
    model: str,
) -> None:
    """A model_judgment file. `baseline`: question id -> the baseline's answer."""
    outputs = {answer.question_id: answer.turns[0].text for answer in answers}
    games = {(judgment.question_id, judgment.order): judgment for judgment in judgments}
    rows = []
    for question in assets.questions:
        question_id = str(question["question_id"])
        listed = []
        for order in ORDERS:
            judgment = games[question_id, order]
            request = game_request(assets, question, outputs[question_id], baseline[question_id], order)
            text = game_text(judgment.replies)
            listed.append(
                {
                    "user_prompt": request.chat[-1].content if request.chat else "",
                    "judgment": text,
                    "score": parse_game(text)[0],
                }
            )
        judge = games[question_id, ORDERS[0]].judge
        rows.append({"question_id": question_id, "model": model, "judge": judge, "games": listed})
    write_jsonl(path, rows)


def standings(
    judgments: Mapping[str, Sequence[Judgment]],
    *,
    baseline: str = "gpt-4-0314",
    strong_weight: int = STRONG_WEIGHT,
    first_game_only: bool = False,
    rounds: int = 100,
    seed: int = 42,
) -> list[Standing]:
    """The official table over all policies together, best first. `judgments`: policy -> its judgments.

    The order of the policies decides the draws of the bootstrap; sorted file names give the reproducible order.
    """
    from aipo.stats import bradley_terry, pooled_bootstrap, win_rate_against

    battles = []
    for policy, rows in judgments.items():
        kept = [row for row in rows if row.order == ORDERS[0]] if first_game_only else rows
        battles += policy_battles(kept, policy, baseline, strong_weight)
    ratings = bradley_terry(battles, baseline=baseline)
    intervals = pooled_bootstrap(battles, baseline=baseline, rounds=rounds, seed=seed)
    rates = win_rate_against(ratings, baseline)
    bounds = [
        win_rate_against({name: interval[side] for name, interval in intervals.items()}, baseline) for side in (0, 1)
    ]
    table = [
        Standing(
            policy=name,
            rating=rating,
            rating_interval=intervals[name],
            win_rate=rates[name],
            interval=(bounds[0][name], bounds[1][name]),
            n_battles=sum(name in battle[:2] for battle in battles),
        )
        for name, rating in ratings.items()
    ]
    return sorted(table, key=lambda row: -row.rating)
