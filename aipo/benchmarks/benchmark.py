"""Benchmarks: questions, judge prompts, verdict parsers and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

from aipo.benchmarks.judging import AssetIdentity
from aipo.judges.judge import Judge
from aipo.records import Answer, Decoding, Judgment, Metric, Prompt, QuestionScore
from aipo.samplers.sampler import Sampler


class Benchmark(Protocol):
    """Three methods make three artifacts: answers, judgments, scores. Each is remade only when a setting that shapes it
    changes, so rescoring is free."""

    JUDGING: ClassVar[tuple[str, ...]]
    """Settings that shape judgments and what follows, but no answer; dotted names reach into nested components."""
    SCORING: ClassVar[tuple[str, ...]]
    """Settings that shape scores alone. All that neither names shapes answers."""

    @property
    def name(self) -> str: ...

    @property
    def uses_judge(self) -> bool:
        """False for a benchmark that grades by itself: `judge` is then not called and `score` gets no judgments."""
        ...

    @property
    def needs_baseline(self) -> bool:
        """True when `judge` and `score` need the baseline policy's answers (the miniature); official ones bring
        theirs."""
        ...

    @property
    def primary_metric(self) -> str:
        """The metric on the y axis of length-vs-score plots, for example "lc_win_rate"."""
        ...

    @property
    def length_metric(self) -> str:
        """The metric on their x axis, for example "mean_chars"."""
        ...

    @property
    def official(self) -> bool:
        """True when it asks the benchmark's own questions by its own files."""
        ...

    @property
    def needs_world(self) -> bool:
        """True when it knows the truth of the miniature's world only, and can grade nothing else."""
        ...

    @property
    def max_unscored_share(self) -> float:
        """Above this share of unscored verdicts `score` refuses, with an example."""
        ...

    def asset_identity(self) -> AssetIdentity:
        """What pins the files that each stage reads. Reads nothing large."""
        ...

    @property
    def decodings(self) -> tuple[Decoding, ...]:
        """How `answer` samples: every decoding that it asks the sampler for."""
        ...

    @property
    def n_answers(self) -> int:
        """Completions that `answer` samples, every turn counted. For the planner, known without reading files."""
        ...

    @property
    def n_judge_requests(self) -> int:
        """Requests that `judge` sends, repeated ones left out. Likewise."""
        ...

    def user_turns(self) -> dict[str, tuple[str, ...]]:
        """Question id -> what the user says, turn by turn: for people who read the answers."""
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


@runtime_checkable
class PromptBenchmark(Benchmark, Protocol):
    """A benchmark of one turn that gives its questions as prompts, so that the ranker can score its answers, too."""

    @property
    def brings_constraints(self) -> bool:
        """True when every prompt has constraints that code can check (`Prompt.meta`, `aipo.constraints`)."""
        ...

    def prompts(self) -> list[Prompt]:
        """The questions; `prompt_id` is the question's id."""
        ...
