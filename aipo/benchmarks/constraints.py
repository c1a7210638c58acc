"""Held-out instructions whose answers code can check. Needs no judge, for the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from aipo.benchmarks.judging import AssetIdentity, Limited, by_question, length_metrics, question_score
from aipo.components import require_range
from aipo.constraints import VERSION, Task, draw_tasks, meta_of, share_met
from aipo.judges.judge import Judge
from aipo.records import Answer, Decoding, Judgment, Message, Metric, Prompt, QuestionScore
from aipo.samplers.sampler import Sampler


@dataclass(frozen=True)
class ConstraintBenchmark(Limited):
    """Questions of held-out words, every second one with a kind of constraint that training never has.

    Metrics: `constraints_met` (gold: mean share of a question's constraints that its answer meets, 0..1),
    `constraints_met_known_kinds` and `constraints_met_new_kinds` (the same over either half), `all_met_share` (percent
    of the answers that meet every one), `mean_words`, `mean_chars`, `mean_tokens` (policy tokens), `truncated_share`
    (percent of the answers cut at the token limit).
    """

    n_questions: int
    question_seed: int
    decoding: Decoding
    name: str = "constraints"
    bootstrap_rounds: int = 1000
    limit: int | None = None

    SCORING: ClassVar[tuple[str, ...]] = ("name", "bootstrap_rounds")
    JUDGING: ClassVar[tuple[str, ...]] = ()

    primary_metric = "constraints_met"
    length_metric = "mean_tokens"
    needs_baseline = False
    uses_judge = False
    official = False
    needs_world = False
    brings_constraints = True
    max_unscored_share = 0.0

    def __post_init__(self) -> None:
        require_range(self.name, self, n_questions=(2, 5000), bootstrap_rounds=(1, 10**5), limit=(2, 10**6))

    def asset_identity(self) -> AssetIdentity:
        """The questions follow from the settings; `VERSION` counts changes of their texts and of the checks."""
        return AssetIdentity({"constraints": VERSION}, {}, {"constraints": VERSION})

    @property
    def decodings(self) -> tuple[Decoding, ...]:
        """One, of the settings."""
        return (self.decoding,)

    @property
    def n_answers(self) -> int:
        """One per question."""
        return self.n_questions if self.limit is None else min(self.limit, self.n_questions)

    @property
    def n_judge_requests(self) -> int:
        """None: the truth is known."""
        return 0

    def user_turns(self) -> dict[str, tuple[str, ...]]:
        """One per question."""
        return {prompt.prompt_id: (prompt.chat[-1].content,) for prompt in self.prompts()}

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

    def score(
        self, answers: Sequence[Answer], judgments: Sequence[Judgment], *, baseline: Sequence[Answer] | None = None
    ) -> list[Metric]:
        """Gold of every answer. Intervals resample questions."""
        from aipo.stats import bootstrap_mean_interval

        tasks = self._tasks()
        turns = [answer.turns[0] for answer in by_question(answers, list(tasks), "policy", n_turns=1)]
        shares = [share_met(task.constraints, turn.text) for task, turn in zip(tasks.values(), turns, strict=True)]

        def mean(name: str, values: Sequence[float]) -> Metric:
            interval = bootstrap_mean_interval(values, rounds=self.bootstrap_rounds)
            return Metric(name, sum(values) / len(values), interval, len(values), 0)

        known = [share for share, task in zip(shares, tasks.values(), strict=True) if not task.has_new_kind]
        new = [share for share, task in zip(shares, tasks.values(), strict=True) if task.has_new_kind]
        n = len(shares)
        return [
            mean("constraints_met", shares),
            mean("constraints_met_known_kinds", known),
            mean("constraints_met_new_kinds", new),
            Metric("all_met_share", 100 * sum(share == 1 for share in shares) / n, None, n, 0),
            Metric("mean_words", sum(len(turn.text.split()) for turn in turns) / n, None, n, 0),
            *length_metrics(turns),
        ]

    def question_scores(self, answers: Sequence[Answer], judgments: Sequence[Judgment]) -> list[QuestionScore]:
        """Gold of every answer, whose mean is `constraints_met`."""
        tasks = self._tasks()
        return [
            question_score(
                answer, "constraints_met", share_met(tasks[answer.question_id].constraints, answer.turns[0].text)
            )
            for answer in by_question(answers, list(tasks), "policy", n_turns=1)
        ]

    def prompts(self) -> list[Prompt]:
        """The questions with their constraints, for the ranker."""
        return [
            Prompt(name, (Message("user", task.text),), "benchmark", meta_of(task.constraints))
            for name, task in self._tasks().items()
        ]

    def _tasks(self) -> dict[str, Task]:
        drawn = draw_tasks(self.n_questions, self.question_seed, held_out=True)[: self.limit]
        return {f"constraints-{position:04d}": task for position, task in enumerate(drawn, start=1)}
