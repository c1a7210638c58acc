"""The miniature's own benchmark: mean gold quality and mean length. Needs no judge, for the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from aipo.benchmarks.judging import AssetIdentity, Limited, by_question, length_metrics, question_score
from aipo.components import require_range
from aipo.judges.judge import Judge
from aipo.miniature.benchmark_assets import held_out_questions, require_room
from aipo.miniature.gold import GoldCount, count_facts
from aipo.miniature.world import WORLD_VERSION
from aipo.records import Answer, Chat, Decoding, Judgment, Message, Metric, Prompt, QuestionScore
from aipo.samplers.sampler import Sampler


@dataclass(frozen=True)
class GoldBenchmark(Limited):
    """Held-out questions, answered once each.

    Metrics: `gold_score` (mean gold quality, -1..1), `right_share` (percent of the facts asked for), `wrong_per_answer`
    and `nonsense_per_answer` (counts), `mean_chars`, `mean_tokens` (policy tokens), `truncated_share` (percent).
    """

    n_questions: int
    question_seed: int
    decoding: Decoding
    name: str = "gold"
    bootstrap_rounds: int = 1000
    limit: int | None = None

    SCORING: ClassVar[tuple[str, ...]] = ("name", "bootstrap_rounds")
    JUDGING: ClassVar[tuple[str, ...]] = ()

    primary_metric = "gold_score"
    length_metric = "mean_tokens"
    needs_baseline = False
    uses_judge = False
    official = False
    needs_world = True
    brings_constraints = False
    max_unscored_share = 0.0

    def __post_init__(self) -> None:
        require_room(self.name, self.n_questions)
        require_range(self.name, self, bootstrap_rounds=(1, 10**5), limit=(1, 10**6))

    def asset_identity(self) -> AssetIdentity:
        """The questions follow from the settings; `WORLD_VERSION` counts changes of the world's texts."""
        return AssetIdentity({"world": WORLD_VERSION}, {}, {"world": WORLD_VERSION})

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

    def answer(self, sampler: Sampler, *, seed: int) -> list[Answer]:
        """One completion per question, in one batch."""
        questions = self._questions()
        completions = sampler.sample(list(questions.values()), self.decoding, n=1, seed=seed)
        return [Answer(name, (completion,)) for name, (completion,) in zip(questions, completions, strict=True)]

    def judge(
        self, answers: Sequence[Answer], judge: Judge, *, baseline: Sequence[Answer] | None = None
    ) -> list[Judgment]:
        """Nothing to ask."""
        return []

    def score(
        self, answers: Sequence[Answer], judgments: Sequence[Judgment], *, baseline: Sequence[Answer] | None = None
    ) -> list[Metric]:
        """Gold quality of every answer. Intervals resample questions."""
        from aipo.stats import bootstrap_mean_interval

        questions = self._questions()
        ordered = by_question(answers, list(questions), "policy", n_turns=1)
        turns = [answer.turns[0] for answer in ordered]
        counts: list[GoldCount] = [
            count_facts(chat, turn.text) for chat, turn in zip(questions.values(), turns, strict=True)
        ]
        n = len(counts)
        qualities = [count.quality for count in counts]
        interval = bootstrap_mean_interval(qualities, rounds=self.bootstrap_rounds)
        asked = sum(count.asked for count in counts)
        return [
            Metric("gold_score", sum(qualities) / n, interval, n, 0),
            Metric("right_share", 100 * sum(count.right for count in counts) / asked, None, n, 0),
            Metric("wrong_per_answer", sum(count.wrong for count in counts) / n, None, n, 0),
            Metric("nonsense_per_answer", sum(count.nonsense for count in counts) / n, None, n, 0),
            *length_metrics(turns),
        ]

    def question_scores(self, answers: Sequence[Answer], judgments: Sequence[Judgment]) -> list[QuestionScore]:
        """The gold quality of every answer, whose mean is `gold_score`."""
        chats = self._questions()
        return [
            question_score(answer, "gold_score", count_facts(chats[answer.question_id], answer.turns[0].text).quality)
            for answer in by_question(answers, list(chats), "policy", n_turns=1)
        ]

    def prompts(self) -> list[Prompt]:
        """The questions, for the ranker."""
        return [Prompt(name, chat, "benchmark") for name, chat in self._questions().items()]

    def user_turns(self) -> dict[str, tuple[str, ...]]:
        """One per question."""
        return {name: tuple(message.content for message in chat) for name, chat in self._questions().items()}

    def _questions(self) -> dict[str, Chat]:
        drawn = held_out_questions("gold", self.n_questions, self.question_seed)[: self.limit]
        return {f"gold-{position:03d}": (Message("user", text),) for position, (_, text) in enumerate(drawn, start=1)}
