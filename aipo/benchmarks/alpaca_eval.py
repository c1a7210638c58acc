"""AlpacaEval 2.0: instructions of one turn, compared with a baseline's outputs; length-controlled and plain win rates.

Protocol: alpaca_eval 0.6.6 (tatsu-lab/alpaca_eval at cd543a1), annotator weighted_alpaca_eval_gpt4_turbo; Dubois et
al., arXiv 2404.04475. One departure: a rendered prompt that is no valid chat (an output with chat markers in it) is
unscored without being sent, where the official code sends it and fails.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from aipo.benchmarks.alpaca_eval_assets import AlpacaEvalAssets
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
from aipo.benchmarks.verdicts import parse_first_token, parse_identifier
from aipo.components import require_range
from aipo.judges.judge import Judge, JudgeError
from aipo.records import Answer, Chat, Decoding, JudgeReply, Judgment, Message, Metric, QuestionScore
from aipo.samplers.sampler import Sampler

if TYPE_CHECKING:
    import pandas as pd

FEW_ITEMS = 200
N_FOLDS = 5
_LOG = logging.getLogger(__name__)
_ROLES: Mapping[str, Literal["system", "user", "assistant"]]
_ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
_PLACEHOLDER = re.compile(r"{(instruction|output_1|output_2)}")


class Annotator(Protocol):
    """How the judge is asked for a verdict, and how its reply is read."""

    @property
    def max_tokens(self) -> int:
        """The longest reply."""
        ...

    @property
    def temperature(self) -> float:
        """The judge's temperature."""
        ...

    @property
    def top_logprobs(self) -> int:
        """How many log-probs of the first reply token are asked for."""
        ...

    def preference_for_second(self, reply: JudgeReply) -> float | None:
        """P(the output shown second is better) in [0, 1], or None: unscored."""
        ...


@dataclass(frozen=True)
class WeightedAnnotator:
    """The official annotator: the probabilities of "m" and "M" for one token, from the judge's top log-probs."""

    max_tokens: int = 1
    temperature: float = 1.0
    top_logprobs: int = 5

    def __post_init__(self) -> None:
        require_range("annotator", self, max_tokens=(1, 10**6), temperature=(0, 100), top_logprobs=(1, 20))

    def preference_for_second(self, reply: JudgeReply) -> float | None:
        """Raises JudgeError for a judge that returns no log-probs."""
        if reply.top_logprobs is None:
            raise JudgeError(
                "the weighted AlpacaEval annotator reads log-probabilities, but the judge returned none; use an "
                "endpoint that returns them, or the text annotator: benchmark=alpaca_eval_text"
            )
        return parse_first_token(reply.top_logprobs)


@dataclass(frozen=True)
class TextAnnotator:
    """Reads the identifier from the reply's text: for judges without log-probs. Not comparable with official scores."""

    max_tokens: int = 5
    temperature: float = 0.0
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        require_range("annotator", self, max_tokens=(1, 10**6), temperature=(0, 100), top_logprobs=(0, 20))

    def preference_for_second(self, reply: JudgeReply) -> float | None:
        """0 or 1, or None where the reply is no identifier."""
        return parse_identifier(reply.text)


def is_switched(instruction: str, seed: int = 0) -> bool:
    """Whether the judge sees the policy's output first: a coin seeded by the instruction (processors.py)."""
    return random.Random(f"is_switched_outputs{instruction}{seed}").choices([False, True], k=1)[0]


def render(template: str, instruction: str, first: str, second: str) -> Chat | None:
    """The judge's chat, or None where what is filled in breaks its structure.

    Placeholders are filled one after another in the template's order, so `{output_2}` inside an instruction is filled
    as well, and only then is the text cut into messages: both as in the official code (utils.py).
    """
    values = {"instruction": instruction, "output_1": first, "output_2": second}
    text = template
    for name in dict.fromkeys(_PLACEHOLDER.findall(template)):
        text = text.replace("{" + name + "}", values[name], 1)
    messages = []
    for block in text.strip().split("<|im_start|>")[1:]:
        first_line, _, content = block.partition("\n")
        role = _ROLES.get(first_line.strip())
        if role is None:
            return None
        messages.append(Message(role, content.split("<|im_end|>", 1)[0].strip()))
    return tuple(messages) or None


@dataclass(frozen=True)
class AlpacaEval(AssetBacked):
    """AlpacaEval with any judge. `assets.load()` gives AlpacaEvalAssets.

    Metrics, rates in percent: `lc_win_rate`, `lc_standard_error`, `win_rate`, `standard_error`, `discrete_win_rate`,
    `n_wins`, `n_losses`, `n_ties`, `mean_chars`, `mean_tokens`, `truncated_share`. `lc_standard_error` is the official
    figure, which is no error of estimation; the interval of `lc_win_rate` refits the length model on resampled items.
    """

    assets: Assets[AlpacaEvalAssets]
    name: str = "alpaca_eval"
    length_metric: str = "mean_chars"
    needs_baseline: bool = False
    annotator: Annotator = field(default_factory=WeightedAnnotator)
    decoding: Decoding = field(default_factory=lambda: Decoding(0.7, 1.0, 50, 2048))
    """AIPO's (bytedance/AIPO at 3217a73, generate_alpaca_eval_output.py); AlpacaEval leaves it to each model."""
    order_seed: int = 0
    both_orders: bool = False
    """Ask every item in both orders and average the two preferences. Not official, twice the cost, no position bias."""
    max_unscored_share: float = 0.05
    bootstrap_rounds: int = 1000
    lc_bootstrap_rounds: int = 200
    limit: int | None = None

    JUDGING: ClassVar[tuple[str, ...]] = ("annotator", "order_seed", "both_orders", "needs_baseline")
    SCORING: ClassVar[tuple[str, ...]] = (
        *("name", "length_metric", "max_unscored_share", "bootstrap_rounds", "lc_bootstrap_rounds", "assets.gamed"),
    )

    uses_judge = True

    def __post_init__(self) -> None:
        require_assets(self.name, self.assets, AlpacaEvalAssets, needs_baseline=self.needs_baseline)
        require_length_metric(self.name, self.length_metric)
        if (n := self.assets.n_questions) < N_FOLDS:
            raise ValueError(f"{self.name}: the length model needs at least {N_FOLDS} items, got {n}")
        require_share(f"{self.name}.max_unscored_share", self.max_unscored_share)
        require_range(
            self.name, self, bootstrap_rounds=(1, 10**5), lc_bootstrap_rounds=(0, 10**5), limit=(N_FOLDS, 1e6)
        )

    @property
    def decodings(self) -> tuple[Decoding, ...]:
        """One, of the settings."""
        return (self.decoding,)

    @property
    def primary_metric(self) -> str:
        """The length-controlled rate; in the miniature the plain one, for its gold judge has no length bias."""
        return "win_rate" if self.needs_world else "lc_win_rate"

    @property
    def n_answers(self) -> int:
        """One per instruction."""
        return self.n_questions

    @property
    def n_judge_requests(self) -> int:
        """One per item and order; fewer where outputs are equal."""
        return self.n_questions * (2 if self.both_orders else 1)

    def user_turns(self) -> dict[str, tuple[str, ...]]:
        """One per instruction."""
        return {str(position): (item["instruction"],) for position, item in enumerate(self.loaded().items)}

    def answer(self, sampler: Sampler, *, seed: int) -> list[Answer]:
        """One completion per instruction, in one batch."""
        assets = self.loaded()
        chats = [(Message("user", item["instruction"]),) for item in assets.items]
        completions = sampler.sample(chats, self.decoding, n=1, seed=seed)
        return [Answer(str(position), (completion,)) for position, (completion,) in enumerate(completions)]

    def judge(
        self, answers: Sequence[Answer], judge: Judge, *, baseline: Sequence[Answer] | None = None
    ) -> list[Judgment]:
        """A verdict per item and order; equal outputs tie without a request. All requests go out in one batch."""
        assets = self.loaded()
        outputs, opposing = self._outputs(assets, answers), self._baseline(assets, baseline)
        requests = [
            pairwise_request(assets.prompt_template, position, item["instruction"], output, other, order)
            for position, (item, output, other) in enumerate(zip(assets.items, outputs, opposing, strict=True))
            for order in self._orders(item["instruction"])
        ]
        equal = [output == other for output, other in zip(outputs, opposing, strict=True)]
        asked = [request for request in requests if request.chat is not None and not equal[int(request.question_id)]]
        replies: list[JudgeReply] = []
        if asked:
            replies = judge.reply(
                [request.chat for request in asked if request.chat is not None],
                max_tokens=self.annotator.max_tokens,
                temperature=self.annotator.temperature,
                top_logprobs=self.annotator.top_logprobs,
            )
        replied = {(request.question_id, request.order): reply for request, reply in zip(asked, replies, strict=True)}
        judgments = []
        for request in requests:
            reply = replied.get((request.question_id, request.order))
            if reply is None:
                value = 0.5 if equal[int(request.question_id)] else None
                judgments.append(request.judgment(value, [], judge.name))
            else:
                second = self.annotator.preference_for_second(reply)
                value = 1 - second if second is not None and request.order == "policy_first" else second
                judgments.append(request.judgment(value, [reply], judge.name))
        return judgments

    def score(
        self, answers: Sequence[Answer], judgments: Sequence[Judgment], *, baseline: Sequence[Answer] | None = None
    ) -> list[Metric]:
        """Win rates from the verdicts and both sides' lengths in characters."""
        assets = self.loaded()
        outputs, opposing = self._outputs(assets, answers), self._baseline(assets, baseline)
        expected = [
            (str(position), 1, order)
            for position, item in enumerate(assets.items)
            for order in self._orders(item["instruction"])
        ]
        ordered = by_request(judgments, expected, self.name)
        refuse_unscored(ordered, self.max_unscored_share, self.name)
        values = [float("nan") if judgment.value is None else judgment.value for judgment in ordered]
        n_orders = len(ordered) // len(assets.items)
        # A mean with an unscored verdict in it is NaN: the item is then unscored.
        preferences = [sum(values[start : start + n_orders]) / n_orders for start in range(0, len(values), n_orders)]
        metrics = preference_metrics(
            preferences,
            [len(output) for output in outputs],
            [len(output) for output in opposing],
            difficulty=item_difficulty(assets),
            gamed=gamed_rows(assets.gamed),
            same_policy=outputs == opposing,
            bootstrap_rounds=self.bootstrap_rounds,
            lc_bootstrap_rounds=self.lc_bootstrap_rounds,
        )
        in_order = by_question(answers, [str(position) for position in range(len(assets.items))], "policy", n_turns=1)
        return metrics + length_metrics([answer.turns[0] for answer in in_order])

    def question_scores(self, answers: Sequence[Answer], judgments: Sequence[Judgment]) -> list[QuestionScore]:
        """Preferences in percent, whose mean is `win_rate`; an item with an unscored verdict is unscored."""
        unscored = {judgment.question_id for judgment in judgments if judgment.value is None}
        scored = [judgment for judgment in judgments if judgment.question_id not in unscored]
        rows = question_scores("win_rate", answers, scored, lambda value: (100 * value, 1.0))
        return [replace(row, weight=float(row.value is not None)) for row in rows]

    def _orders(self, instruction: str) -> tuple[Order, ...]:
        if self.both_orders:
            return ("baseline_first", "policy_first")
        return ("policy_first",) if is_switched(instruction, self.order_seed) else ("baseline_first",)

    def _outputs(self, assets: AlpacaEvalAssets, answers: Sequence[Answer], whose: str = "policy") -> list[str]:
        ids = [str(position) for position in range(len(assets.items))]
        return [answer.turns[0].text for answer in by_question(answers, ids, whose, n_turns=1)]

    def _baseline(self, assets: AlpacaEvalAssets, baseline: Sequence[Answer] | None) -> list[str]:
        if self.needs_baseline:
            if baseline is None:
                raise ValueError(f"{self.name} needs the baseline policy's answers (needs_baseline), but got none")
            return self._outputs(assets, baseline, "baseline")
        if assets.baseline_outputs is None:
            raise ValueError(f"{self.name}: these assets bring no baseline outputs; set needs_baseline: true")
        return list(assets.baseline_outputs)


def pairwise_request(
    template: str, position: int, instruction: str, output: str, baseline: str, order: Order
) -> Request:
    """The request that compares one output with the baseline's."""
    first, second = (output, baseline) if order == "policy_first" else (baseline, output)
    return Request(str(position), 1, order, render(template, instruction, first, second))


def gamed_rows(gamed: pd.DataFrame | None) -> tuple[pd.Series, pd.Series, pd.Series] | None:
    """What the length model reads of df_gamed.csv: preference, standardized length difference, difficulty."""
    if gamed is None:
        return None
    wanted = ["preference", "std_delta_len", "instruction_difficulty"]
    missing = sorted({*wanted, "index"} - set(gamed.columns))
    if missing:
        raise ValueError(f"df_gamed.csv: missing column(s) {missing}; got {list(gamed.columns)}")
    return gamed["preference"], gamed["std_delta_len"], gamed["instruction_difficulty"]


def item_difficulty(assets: AlpacaEvalAssets) -> list[float] | None:
    """Difficulty by row position: the assets' own, else that of the gamed rows, else none."""
    n_items = len(assets.items)
    if assets.difficulty is not None:
        if len(assets.difficulty) != n_items:
            raise ValueError(f"expected a difficulty for each of {n_items} items, got {len(assets.difficulty)}")
        return list(assets.difficulty)
    if assets.gamed is None:
        return None
    return difficulty_by_row(assets.gamed, n_items)


def difficulty_by_row(gamed: pd.DataFrame, n_items: int) -> list[float]:
    """The difficulties of rows 0..n_items-1, as df_gamed.csv gives them."""
    by_index = gamed.drop_duplicates("index").set_index("index")["instruction_difficulty"]
    missing = [position for position in range(n_items) if position not in by_index.index]
    if missing:
        raise ValueError(f"df_gamed.csv has no difficulty for rows {missing[:5]} of {n_items}; is it the right file?")
    return [float(by_index[position]) for position in range(n_items)]


def preference_metrics(
    preferences: Sequence[float],
    chars: Sequence[int],
    baseline_chars: Sequence[int],
    *,
    difficulty: Sequence[float] | None,
    gamed: tuple[pd.Series, pd.Series, pd.Series] | None,
    same_policy: bool = False,
    length_control: bool = True,
    bootstrap_rounds: int = 1000,
    lc_bootstrap_rounds: int = 200,
) -> list[Metric]:
    """All of AlpacaEval's rates, percent, from P(policy wins) per item; NaN is unscored.

    `same_policy`: the policy is the baseline, whose controlled win rate is 50 by definition.
    """
    from aipo.stats import bootstrap_mean_interval, length_controlled, win_rate

    if length_control and gamed is not None and len(preferences) < FEW_ITEMS:
        _LOG.warning(
            "length-controlled win rate from %d items: below %d the gamed rows dominate the fit, read it with care",
            len(preferences),
            FEW_ITEMS,
        )
    rates = win_rate(preferences)
    scored, unscored = rates.n_scored, rates.n_unscored
    low, high = bootstrap_mean_interval(preferences, rounds=bootstrap_rounds)
    metrics = []
    if length_control and same_policy:
        metrics += [Metric("lc_win_rate", 50.0, (50.0, 50.0), scored, unscored)]
    elif length_control:
        controlled = length_controlled(
            preferences, chars, baseline_chars, difficulty=difficulty, gamed=gamed, bootstrap_rounds=lc_bootstrap_rounds
        )
        metrics += [Metric("lc_win_rate", controlled.lc_win_rate, controlled.ci95, scored, unscored)]
        if difficulty is not None:
            # The official figure is the spread of the items' predictions, which differ by their difficulty alone.
            metrics += [Metric("lc_standard_error", controlled.standard_error, None, scored, unscored)]
    return metrics + [
        Metric("win_rate", rates.win_rate, (100 * low, 100 * high), scored, unscored),
        Metric("standard_error", rates.standard_error, None, scored, unscored),
        Metric("discrete_win_rate", rates.discrete_win_rate, None, scored, unscored),
        Metric("n_wins", rates.n_wins, None, scored, unscored),
        Metric("n_losses", rates.n_losses, None, scored, unscored),
        Metric("n_ties", rates.n_ties, None, scored, unscored),
    ]
