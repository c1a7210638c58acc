"""MT-Bench's official files (FastChat 0.2.36, llm_judge), in and out, and the tables its show_result prints."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aipo.benchmarks.judging import text_completion
from aipo.benchmarks.mt_bench import MTBenchAssets, prompt_name, single_request
from aipo.benchmarks.mt_bench_pairwise import ORDERS, match_outcome, pair_request
from aipo.benchmarks.official.reading import each_row, field, first, name_of, text
from aipo.benchmarks.official.reading import number as a_number
from aipo.records import Answer, Judgment, read_jsonl, write_jsonl

FAILED = -1
"""The score of an unscored verdict in the official file."""


@dataclass(frozen=True)
class Ratings:
    """One policy's means as show_result prints them; None where nothing is scored."""

    policy: str
    turn_1: float | None
    turn_2: float | None
    average: float | None
    """Both turns pooled."""
    n_scored: int
    n_unscored: int


@dataclass(frozen=True)
class Matches:
    """One policy's pairwise record as show_result prints it. Rates are shares in [0, 1]."""

    policy: str
    wins: int
    losses: int
    ties: int

    @property
    def win_rate(self) -> float:
        """Ties are no wins."""
        return self.wins / (self.wins + self.losses + self.ties)

    @property
    def loss_rate(self) -> float:
        """Ties are no losses."""
        return self.losses / (self.wins + self.losses + self.ties)

    @property
    def win_rate_adjusted(self) -> float:
        """Each tie is half a win."""
        return (self.wins + self.ties / 2) / (self.wins + self.losses + self.ties)


def read_answers(path: Path) -> tuple[str, list[Answer]]:
    """(model id, answers) of a model_answer file; where a question stands twice the later line counts."""
    rows = each_row(path, read_jsonl(path), "answer", "MT-Bench", _answer)
    last = {question: turns for question, turns, _ in rows}
    answers = [Answer(question, tuple(text_completion(turn) for turn in turns)) for question, turns in last.items()]
    return rows[0][2], answers


def _answer(row: Mapping[str, Any]) -> tuple[str, list[str], str]:
    turns = field(first(field(row, "choices"), "choices"), "turns")
    first(turns, "choices[0].turns")
    return (
        name_of(field(row, "question_id"), "question_id"),
        [text(turn, "choices[0].turns") for turn in turns],
        name_of(field(row, "model_id"), "model_id"),
    )


def read_judgment_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a <judge>_single.jsonl or <judge>_pair.jsonl file, each with what `ratings` or `matches` reads."""
    rows = read_jsonl(path)
    each_row(path, rows, "judgment", "MT-Bench", _pair if rows and "g1_winner" in rows[0] else _single)
    return rows


def _single(row: Mapping[str, Any]) -> None:
    _judged(row, "model")
    a_number(field(row, "score"), "score")


def _pair(row: Mapping[str, Any]) -> None:
    _judged(row, "model_1", "model_2")
    for winner in ("g1_winner", "g2_winner"):
        text(field(row, winner), winner)


def _judged(row: Mapping[str, Any], *models: str) -> None:
    for name in ("question_id", *models):
        name_of(field(row, name), name)
    text(first(field(row, "judge"), "judge"), "judge[0]")
    if "turn" in row or len(models) == 1:
        a_number(field(row, "turn"), "turn")


def write_answers(path: Path, answers: Sequence[Answer], model: str) -> None:
    """A model_answer file."""
    now = time.time()
    write_jsonl(
        path,
        (
            {
                "question_id": _official_id(answer.question_id),
                "answer_id": f"{model}-{answer.question_id}",
                "model_id": model,
                "choices": [{"index": 0, "turns": [turn.text for turn in answer.turns]}],
                "tstamp": now,
            }
            for answer in answers
        ),
    )


def write_single_judgments(
    path: Path, assets: MTBenchAssets, answers: Sequence[Answer], judgments: Sequence[Judgment], model: str
) -> None:
    """A <judge>_single.jsonl file; an unscored verdict has score -1."""
    questions = {str(question["question_id"]): question for question in assets.questions}
    texts = {answer.question_id: [turn.text for turn in answer.turns] for answer in answers}
    now = time.time()
    rows = []
    for judgment in judgments:
        question = questions[judgment.question_id]
        request = single_request(assets, question, texts[judgment.question_id], judgment.turn)
        rows.append(
            {
                "question_id": _official_id(judgment.question_id),
                "model": model,
                "judge": [judgment.judge, prompt_name(assets, judgment.question_id, judgment.turn, "single")],
                "user_prompt": request.chat[-1].content if request.chat else "",
                "judgment": judgment.replies[-1].text if judgment.replies else "",
                "score": FAILED if judgment.value is None else _plain_number(judgment.value),
                "turn": judgment.turn,
                "tstamp": now,
            }
        )
    write_jsonl(path, rows)


def write_pair_judgments(
    path: Path,
    assets: MTBenchAssets,
    answers: Sequence[Answer],
    baseline: Sequence[Answer],
    judgments: Sequence[Judgment],
    model: str,
    baseline_model: str,
) -> None:
    """A <judge>_pair.jsonl file with the policy as model_1; game 1 shows it as assistant A."""
    questions = {str(question["question_id"]): question for question in assets.questions}
    policy_texts = {answer.question_id: [turn.text for turn in answer.turns] for answer in answers}
    baseline_texts = {answer.question_id: [turn.text for turn in answer.turns] for answer in baseline}
    games = {(judgment.question_id, judgment.turn, judgment.order): judgment for judgment in judgments}
    now = time.time()
    rows = []
    for question_id, turn in dict.fromkeys((judgment.question_id, judgment.turn) for judgment in judgments):
        row: dict[str, Any] = {
            "question_id": _official_id(question_id),
            "model_1": model,
            "model_2": baseline_model,
        }
        prompts = {}
        for number, order in enumerate(ORDERS, start=1):
            judgment = games[question_id, turn, order]
            request = pair_request(
                assets, questions[question_id], policy_texts[question_id], baseline_texts[question_id], turn, order
            )
            row[f"g{number}_winner"] = _winner(judgment.value)
            prompts[f"g{number}_user_prompt"] = request.chat[-1].content if request.chat else ""
            prompts[f"g{number}_judgment"] = judgment.replies[-1].text if judgment.replies else ""
            row["judge"] = [judgment.judge, prompt_name(assets, question_id, turn, "pair")]
        rows.append(row | prompts | {"turn": turn, "tstamp": now})
    write_jsonl(path, rows)


def ratings(rows: Iterable[Mapping[str, Any]], *, keep_last: bool = False) -> list[Ratings]:
    """Mean scores per policy from the rows of a <judge>_single.jsonl file, best average first.

    Repeated lines all count, as officially; `keep_last` keeps the last of each (question, policy, turn), as AIPO's code
    does. -1 is unscored and so, unlike officially, is any other score outside 1..10.
    """
    listed = list(rows)
    if keep_last:
        listed = list({(row["question_id"], row["model"], row["turn"]): row for row in listed}.values())
    table = []
    for policy in dict.fromkeys(str(row["model"]) for row in listed):
        own = [row for row in listed if str(row["model"]) == policy]
        scored = [row for row in own if 1 <= row["score"] <= 10]
        turns = [[row["score"] for row in scored if row["turn"] == turn] for turn in (1, 2)]
        means = [_mean(values) for values in (*turns, [row["score"] for row in scored])]
        table.append(Ratings(policy, means[0], means[1], means[2], len(scored), len(own) - len(scored)))
    return sorted(table, key=lambda row: -(row.average or 0))


def category_ratings(
    rows: Iterable[Mapping[str, Any]], categories: Mapping[str, str], policy: str
) -> dict[str, float | None]:
    """Mean score per category, both turns pooled. `categories`: question id as text -> category."""
    groups: dict[str, list[float]] = {category: [] for category in categories.values()}
    for row in rows:
        if str(row["model"]) == policy and 1 <= row["score"] <= 10:
            groups[categories[str(row["question_id"])]].append(row["score"])
    return {category: _mean(values) for category, values in groups.items()}


def matches(rows: Iterable[Mapping[str, Any]], *, baseline: str | None = None) -> list[Matches]:
    """Wins, losses and ties per policy from the rows of a <judge>_pair.jsonl file, best adjusted win rate first.

    A row with an error in either game is left out; games that disagree are a tie. With `baseline`, only its matches
    count and it is not listed (show_result's pairwise-baseline mode); without, all do (pairwise-all).
    """
    counts: dict[str, list[int]] = {}
    for row in rows:
        sides = (str(row["model_1"]), str(row["model_2"]))
        if "error" in (row["g1_winner"], row["g2_winner"]) or (baseline is not None and baseline not in sides):
            continue
        outcome = match_outcome(_first_side(row["g1_winner"]), _first_side(row["g2_winner"]))
        for policy, own in zip(sides, (outcome, None if outcome is None else 1 - outcome), strict=True):
            tally = counts.setdefault(policy, [0, 0, 0])
            tally[0 if own == 1 else 1 if own == 0 else 2] += 1
    table = [Matches(policy, *tally) for policy, tally in counts.items() if policy != baseline]
    return sorted(table, key=lambda row: -row.win_rate_adjusted)


def _first_side(winner: str) -> float:
    return {"model_1": 1.0, "model_2": 0.0}.get(winner, 0.5)


def _winner(value: float | None) -> str:
    return "error" if value is None else {1.0: "model_1", 0.0: "model_2"}.get(value, "tie")


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _official_id(question_id: str) -> int | str:
    return int(question_id) if question_id.isdigit() else question_id


def _plain_number(value: float) -> int | float:
    return json.loads(f"{value:.10g}")
