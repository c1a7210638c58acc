"""IFEval (arXiv 2311.07911) and IFBench (arXiv 2507.02833): instructions whose answers code can check. No judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from aipo.benchmarks.instruction_checks import CHECKERS, Instructed, Verdicts, missing_checkers, verdicts
from aipo.benchmarks.judging import (
    AssetBacked,
    AssetIdentity,
    Assets,
    by_question,
    length_metrics,
    question_score,
    require_assets,
)
from aipo.components import require_range
from aipo.judges.judge import Judge
from aipo.records import Answer, Decoding, Judgment, Message, Metric, Prompt, QuestionScore
from aipo.samplers.sampler import Sampler

VERSION = "if-verifiable 0.1.2"
"""Whose checkers give the verdicts; counts changes of them. It enters the fingerprint of scores."""


@dataclass(frozen=True)
class InstructionFollowing(AssetBacked):
    """Each question answered once, each of its instructions checked by the benchmark's own code.

    Metrics, in percent: `prompt_strict` (answers that follow every instruction), `prompt_loose` (the same for the best
    of eight versions of the text, see `instruction_checks`), `instruction_strict`, `instruction_loose` (instructions
    followed); and `mean_chars`, `mean_tokens` (policy tokens), `truncated_share`. Intervals resample questions.
    """

    assets: Assets[tuple[Instructed, ...]]
    """The questions, in the order of their file."""
    name: str
    checkers: str
    """`ifeval` or `ifbench`: whose checkers."""
    decoding: Decoding = field(default_factory=lambda: Decoding(0.0, 1.0, 0, 1280))
    bootstrap_rounds: int = 1000
    limit: int | None = None

    SCORING: ClassVar[tuple[str, ...]] = ("name", "checkers", "bootstrap_rounds")
    JUDGING: ClassVar[tuple[str, ...]] = ()

    primary_metric = "prompt_strict"
    length_metric = "mean_tokens"
    needs_baseline = False
    uses_judge = False
    brings_constraints = False  # its instructions are not those of `aipo.constraints`
    max_unscored_share = 0.0

    def __post_init__(self) -> None:
        require_assets(self.name, self.assets, tuple)
        if self.checkers not in CHECKERS:
            raise ValueError(f"{self.name}.checkers must be one of {', '.join(CHECKERS)}, got {self.checkers!r}")
        require_range(self.name, self, bootstrap_rounds=(1, 10**5), limit=(1, 10**6))

    def missing(self) -> list[str]:
        """The questions, the checkers' package and the data they read."""
        return [*super().missing(), *missing_checkers(self.checkers)]

    def asset_identity(self) -> AssetIdentity:
        """The questions' file shapes answers, the checkers shape scores."""
        return AssetIdentity(self.assets.identity().answering, {}, {"checkers": VERSION})

    def loaded(self) -> tuple[Instructed, ...]:
        """The questions, or the first of them."""
        return self.assets.load()[: self.limit]

    @property
    def decodings(self) -> tuple[Decoding, ...]:
        """One, of the settings."""
        return (self.decoding,)

    @property
    def n_answers(self) -> int:
        """One per question."""
        return self.n_questions

    @property
    def n_judge_requests(self) -> int:
        """None: code checks."""
        return 0

    def user_turns(self) -> dict[str, tuple[str, ...]]:
        """One per question."""
        return {question.question_id: (question.prompt,) for question in self.loaded()}

    def prompts(self) -> list[Prompt]:
        """The questions, for the ranker."""
        asked = self.loaded()
        return [Prompt(question.question_id, (Message("user", question.prompt),), "benchmark") for question in asked]

    def answer(self, sampler: Sampler, *, seed: int) -> list[Answer]:
        """One completion per question, in one batch."""
        prompts = self.prompts()
        completions = sampler.sample([prompt.chat for prompt in prompts], self.decoding, n=1, seed=seed)
        return [
            Answer(prompt.prompt_id, (completion,)) for prompt, (completion,) in zip(prompts, completions, strict=True)
        ]

    def judge(
        self, answers: Sequence[Answer], judge: Judge, *, baseline: Sequence[Answer] | None = None
    ) -> list[Judgment]:
        """Nothing to ask."""
        return []

    def verdicts(self, answers: Sequence[Answer]) -> dict[str, Verdicts]:
        """Question id -> the verdicts on its answer, in the questions' order."""
        questions: Mapping[str, Instructed] = {question.question_id: question for question in self.loaded()}
        ordered = by_question(answers, list(questions), "policy", n_turns=1)
        return {
            answer.question_id: verdicts(self.checkers, questions[answer.question_id], answer.turns[0].text)
            for answer in ordered
        }

    def score(
        self, answers: Sequence[Answer], judgments: Sequence[Judgment], *, baseline: Sequence[Answer] | None = None
    ) -> list[Metric]:
        """Strict and loose accuracy of prompts and of instructions."""
        found = self.verdicts(answers)
        turns = [answer.turns[0] for answer in by_question(answers, list(found), "policy", n_turns=1)]
        strict = [verdict.strict for verdict in found.values()]
        loose = [verdict.loose for verdict in found.values()]
        return [
            self._of_prompts("prompt_strict", strict),
            self._of_prompts("prompt_loose", loose),
            self._of_instructions("instruction_strict", strict),
            self._of_instructions("instruction_loose", loose),
            *length_metrics(turns),
        ]

    def question_scores(self, answers: Sequence[Answer], judgments: Sequence[Judgment]) -> list[QuestionScore]:
        """100 where an answer follows every instruction strictly, else 0; the mean is `prompt_strict`."""
        found = self.verdicts(answers)
        return [
            question_score(answer, "prompt_strict", 100.0 * all(found[answer.question_id].strict))
            for answer in by_question(answers, list(found), "policy", n_turns=1)
        ]

    def _of_prompts(self, name: str, followed: Sequence[Sequence[bool]]) -> Metric:
        from aipo.stats import bootstrap_mean_interval

        values = [100.0 * all(row) for row in followed]
        interval = bootstrap_mean_interval(values, rounds=self.bootstrap_rounds)
        return Metric(name, sum(values) / len(values), interval, len(values), 0)

    def _of_instructions(self, name: str, followed: Sequence[Sequence[bool]]) -> Metric:
        """A ratio of two sums over questions, so its interval resamples questions with their instructions."""
        import numpy as np

        right = np.array([sum(row) for row in followed], dtype=float)
        asked = np.array([len(row) for row in followed], dtype=float)
        drawn = np.random.default_rng(0).integers(len(right), size=(self.bootstrap_rounds, len(right)))
        shares = 100 * right[drawn].sum(1) / asked[drawn].sum(1)
        low, high = np.percentile(shares, (2.5, 97.5))
        return Metric(name, 100 * float(right.sum() / asked.sum()), (float(low), float(high)), int(asked.sum()), 0)
