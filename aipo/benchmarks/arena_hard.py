"""Arena-Hard v0.1: one-turn questions, two games against a baseline's answers, Bradley-Terry win rate.

Protocol: lm-sys/arena-hard-auto at efc012e (gen_judgment.py, show_result.py); Li et al., arXiv 2406.11939.
"""

from __future__ import annotations

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
    require_share,
)
from aipo.benchmarks.token_counters import PolicyTokens, TokenCounter
from aipo.benchmarks.verdicts import GAME_PREFERENCE, parse_game
from aipo.components import needs_of, require_range
from aipo.judges.judge import Judge
from aipo.records import Answer, Decoding, JudgeReply, Judgment, Message, Metric, QuestionScore
from aipo.samplers.sampler import Sampler

ORDERS: tuple[Order, Order] = ("baseline_first", "policy_first")
"""Game 1 shows the baseline as assistant A, game 2 the policy."""
RETRY_MESSAGE = "continue your judgment and finish by outputting a final verdict label"
"""Part of the protocol: what the judge is told when it gave no label (gen_judgment.py)."""
STRONG_WEIGHT = 3
"""How often A>>B and B>>A count (show_result.py, --weight)."""


@dataclass(frozen=True)
class ArenaHardAssets:
    """What Arena-Hard reads.

    `questions`: rows of the official question.jsonl: {question_id, cluster, turns: [{content}]}.
    `baseline_answers`: question id -> text, or None: the baseline policy's answers are then handed to `judge`.
    `system_prompt`: the judge's system message.
    `prompt_template`: the user message, with {question_1}, {answer_1} and {answer_2}.
    """

    questions: tuple[Mapping[str, Any], ...]
    baseline_answers: Mapping[str, str] | None
    system_prompt: str
    prompt_template: str

    def first(self, n: int) -> ArenaHardAssets:
        """The first `n` questions alone."""
        kept = {str(question["question_id"]) for question in self.questions[:n]}
        answers = self.baseline_answers
        kept_answers = None if answers is None else {name: text for name, text in answers.items() if name in kept}
        return replace(self, questions=self.questions[:n], baseline_answers=kept_answers)


def game_request(
    assets: ArenaHardAssets, question: Mapping[str, Any], output: str, baseline: str, order: Order
) -> Request:
    """The judge's first turn in one game."""
    first, second = (baseline, output) if order == "baseline_first" else (output, baseline)
    user = assets.prompt_template.format(question_1=question["turns"][0]["content"], answer_1=first, answer_2=second)
    chat = (Message("system", assets.system_prompt), Message("user", user))
    return Request(str(question["question_id"]), 1, order, chat)


def game_text(replies: Sequence[JudgeReply]) -> str:
    """A game's judgment as the official file stores it and as the label is looked for in it."""
    return "".join("\n" + reply.text for reply in replies)


def game_value(label: str | None, order: Order) -> float | None:
    """A label as preference for the policy: 0, 0.25, 0.5, 0.75 or 1; None for labels that mean nothing."""
    for_second = GAME_PREFERENCE.get(label or "")
    if for_second is None:
        return None
    return for_second if order == "baseline_first" else 1 - for_second


def game_outcome(value: float, strong_weight: int = STRONG_WEIGHT) -> tuple[float, int]:
    """(1 win, 0.5 tie or 0 loss of the policy, how often it counts) of a game's preference."""
    outcome = 1.0 if value > 0.5 else 0.0 if value < 0.5 else 0.5
    return outcome, strong_weight if value in (0.0, 1.0) else 1


@dataclass(frozen=True)
class ArenaHard(AssetBacked):
    """Arena-Hard with any judge. `assets.load()` gives ArenaHardAssets.

    Metrics, rates in percent: `win_rate` (Bradley-Terry; as every policy meets only the baseline it equals (wins +
    ties / 2) / weighted games), with an interval from resampled questions of this policy alone;
    `win_rate_pooled_ci`, the same with the official interval (100 draws of battles, seed 42; officially over the
    battles of all models, here with this policy's only: `python -m aipo.benchmarks score` pools files);
    `win_rate_game_1` and `win_rate_game_2`, whose difference is the judge's position bias; lengths.
    """

    assets: Assets[ArenaHardAssets]
    name: str = "arena_hard"
    needs_baseline: bool = False
    token_counter: TokenCounter = field(default_factory=PolicyTokens)
    decoding: Decoding = field(default_factory=lambda: Decoding(0.0, 1.0, 0, 4096))
    judge_max_tokens: int = 4096
    judge_temperature: float = 0.0
    judge_attempts: int = 2
    strong_weight: int = STRONG_WEIGHT
    max_unscored_share: float = 0.05
    bootstrap_rounds: int = 1000
    limit: int | None = None

    JUDGING: ClassVar[tuple[str, ...]] = ("judge_max_tokens", "judge_temperature", "judge_attempts", "needs_baseline")
    SCORING: ClassVar[tuple[str, ...]] = (
        *("name", "token_counter", "strong_weight", "max_unscored_share", "bootstrap_rounds"),
    )

    primary_metric = "win_rate"
    uses_judge = True

    def __post_init__(self) -> None:
        require_assets(self.name, self.assets, ArenaHardAssets, needs_baseline=self.needs_baseline)
        require_share(f"{self.name}.max_unscored_share", self.max_unscored_share)
        require_range(self.name, self, bootstrap_rounds=(1, 10**5), judge_max_tokens=(1, 10**6))
        require_range(self.name, self, limit=(1, 10**6))
        require_range(self.name, self, judge_temperature=(0, 100), judge_attempts=(1, 100), strong_weight=(1, 1000))

    @property
    def length_metric(self) -> str:
        """Named by the tokenizer that counts."""
        return self.token_counter.metric

    def missing(self) -> list[str]:
        """What the assets and the token counter miss."""
        return needs_of(self.assets, self.token_counter)

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
        """Two games per question; a reply without a label is asked again."""
        return 2 * self.n_questions

    def user_turns(self) -> dict[str, tuple[str, ...]]:
        """One per question."""
        assets = self.loaded()
        return {q: (row["turns"][0]["content"],) for q, row in zip(_ids(assets), assets.questions, strict=True)}

    def answer(self, sampler: Sampler, *, seed: int) -> list[Answer]:
        """One completion per question, in one batch."""
        assets = self.loaded()
        chats = [(Message("user", question["turns"][0]["content"]),) for question in assets.questions]
        completions = sampler.sample(chats, self.decoding, n=1, seed=seed)
        return [Answer(name, (completion,)) for name, (completion,) in zip(_ids(assets), completions, strict=True)]

    def judge(
        self, answers: Sequence[Answer], judge: Judge, *, baseline: Sequence[Answer] | None = None
    ) -> list[Judgment]:
        """Two games per question in one batch; one more batch for those whose first reply has no label."""
        assets = self.loaded()
        opposing = self._baseline(assets, baseline)
        requests = [
            game_request(assets, question, answer.turns[0].text, opposing[answer.question_id], order)
            for question, answer in zip(
                assets.questions, by_question(answers, _ids(assets), "policy", n_turns=1), strict=True
            )
            for order in ORDERS
        ]
        chats = [request.chat or () for request in requests]
        replies: list[list[JudgeReply]] = [[] for _ in requests]
        open_games = list(range(len(requests)))
        for _ in range(self.judge_attempts):
            if not open_games:
                break
            found = judge.reply(
                [chats[game] for game in open_games],
                max_tokens=self.judge_max_tokens,
                temperature=self.judge_temperature,
            )
            for game, reply in zip(open_games, found, strict=True):
                replies[game].append(reply)
                chats[game] += (Message("assistant", reply.text), Message("user", RETRY_MESSAGE))
            open_games = [
                game
                for game in open_games
                if replies[game][-1].error is None and parse_game(game_text(replies[game]))[1]
            ]
        return [
            request.judgment(game_value(parse_game(game_text(said))[0], request.order), said, judge.name)
            for request, said in zip(requests, replies, strict=True)
        ]

    def score(
        self, answers: Sequence[Answer], judgments: Sequence[Judgment], *, baseline: Sequence[Answer] | None = None
    ) -> list[Metric]:
        """Win rates from the games, lengths from the answers."""
        ids = _ids(self.loaded())
        ordered = by_request(
            judgments,
            [
                (question, order_turn, order)
                for question in ids
                for order_turn, order in ((1, order) for order in ORDERS)
            ],
            self.name,
        )
        refuse_unscored(ordered, self.max_unscored_share, self.name)
        metrics = game_metrics(ordered, strong_weight=self.strong_weight, bootstrap_rounds=self.bootstrap_rounds)
        turns = [answer.turns[0] for answer in by_question(answers, ids, "policy", n_turns=1)]
        metrics += length_metrics(turns)
        if self.token_counter.metric not in {metric.name for metric in metrics}:
            counts = self.token_counter.count(turns)
            metrics.append(Metric(self.token_counter.metric, sum(counts) / len(counts), None, len(counts), 0))
        return metrics

    def question_scores(self, answers: Sequence[Answer], judgments: Sequence[Judgment]) -> list[QuestionScore]:
        """Outcomes of a question's games in percent, strong verdicts weighted: their mean is `win_rate`."""

        def outcome(value: float) -> tuple[float, float]:
            won, weight = game_outcome(value, self.strong_weight)
            return 100 * won, float(weight)

        return question_scores("win_rate", answers, judgments, outcome)

    def _baseline(self, assets: ArenaHardAssets, baseline: Sequence[Answer] | None) -> Mapping[str, str]:
        if self.needs_baseline:
            if baseline is None:
                raise ValueError(f"{self.name} needs the baseline policy's answers (needs_baseline), but got none")
            ordered = by_question(baseline, _ids(assets), "baseline", n_turns=1)
            return {answer.question_id: answer.turns[0].text for answer in ordered}
        if assets.baseline_answers is None:
            raise ValueError(f"{self.name}: these assets bring no baseline answers; set needs_baseline: true")
        return assets.baseline_answers


def _ids(assets: ArenaHardAssets) -> list[str]:
    return [str(question["question_id"]) for question in assets.questions]


def game_metrics(
    judgments: Sequence[Judgment], *, strong_weight: int = STRONG_WEIGHT, bootstrap_rounds: int = 1000
) -> list[Metric]:
    """The rates of one policy's games, in percent."""
    unscored = sum(judgment.value is None for judgment in judgments)
    scored = len(judgments) - unscored
    rate, interval = _weighted_rate(judgments, strong_weight, bootstrap_rounds)
    metrics = [
        Metric("win_rate", rate, interval, scored, unscored),
        Metric("win_rate_pooled_ci", rate, _official_interval(judgments, strong_weight), scored, unscored),
    ]
    for number, order in enumerate(ORDERS, start=1):
        games = [judgment for judgment in judgments if judgment.order == order]
        n_unscored = sum(judgment.value is None for judgment in games)
        if n_unscored < len(games):
            value, ci95 = _weighted_rate(games, strong_weight, bootstrap_rounds)
            metrics.append(Metric(f"win_rate_game_{number}", value, ci95, len(games) - n_unscored, n_unscored))
    return metrics


def _weighted_rate(judgments: Sequence[Judgment], strong_weight: int, rounds: int) -> tuple[float, tuple[float, float]]:
    """Percent, with an interval that resamples questions: both games of one stay together."""
    from aipo.stats import bootstrap_mean_interval

    wins: dict[str, float] = {}
    mass: dict[str, int] = {}
    for judgment in judgments:
        if judgment.value is not None:
            outcome, weight = game_outcome(judgment.value, strong_weight)
            wins[judgment.question_id] = wins.get(judgment.question_id, 0.0) + weight * outcome
            mass[judgment.question_id] = mass.get(judgment.question_id, 0) + weight
    means = [wins[question] / mass[question] for question in wins]
    low, high = bootstrap_mean_interval(means, weights=list(mass.values()), rounds=rounds)
    return 100 * sum(wins.values()) / sum(mass.values()), (100 * low, 100 * high)


def policy_battles(
    judgments: Sequence[Judgment], policy: str, baseline: str, strong_weight: int = STRONG_WEIGHT
) -> list[tuple[str, str, float]]:
    """The official battles (baseline, policy, outcome of the baseline), strong verdicts repeated, in file order."""
    battles = []
    for judgment in judgments:
        if judgment.value is not None:
            outcome, weight = game_outcome(judgment.value, strong_weight)
            battles += [(baseline, policy, 1 - outcome)] * weight
    return battles


def _official_interval(judgments: Sequence[Judgment], strong_weight: int) -> tuple[float, float] | None:
    """None where a draw of one-sided battles has no finite rating, on which the official script fails."""
    from aipo.stats import pooled_bootstrap, win_rate_against

    battles = policy_battles(judgments, "policy", "baseline", strong_weight)
    try:
        intervals = pooled_bootstrap(battles, baseline="baseline")
    except ValueError:
        return None
    bounds = [win_rate_against({"baseline": 1000.0, "policy": bound}, "baseline") for bound in intervals["policy"]]
    return bounds[0]["policy"], bounds[1]["policy"]
