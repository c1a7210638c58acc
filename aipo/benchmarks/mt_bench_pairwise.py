"""MT-Bench's pairwise comparison with a baseline: two games with swapped sides per question and turn.

Protocol: FastChat 0.2.36, llm_judge/common.py (play_a_match_pair) and show_result.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aipo.benchmarks.judging import Order, Request, by_question, by_request, length_metrics, refuse_unscored
from aipo.benchmarks.mt_bench import MTBench, MTBenchAssets, prompt_name, question_ids, reference_fields
from aipo.benchmarks.verdicts import parse_winner
from aipo.judges.judge import Judge
from aipo.records import Answer, Judgment, Message, Metric, QuestionScore

ORDERS: tuple[Order, Order] = ("policy_first", "baseline_first")


def pair_request(
    assets: MTBenchAssets,
    question: Mapping[str, Any],
    policy: Sequence[str],
    baseline: Sequence[str],
    turn: int,
    order: Order,
) -> Request:
    """The request that compares one turn (1 or 2) of two answers (run_judge_pair); the first side is assistant A."""
    question_id = str(question["question_id"])
    prompt = assets.judge_prompts[prompt_name(assets, question_id, turn, "pair")]
    first, second = (policy, baseline) if order == "policy_first" else (baseline, policy)
    if turn == 1:
        fields = {"question": question["turns"][0], "answer_a": first[0], "answer_b": second[0]}
    else:
        fields = {f"question_{n + 1}": question["turns"][n] for n in range(2)}
        fields |= {f"answer_a_{n + 1}": first[n] for n in range(2)}
        fields |= {f"answer_b_{n + 1}": second[n] for n in range(2)}
    user = prompt["prompt_template"].format(**fields, **reference_fields(assets, question_id, turn))
    return Request(question_id, turn, order, (Message("system", prompt["system_prompt"]), Message("user", user)))


def match_outcome(first_game: float | None, second_game: float | None) -> float | None:
    """Preference for the policy from both games: 1, 0, or 0.5 where they disagree or tie; None if one is unscored."""
    if first_game is None or second_game is None:
        return None
    return first_game if first_game == second_game else 0.5


@dataclass(frozen=True)
class MTBenchPairwise(MTBench):
    """Pairwise comparison with the baseline policy's answers, which are handed to `judge` and `score`.

    Metrics: `win_rate` (percent, ties half; the official win_rate_adjusted), `strict_win_rate` and `loss_rate`
    (percent, the official win_rate and loss_rate), `win_rate_turn_1`, `win_rate_turn_2`, and the lengths. A match is
    both games of one question and turn; it is unscored when either game is.
    """

    name: str = "mt_bench_pairwise"

    primary_metric = "win_rate"
    needs_baseline = True

    @property
    def n_judge_requests(self) -> int:
        """Two swapped games per turn."""
        return 4 * self.n_questions

    def judge(
        self, answers: Sequence[Answer], judge: Judge, *, baseline: Sequence[Answer] | None = None
    ) -> list[Judgment]:
        """Four games per question, all asked in one batch."""
        assets = self.loaded()
        ids = question_ids(assets)
        if baseline is None:
            raise ValueError(f"{self.name} compares with a baseline policy, but no baseline answers were given")
        requests = [
            pair_request(assets, question, _texts(policy), _texts(other), turn, order)
            for question, policy, other in zip(
                assets.questions,
                by_question(answers, ids, "policy", n_turns=2),
                by_question(baseline, ids, "baseline", n_turns=2),
                strict=True,
            )
            for turn in (1, 2)
            for order in ORDERS
        ]
        replies = judge.reply(
            [request.chat for request in requests if request.chat is not None],
            max_tokens=self.judge_max_tokens,
            temperature=self.judge_temperature,
        )
        return [
            request.judgment(_preference(reply.text, request.order), [reply], judge.name)
            for request, reply in zip(requests, replies, strict=True)
        ]

    def score(
        self, answers: Sequence[Answer], judgments: Sequence[Judgment], *, baseline: Sequence[Answer] | None = None
    ) -> list[Metric]:
        """Win rates over matches; intervals resample questions."""
        ids = question_ids(self.loaded())
        expected = [(question, turn, order) for question in ids for turn in (1, 2) for order in ORDERS]
        ordered = by_request(judgments, expected, self.name)
        refuse_unscored(ordered, self.max_unscored_share, self.name)
        outcomes = {
            (ordered[position].question_id, ordered[position].turn): match_outcome(
                ordered[position].value, ordered[position + 1].value
            )
            for position in range(0, len(ordered), 2)
        }
        metrics = [
            self._rate("win_rate", outcomes, lambda value: value),
            self._rate("strict_win_rate", outcomes, lambda value: float(value == 1)),
            self._rate("loss_rate", outcomes, lambda value: float(value == 0)),
        ]
        for turn in (1, 2):
            rows = {key: value for key, value in outcomes.items() if key[1] == turn}
            metrics.append(self._rate(f"win_rate_turn_{turn}", rows, lambda value: value))
        turns = [turn for answer in by_question(answers, ids, "policy", n_turns=2) for turn in answer.turns]
        return metrics + length_metrics(turns)

    def question_scores(self, answers: Sequence[Answer], judgments: Sequence[Judgment]) -> list[QuestionScore]:
        """None: a match is decided by two games together."""
        return []

    def _rate(self, name: str, outcomes: Mapping[tuple[str, int], float | None], value_of: Any) -> Metric:
        from aipo.stats import bootstrap_mean_interval

        groups: dict[str, list[float]] = {}
        for (question, _), outcome in outcomes.items():
            if outcome is not None:
                groups.setdefault(question, []).append(100 * value_of(outcome))
        n_scored = sum(map(len, groups.values()))
        if not n_scored:
            return Metric(name, float("nan"), None, 0, len(outcomes))
        interval = bootstrap_mean_interval(
            [sum(group) / len(group) for group in groups.values()],
            weights=[len(group) for group in groups.values()],
            rounds=self.bootstrap_rounds,
        )
        return Metric(name, sum(map(sum, groups.values())) / n_scored, interval, n_scored, len(outcomes) - n_scored)


def _texts(answer: Answer) -> list[str]:
    return [completion.text for completion in answer.turns]


def _preference(text: str, order: Order) -> float | None:
    winner = parse_winner(text)
    if winner is None:
        return None
    if winner == "tie":
        return 0.5
    return float((winner == "A") == (order == "policy_first"))
