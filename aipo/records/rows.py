"""Every row that travels between stages, as frozen dataclasses. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


Chat = tuple[Message, ...]


@dataclass(frozen=True)
class Decoding:
    """How tokens are drawn. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 switch the filters off."""

    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("temperature", self.temperature == 0 or 1e-3 <= self.temperature <= 100, "0, or from 0.001 to 100"),
            ("top_p", 0 < self.top_p <= 1, "in (0, 1]"),
            ("top_k", self.top_k >= 0, "at least 0 (0 = off)"),
            ("max_new_tokens", 1 <= self.max_new_tokens <= 10**6, "from 1 to 1000000"),
        ):
            if not good:
                raise ValueError(f"Decoding.{name} must be {expected}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Completion:
    """What a policy returned for one prompt.

    `token_ids` are the ids exactly as sampled, and exactly what training sees: with the end-of-turn token at the end
    iff `finish == "stop"`, without it when the completion was cut at the token limit. `text` is decoded without it.
    `logp` is the sampler's own summed log-prob in nats at temperature 1 without filters, where it returns an exact one.
    """

    text: str
    token_ids: tuple[int, ...]
    finish: Literal["stop", "length"]
    logp: float | None = None

    @property
    def n_tokens(self) -> int:
        """Policy tokens of the visible text: the end-of-turn token is not counted."""
        return len(self.token_ids) - (self.finish == "stop")

    @property
    def has_known_ids(self) -> bool:
        """Whether `token_ids` are what was sampled. A text from an official file has none; of an empty answer, none is
        all there is."""
        return bool(self.token_ids) or not self.text


@dataclass(frozen=True)
class Prompt:
    """A chat that waits for a completion. `source` says where it came from: pool, self_instruct, ..."""

    prompt_id: str
    chat: Chat
    source: str
    meta: str | None = None
    """What a good answer must do, as JSON (`aipo.constraints.meta_of`), so that nothing reads it out of the text again.
    None where nothing is known."""


@dataclass(frozen=True)
class Example:
    """A pool prompt with the responses its data set brings (may be empty), and the data set's own rating of each."""

    prompt: Prompt
    responses: tuple[str, ...] = ()
    ratings: tuple[float, ...] = ()


@dataclass(frozen=True)
class Candidates:
    """All completions of one prompt and, once ranked, the ranker's score of each (larger is better)."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    scores: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Pair:
    """A preference pair, as ids. `win_probability` is the ranker's P(chosen beats rejected), where it gives one.

    A win share is the mean probability that a side beats a candidate of its prompt, itself among them at 1/2; None
    where no objective asked for it.
    """

    pair_id: str
    prompt_id: str
    prompt_token_ids: tuple[int, ...]
    chosen: Completion
    rejected: Completion
    chosen_score: float
    rejected_score: float
    win_probability: float | None = None
    chosen_win_share: float | None = None
    rejected_win_share: float | None = None


@dataclass(frozen=True)
class Answer:
    """A policy's answer to a benchmark question, one completion per turn."""

    question_id: str
    turns: tuple[Completion, ...]


@dataclass(frozen=True)
class JudgeReply:
    """A judge's raw reply. `top_logprobs`: token -> nats of the first reply token, where asked for.

    A reply that cannot be read has no text and no log-probs, and `error` says why; no verdict can be read from it.
    """

    text: str
    top_logprobs: Mapping[str, float] | None = None
    model: str | None = None
    """The model the endpoint says it used."""
    error: str | None = None


@dataclass(frozen=True)
class Judgment:
    """One verdict. `value`: rating 1-10, or preference for the policy in [0, 1] (tie 0.5); None: unscored."""

    question_id: str
    turn: int
    order: Literal["single", "baseline_first", "policy_first"]
    value: float | None
    replies: tuple[JudgeReply, ...]
    """Every reply this verdict rests on, in order: empty where none was needed, two where a retry turn was asked."""
    judge: str
    prompt_sha256: str


@dataclass(frozen=True)
class Metric:
    """One number of a benchmark. Win rates are percent, 0-100. `ci95` is a 95 % interval where one is defined."""

    name: str
    value: float
    ci95: tuple[float, float] | None
    n_scored: int
    n_unscored: int


@dataclass(frozen=True)
class QuestionScore:
    """What one question contributes to a metric that is a weighted mean over questions."""

    question_id: str
    metric: str
    """The metric's name; sum(weight * value) / sum(weight) over the scored questions is its value."""
    value: float | None
    """None: unscored."""
    weight: float
    n_chars: float
    """Mean over the turns of the answer, and so is `n_tokens`."""
    n_tokens: float


@dataclass(frozen=True)
class ReferenceLogps:
    """A pair's log-probs under the reference policy, in nats, summed over completion tokens."""

    pair_id: str
    chosen: float
    rejected: float
    chosen_prefix: float
    """Over the first min(chosen, rejected) tokens only; so is `rejected_prefix`."""
    rejected_prefix: float
    chosen_sample: float | None = None
    """Over a random min(chosen, rejected) tokens, `aipo.models.batching.with_sample`; so is `rejected_sample`."""
    rejected_sample: float | None = None


@dataclass(frozen=True)
class RankedPrompt:
    """A ranking row: the ranker's score of each candidate."""

    prompt_id: str
    scores: tuple[float, ...]


@dataclass(frozen=True)
class WinProbabilities:
    """What a ranker that compares candidates found on the way: P(candidate i beats candidate j) of one prompt."""

    prompt_id: str
    chances: tuple[float, ...]
    """N x N, row by row: i N + j holds (i, j). 1/2 where i = j or the texts are equal."""
