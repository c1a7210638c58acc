"""Benchmarks: questions, judge prompts, verdict parsers and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aipo.judges.judge import Judge
from aipo.records import Answer, Judgment, Metric, QuestionScore
from aipo.samplers.sampler import Sampler


class Benchmark(Protocol):
    """Three methods make three artifacts: answers, judgments, scores. So rescoring is free."""

    name: str
    uses_judge: bool
    """False for a benchmark that grades by itself: `judge` is then not called and `score` gets no judgments."""
    needs_baseline: bool
    """True when `judge` and `score` need the baseline policy's answers (the miniature); official ones bring theirs."""
    primary_metric: str
    """The metric on the y axis of length-vs-score plots, for example "lc_win_rate"."""
    length_metric: str
    """The metric on their x axis, for example "mean_chars"."""

    @property
    def n_answers(self) -> int:
        """Completions that `answer` samples, every turn counted. For the planner, known without reading files."""
        ...

    @property
    def n_judge_requests(self) -> int:
        """Requests that `judge` sends, repeated ones left out. Likewise."""
        ...

    def answer(self, sampler: Sampler, *, seed: int) -> list[Answer]:
        """The policy's answers, every question once, by the benchmark's own decoding."""
        ...

    def judge(
        self, answers: Sequence[Answer], judge: Judge, *, baseline: Sequence[Answer] | None = None
    ) -> list[Judgment]:
        """Ask the judge. `baseline` is None when `needs_baseline` is false."""
        ...

    def score(
        self, answers: Sequence[Answer], judgments: Sequence[Judgment], *, baseline: Sequence[Answer] | None = None
    ) -> list[Metric]:
        """Numbers from what is stored, `primary_metric` and `length_metric` among them. No model, no network."""
        ...

    def question_scores(self, answers: Sequence[Answer], judgments: Sequence[Judgment]) -> list[QuestionScore]:
        """What each question contributes to one metric that is a mean over questions; [] where there is none.

        Statistics over seeds and questions together are made from these.
        """
        ...
