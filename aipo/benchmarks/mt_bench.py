"""MT-Bench: 80 two-turn questions in eight categories, each turn rated 1-10 by a judge.

Protocol: FastChat 0.2.36 (lm-sys/FastChat at 0e6d3e4b), llm_judge/; Zheng et al., arXiv 2306.05685. Departures: a
rating outside 1..10 is unscored, and every verdict counts once (the official file counts repeated lines).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from aipo.benchmarks.judging import (
    AssetBacked,
    Assets,
    Order,
    Request,
    by_question,
    by_request,
    length_metrics,
    question_scores,
    refuse_unscored,
    require_assets,
    require_length_metric,
    require_share,
)
from aipo.benchmarks.verdicts import parse_rating
from aipo.components import require_range
from aipo.judges.judge import Judge
from aipo.records import Answer, Completion, Decoding, Judgment, Message, Metric, QuestionScore
from aipo.samplers.sampler import Sampler

TEMPERATURES: Mapping[str, float] = {
    "writing": 0.7,
    "roleplay": 0.7,
    "stem": 0.1,
    "humanities": 0.1,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
}
"""Sampling temperature per category (llm_judge/common.py, temperature_config)."""


@dataclass(frozen=True)
class MTBenchAssets:
    """What MT-Bench reads.

    `questions`: rows of the official question.jsonl: {question_id, category, turns: [str, str]}.
    `judge_prompts`: rows of the official judge_prompts.jsonl by their `name`: {system_prompt, prompt_template, ...}.
    `references`: question id (as text) -> reference answers of both turns, for the questions judged against one.
    """

    questions: tuple[Mapping[str, Any], ...]
    judge_prompts: Mapping[str, Mapping[str, Any]]
    references: Mapping[str, tuple[str, str]]

    def first(self, n: int) -> MTBenchAssets:
        """The first `n` questions alone."""
        return replace(self, questions=self.questions[:n])


def question_ids(assets: MTBenchAssets) -> list[str]:
    """The ids as text, in the order of the questions."""
    return [str(question["question_id"]) for question in assets.questions]


def prompt_name(assets: MTBenchAssets, question_id: str, turn: int, kind: str) -> str:
    """Which judge prompt a question's turn gets; `kind` is "single" or "pair"."""
    based = question_id in assets.references
    general = "single-v1" if kind == "single" else "pair-v2"
    return (f"{kind}-math-v1" if based else general) + ("-multi-turn" if turn == 2 else "")


def reference_fields(assets: MTBenchAssets, question_id: str, turn: int) -> dict[str, str]:
    """The template fields that hold the reference answers, none for questions without one."""
    references = assets.references.get(question_id)
    if references is None:
        return {}
    return {f"ref_answer_{number + 1}": references[number] for number in range(turn)}


def single_request(assets: MTBenchAssets, question: Mapping[str, Any], turns: Sequence[str], turn: int) -> Request:
    """The request that rates one turn (1 or 2) of an answer (run_judge_single)."""
    question_id = str(question["question_id"])
    prompt = assets.judge_prompts[prompt_name(assets, question_id, turn, "single")]
    if turn == 1:
        fields = {"question": question["turns"][0], "answer": turns[0]}
    else:
        fields = {f"question_{n + 1}": question["turns"][n] for n in range(2)}
        fields |= {f"answer_{n + 1}": turns[n] for n in range(2)}
    user = prompt["prompt_template"].format(**fields, **reference_fields(assets, question_id, turn))
    return Request(question_id, turn, "single", (Message("system", prompt["system_prompt"]), Message("user", user)))


@dataclass(frozen=True)
class MTBench(AssetBacked):
    """Single-answer grading. `assets.load()` gives MTBenchAssets.

    Metrics: `rating` (all turns pooled, the official "average"), `rating_turn_1`, `rating_turn_2`,
    `rating_<category>` (both turns), `mean_chars` and `mean_tokens` (per turn), `truncated_share` (percent).
    """

    assets: Assets[MTBenchAssets]
    name: str = "mt_bench"
    length_metric: str = "mean_chars"
    temperatures: Mapping[str, float] = field(default_factory=lambda: dict(TEMPERATURES))
    """Per category."""
    default_temperature: float = 0.7
    """For other categories, as officially."""
    top_p: float = 1.0
    top_k: int = 50
    """transformers' default at the time, which FastChat never overrides; AIPO sets it for its vLLM runs as well."""
    max_new_tokens: int = 1024
    judge_max_tokens: int = 2048
    judge_temperature: float = 0.0
    max_unscored_share: float = 0.05
    bootstrap_rounds: int = 1000
    limit: int | None = None

    JUDGING: ClassVar[tuple[str, ...]] = ("judge_max_tokens", "judge_temperature", "assets.references")
    SCORING: ClassVar[tuple[str, ...]] = ("name", "length_metric", "max_unscored_share", "bootstrap_rounds")

    primary_metric = "rating"
    needs_baseline = False
    uses_judge = True

    def __post_init__(self) -> None:
        require_assets(self.name, self.assets, MTBenchAssets)
        require_length_metric(self.name, self.length_metric)
        require_share(f"{self.name}.max_unscored_share", self.max_unscored_share)
        require_range(self.name, self, bootstrap_rounds=(1, 10**5), judge_max_tokens=(1, 10**6))
        require_range(self.name, self, judge_temperature=(0, 100), limit=(1, 10**6))
        for temperature in (*self.temperatures.values(), self.default_temperature):
            self._decoding(temperature)

    @property
    def decodings(self) -> tuple[Decoding, ...]:
        """One per temperature."""
        return tuple(self._decoding(value) for value in {*self.temperatures.values(), self.default_temperature})

    @property
    def n_answers(self) -> int:
        """Both turns of every question."""
        return 2 * self.n_questions

    @property
    def n_judge_requests(self) -> int:
        """A rating for each."""
        return 2 * self.n_questions

    def user_turns(self) -> dict[str, tuple[str, ...]]:
        """Two per question."""
        return {str(row["question_id"]): tuple(row["turns"]) for row in self.loaded().questions}

    def answer(self, sampler: Sampler, *, seed: int) -> list[Answer]:
        """Both turns of every question; one batch per turn and temperature."""
        return two_turn_answers(
            self.loaded(),
            sampler,
            {category: self._decoding(value) for category, value in self.temperatures.items()},
            self._decoding(self.default_temperature),
            seed=seed,
        )

    def judge(
        self, answers: Sequence[Answer], judge: Judge, *, baseline: Sequence[Answer] | None = None
    ) -> list[Judgment]:
        """Two ratings per question, all asked in one batch."""
        assets = self.loaded()
        ordered = by_question(answers, question_ids(assets), "policy", n_turns=2)
        requests = [
            single_request(assets, question, [completion.text for completion in answer.turns], turn)
            for question, answer in zip(assets.questions, ordered, strict=True)
            for turn in (1, 2)
        ]
        replies = judge.reply(
            [request.chat for request in requests if request.chat is not None],
            max_tokens=self.judge_max_tokens,
            temperature=self.judge_temperature,
        )
        return [
            request.judgment(parse_rating(reply.text), [reply], judge.name)
            for request, reply in zip(requests, replies, strict=True)
        ]

    def score(
        self, answers: Sequence[Answer], judgments: Sequence[Judgment], *, baseline: Sequence[Answer] | None = None
    ) -> list[Metric]:
        """Mean ratings; intervals resample questions, so that both turns of one stay together."""
        assets = self.loaded()
        ids = question_ids(assets)
        expected: list[tuple[str, int, Order]] = [(question, turn, "single") for question in ids for turn in (1, 2)]
        ordered = by_request(judgments, expected, self.name)
        refuse_unscored(ordered, self.max_unscored_share, self.name)
        categories = {str(question["question_id"]): question["category"] for question in assets.questions}
        metrics = [
            self._mean("rating", ordered),
            self._mean("rating_turn_1", [judgment for judgment in ordered if judgment.turn == 1]),
            self._mean("rating_turn_2", [judgment for judgment in ordered if judgment.turn == 2]),
        ]
        for category in dict.fromkeys(categories.values()):
            rows = [judgment for judgment in ordered if categories[judgment.question_id] == category]
            metrics.append(self._mean(f"rating_{category}", rows))
        turns = [turn for answer in by_question(answers, ids, "policy", n_turns=2) for turn in answer.turns]
        return metrics + length_metrics(turns)

    def question_scores(self, answers: Sequence[Answer], judgments: Sequence[Judgment]) -> list[QuestionScore]:
        """The mean rating of a question's scored turns, weighted by how many they are: their mean is `rating`."""
        return question_scores("rating", answers, judgments, lambda value: (value, 1.0))

    def _decoding(self, temperature: float) -> Decoding:
        return Decoding(temperature, self.top_p, self.top_k, self.max_new_tokens)

    def _mean(self, name: str, judgments: Sequence[Judgment]) -> Metric:
        from aipo.stats import bootstrap_mean_interval

        scored = [(judgment.question_id, judgment.value) for judgment in judgments if judgment.value is not None]
        if not scored:
            return Metric(name, float("nan"), None, 0, len(judgments))
        groups: dict[str, list[float]] = {}
        for question, value in scored:
            groups.setdefault(question, []).append(value)
        interval = bootstrap_mean_interval(
            [sum(group) / len(group) for group in groups.values()],
            weights=[len(group) for group in groups.values()],
            rounds=self.bootstrap_rounds,
        )
        mean = sum(value for _, value in scored) / len(scored)
        return Metric(name, mean, interval, len(scored), len(judgments) - len(scored))


def two_turn_answers(
    assets: MTBenchAssets, sampler: Sampler, decodings: Mapping[str, Decoding], default: Decoding, *, seed: int
) -> list[Answer]:
    """Answer both turns of every question, the second with the first answer in its chat.

    `decodings` is by category. Questions with the same decoding share a batch; each batch has a seed of its own.
    """
    chats: list[tuple[Message, ...]] = [() for _ in assets.questions]
    turns: list[tuple[Completion, ...]] = [() for _ in assets.questions]
    batches: dict[Decoding, list[int]] = {}
    for position, question in enumerate(assets.questions):
        batches.setdefault(decodings.get(question["category"], default), []).append(position)
    for turn in range(2):
        for decoding, positions in batches.items():
            for position in positions:
                chats[position] += (Message("user", assets.questions[position]["turns"][turn]),)
            batch_seed = random.Random(f"{seed}/{turn}/{decoding.temperature}").getrandbits(31)
            found = sampler.sample([chats[position] for position in positions], decoding, n=1, seed=batch_seed)
            for position, (completion,) in zip(positions, found, strict=True):
                chats[position] += (Message("assistant", completion.text),)
                turns[position] += (completion,)
    return [Answer(question, pair) for question, pair in zip(question_ids(assets), turns, strict=True)]
