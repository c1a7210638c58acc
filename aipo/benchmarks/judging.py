"""What all benchmarks share between a sampler and a score: matching rows, hashing prompts, refusing silent gaps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from aipo.components import needs_of
from aipo.records import Answer, Chat, Completion, JudgeReply, Judgment, Metric, QuestionScore

Order = Literal["single", "baseline_first", "policy_first"]
Loaded = TypeVar("Loaded", covariant=True)
LENGTH_METRICS = ("mean_chars", "mean_tokens")
"""What `length_metrics` measures of any answer."""


@dataclass(frozen=True)
class AssetIdentity:
    """Hashes of files, or versions of code, by the first stage that they have an effect on."""

    answering: Mapping[str, str]
    judging: Mapping[str, str]
    scoring: Mapping[str, str]


class Assets(Protocol[Loaded]):
    """Where a benchmark's questions and prompts come from: official files, or the miniature's world."""

    @property
    def kind(self) -> type[Loaded]:
        """The class of what `load` gives: the benchmark's own assets dataclass."""
        ...

    @property
    def brings_baseline(self) -> bool:
        """True when a baseline's answers are among them; else the baseline policy has to answer."""
        ...

    def load(self) -> Loaded:
        """The benchmark's assets dataclass. Reads local files at most; says what is missing and where to put it."""
        ...

    @property
    def n_questions(self) -> int:
        """How many there are, known without reading them."""
        ...

    @property
    def official(self) -> bool:
        """True for the benchmark's own files, unchanged."""
        ...

    @property
    def needs_world(self) -> bool:
        """True when the questions come from the miniature's world."""
        ...

    def identity(self) -> AssetIdentity:
        """What pins the content: hashes of the files, or a version of the code that makes them."""
        ...


class Limited:
    """A benchmark that may be cut to its first questions, for a first contact with a judge that is paid.

    A limited score is no result: it is not official, is marked wherever it is shown, and has artifacts of its own.
    """

    limit: int | None = None
    """So many questions, from the first; None: all."""

    OPTIONAL: ClassVar[tuple[str, ...]] = ("limit",)
    """None is no setting: it leaves an artifact's content as it was before there was a limit."""


class AssetBacked(Limited):
    """What a benchmark with assets says of itself by them."""

    assets: Assets[Any]

    @property
    def n_questions(self) -> int:
        """Those of its assets, or the first of them."""
        return self.assets.n_questions if self.limit is None else min(self.limit, self.assets.n_questions)

    def loaded(self) -> Any:
        """Its assets' content, cut to the first questions where it is limited."""
        assets = self.assets.load()
        return assets if self.limit is None else assets.first(self.limit)

    @property
    def official(self) -> bool:
        """As its assets, unless it is limited."""
        return self.assets.official and self.limit is None

    @property
    def needs_world(self) -> bool:
        """As its assets."""
        return self.assets.needs_world

    def missing(self) -> list[str]:
        """What the assets miss."""
        return needs_of(self.assets)

    def asset_identity(self) -> AssetIdentity:
        """Its assets'."""
        return self.assets.identity()


@dataclass(frozen=True)
class Request:
    """One question to the judge. `chat` None: the prompt cannot be rendered, the verdict is unscored unasked."""

    question_id: str
    turn: int
    order: Order
    chat: Chat | None

    def judgment(self, value: float | None, replies: Sequence[JudgeReply], judge: str) -> Judgment:
        """The verdict on this request."""
        return Judgment(self.question_id, self.turn, self.order, value, tuple(replies), judge, chat_sha256(self.chat))


def chat_sha256(chat: Chat | None) -> str:
    """SHA-256 of a chat as compact JSON [[role, content], ...]; of nothing where there is no chat."""
    plain = [] if chat is None else [[message.role, message.content] for message in chat]
    return hashlib.sha256(
        json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    ).hexdigest()


def by_question(answers: Sequence[Answer], question_ids: Sequence[str], whose: str, n_turns: int) -> list[Answer]:
    """The answers in the order of `question_ids`, or ValueError that names what is missing, unknown or repeated."""
    found = {answer.question_id: answer for answer in answers}
    missing = [question for question in question_ids if question not in found]
    unknown = sorted(set(found) - set(question_ids))
    if missing or unknown or len(found) != len(answers):
        raise ValueError(
            f"{whose} answers: expected each of {len(question_ids)} questions once, got {len(answers)} answers; "
            f"missing {missing[:5]}, unknown {unknown[:5]}, repeated {len(answers) - len(found)}"
        )
    short = [answer.question_id for answer in answers if len(answer.turns) != n_turns]
    if short:
        raise ValueError(f"{whose} answers: expected {n_turns} turn(s) for each question; not so for {short[:5]}")
    return [found[question] for question in question_ids]


def by_request(judgments: Sequence[Judgment], expected: Sequence[tuple[str, int, Order]], name: str) -> list[Judgment]:
    """The judgments in the order of `expected` (question, turn, order).

    Raises ValueError where a verdict is missing, unknown or repeated, or where several judges are mixed: a table never
    has a silent denominator.
    """
    judges = sorted({judgment.judge for judgment in judgments})
    if len(judges) > 1:
        raise ValueError(f"{name}: judgments of several judges in one score: {judges}; score each judge by itself")
    found = {(judgment.question_id, judgment.turn, judgment.order): judgment for judgment in judgments}
    missing = [key for key in expected if key not in found]
    unknown = sorted(set(found) - set(expected))
    if missing or unknown or len(found) != len(judgments):
        raise ValueError(
            f"{name}: expected {len(expected)} verdicts, got {len(judgments)}; missing {missing[:3]}, "
            f"unknown {unknown[:3]}, repeated {len(judgments) - len(found)}; judge the same answers again"
        )
    return [found[key] for key in expected]


def refuse_unscored(judgments: Sequence[Judgment], max_share: float, name: str) -> None:
    """ValueError when more than `max_share` of the verdicts is unscored, or all of them."""
    unscored = [judgment for judgment in judgments if judgment.value is None]
    if len(unscored) > max_share * len(judgments) or len(unscored) == len(judgments):
        example = next((judgment for judgment in unscored if judgment.replies), None)
        shown = ""
        if example is not None:
            last = example.replies[-1]
            shown = f"; for example question {example.question_id}: {last.error or repr(last.text[-200:])}"
        raise ValueError(
            f"{name}: {len(unscored)} of {len(judgments)} verdicts are unscored, more than max_unscored_share="
            f"{max_share} allows. Raise that limit (nothing is asked again), or have these alone asked once more with "
            f"judge.asks_per_verdict=2{shown}"
        )


def length_metrics(completions: Sequence[Completion]) -> list[Metric]:
    """mean_chars and mean_tokens (policy tokens) over single turns, and the share that was cut at the token limit.

    Answers read from official files carry no token ids: mean_tokens is left out for them.
    """
    n = len(completions)
    metrics = [_plain("mean_chars", sum(len(completion.text) for completion in completions) / n, n)]
    if all(completion.has_known_ids for completion in completions):
        metrics.append(_plain("mean_tokens", sum(completion.n_tokens for completion in completions) / n, n))
        cut = sum(completion.finish == "length" for completion in completions)
        metrics.append(_plain("truncated_share", 100 * cut / n, n))
    return metrics


def question_scores(
    metric: str,
    answers: Sequence[Answer],
    judgments: Sequence[Judgment],
    value_of: Callable[[float], tuple[float, float]],
) -> list[QuestionScore]:
    """One row per answer from its scored verdicts; `value_of` turns a verdict into (value, weight).

    A question whose verdicts are all unscored has no value and no weight.
    """
    verdicts: dict[str, list[tuple[float, float]]] = {}
    for judgment in judgments:
        if judgment.value is not None:
            verdicts.setdefault(judgment.question_id, []).append(value_of(judgment.value))
    rows = []
    for answer in answers:
        found = verdicts.get(answer.question_id, [])
        mass = sum(weight for _, weight in found)
        value = sum(value * weight for value, weight in found) / mass if mass else None
        rows.append(question_score(answer, metric, value, mass))
    return rows


def question_score(answer: Answer, metric: str, value: float | None, weight: float = 1.0) -> QuestionScore:
    """The row of one answer."""
    n = len(answer.turns)
    chars, tokens = sum(len(turn.text) for turn in answer.turns), sum(turn.n_tokens for turn in answer.turns)
    return QuestionScore(answer.question_id, metric, value, weight, chars / n, tokens / n)


def _plain(name: str, value: float, n: int) -> Metric:
    return Metric(name, value, None, n, 0)


def text_completion(text: str) -> Completion:
    """A completion read from an official file, which has no token ids and does not say how it ended."""
    return Completion(text=text, token_ids=(), finish="length")


def require_assets(name: str, assets: Assets[Any], kind: type, *, needs_baseline: bool | None = None) -> None:
    """ValueError unless the assets are a benchmark's own kind and, where `needs_baseline` is false, bring a baseline's
    answers. None: the benchmark compares with none."""
    given = type(assets).__name__
    if not issubclass(assets.kind, kind):
        raise ValueError(f"{name}.assets: expected {kind.__name__}, but {given} has {assets.kind.__name__}")
    if needs_baseline is False and not assets.brings_baseline:
        raise ValueError(f"{name}.needs_baseline: {given} brings no answers of a baseline; set needs_baseline: true")


def require_length_metric(name: str, metric: str) -> None:
    """ValueError unless `metric` is one of LENGTH_METRICS: a table would look for another one in vain."""
    if metric not in LENGTH_METRICS:
        raise ValueError(f"{name}.length_metric: expected {' or '.join(LENGTH_METRICS)}, got {metric!r}")


def require_share(name: str, value: float) -> None:
    """ValueError unless `value` is a share in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a share in [0, 1], got {value}")
