"""A sweep whose answers and candidates have texts, hostile ones among them, and as many as a test asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import FakeSweep, empty_sweep

from aipo.records import (
    Answer,
    Candidates,
    Completion,
    JudgeReply,
    Judgment,
    Message,
    Metric,
    Pair,
    Prompt,
    QuestionScore,
    RankedPrompt,
    to_row,
    write_jsonl,
    write_parquet,
)

HOSTILE = (
    "</script></style><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "<!-- \u202eesrever\u202c \u2028 {{ 7*7 }} " + "long " * 10_000
)
"""A little over 50,000 characters."""
VALUES = (0.25, 0.5, None)


def completion(text: str, number: int, finish: str = "stop") -> Completion:
    """A completion whose ids differ by `number`."""
    return Completion(text, (number, *range(len(text.split()))), finish)


def with_texts(root: Path, objectives: tuple[str, ...] = ("dpo", "aipo"), n_questions: int = 3) -> FakeSweep:
    """Jobs of one benchmark, base model and one round each."""
    sweep = empty_sweep(root)
    for objective in objectives:
        points = [_point(sweep, objective, iteration, n_questions) for iteration in (-1, 0)]
        run: dict[str, Any] = {"status": "done", "error": None, "objective": objective, "seed": 0, "official": False}
        run |= {"overrides": [f"objective={objective}"], "model": "miniature", "data": "x", "store": str(sweep.store)}
        run |= {"points": points}
        run["benchmarks"] = {"alpaca_eval": {"primary_metric": "lc_win_rate", "length_metric": "mean_tokens"}}
        sweep.write(run)
    return sweep


def _point(sweep: FakeSweep, objective: str, iteration: int, n_questions: int) -> dict[str, Any]:
    key = (objective if iteration >= 0 else "", iteration)
    texts = [f"answer {number} of {key}" for number in range(n_questions)]
    texts[0] = HOSTILE if iteration >= 0 else texts[0]
    if n_questions > 2:
        texts[2] = "cut shor"
    answers = [
        Answer(str(number), (completion(text, number, "length" if number == 2 else "stop"),))
        for number, text in enumerate(texts)
    ]
    lengths = [answer.turns[0].n_tokens for answer in answers]
    config = {"benchmark": {"assets": {"_target_": "x"}}}
    answered = sweep.artifact(
        "answers",
        (key,),
        lambda folder: write_parquet(folder / "answers.parquet", answers),
        config=config,
        counts={"answers": n_questions},
    )
    values = [VALUES[number % 3] for number in range(n_questions)]
    judgments = [
        Judgment(str(number), 1, "policy_first", value, (JudgeReply("because <b>", None, "gold"),), "gold", "0" * 64)
        for number, value in enumerate(values)
    ]
    judged = sweep.artifact(
        "judgments",
        (key,),
        lambda folder: write_jsonl(folder / "judgments.jsonl", judgments),
        config={"judge": {"name": "gold"}, "identity": {"name": "gold"}, "benchmark": {}},
    )
    metrics = [Metric("lc_win_rate", 50.0 + iteration, (45.0, 55.0), n_questions, 0)]
    metrics.append(Metric("mean_tokens", sum(lengths) / n_questions, None, n_questions, 0))
    questions = [
        QuestionScore(str(number), "lc_win_rate", value, 1.0, float(len(text)), float(length))
        for number, (value, text, length) in enumerate(zip(values, texts, lengths, strict=True))
    ]

    def write_scores(folder: Path) -> None:
        (folder / "metrics.json").write_text(json.dumps(to_row(metrics)))
        write_parquet(folder / "questions.parquet", questions)

    scores = sweep.artifact("scores", (key,), write_scores, parents={"answers": answered, "judgments": judged})
    point: dict[str, Any] = {"iteration": iteration, "policy": repr(key), "scores": {"alpaca_eval": scores}}
    point |= {"pairs": None, "reference": None, "train": None}
    return point if iteration < 0 else point | {"pairs": _pairs(sweep, key), "train": _train(sweep, key)}


def _pairs(sweep: FakeSweep, key: tuple[str, int]) -> str:
    sides = (completion("The judge keeps a goat.", 1), completion("The judge keeps a rabbit.", 2))
    prompts = [
        Candidates(Prompt(f"p{number}", (Message("user", f"Ask {HOSTILE[:60]}"),), "pool"), sides) for number in (0, 1)
    ]
    ranking = [RankedPrompt("p0", (0.1, 0.9)), RankedPrompt("p1", (0.5, 0.5))]
    pair = Pair("p0/1-0", "p0", (1, 2), sides[1], sides[0], 0.9, 0.1)
    candidates = sweep.artifact(
        "candidates",
        key,
        lambda folder: write_parquet(folder / "candidates.parquet", prompts),
        counts={"completions": 4},
    )
    ranked = sweep.artifact("ranking", key, lambda folder: write_parquet(folder / "ranking.parquet", ranking))
    return sweep.artifact(
        "pairs",
        key,
        lambda folder: write_parquet(folder / "pairs.parquet", [pair]),
        parents={"candidates": candidates, "ranking": ranked},
        counts={"pairs": 1, "chosen_tokens": 5.0, "rejected_tokens": 5.0},
    )


def _train(sweep: FakeSweep, key: tuple[str, int]) -> str:
    rows = [{"step": step, "loss": 0.7 - 0.1 * step, "reward_margin": 0.1 * step} for step in (1, 2)]
    return sweep.artifact("train", key, lambda folder: write_jsonl(folder / "metrics.jsonl", rows))
