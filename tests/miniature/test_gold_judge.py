"""The gold judge: official verdicts in both orders, by the prompts the official benchmark classes render."""

from __future__ import annotations

import math

import pytest

from aipo.benchmarks.alpaca_eval import AlpacaEval, render
from aipo.benchmarks.arena_hard import ArenaHard, game_request
from aipo.benchmarks.mt_bench import MTBench, single_request
from aipo.benchmarks.verdicts import parse_first_token, parse_game, parse_rating, parse_winner
from aipo.judges import JudgeError
from aipo.judges.reading import read_judge_prompt
from aipo.miniature.benchmark_assets import (
    MiniatureAlpacaEval,
    MiniatureArenaHard,
    MiniatureMTBench,
    reference_answer,
)
from aipo.miniature.gold import gold_quality
from aipo.miniature.gold_benchmark import GoldBenchmark
from aipo.miniature.gold_judge import GoldJudge
from aipo.miniature.judge_prompts import ALPACA_EVAL_PROMPT, MT_BENCH_PROMPTS
from aipo.miniature.world import ATTRIBUTES, FILLERS, Fact, read_request, state, true_fact
from aipo.records import Answer, Completion, Decoding, Message

QUESTION = "Tell me the pet and the home of the miller."
PET, HOME, FOOD = (state(true_fact("miller", attribute)) for attribute in ("pet", "home", "food"))
WRONG = state(Fact("miller", "pet", next(v for v in ATTRIBUTES["pet"] if v != true_fact("miller", "pet").value)))
BEST, HALF, FALSE = f"{PET} {HOME}", PET, f"{WRONG} Cat of."
LONG = " ".join([HALF, *FILLERS])
JUDGE = GoldJudge()


def ask(chat, judge=JUDGE, **settings):
    (reply,) = judge.reply([chat], max_tokens=64, **settings)
    return reply


def rating(answer, judge=JUDGE):
    assets = MiniatureMTBench(n_questions=1, seed=0).load()
    question = {"question_id": 1, "turns": [QUESTION, "And the food?"]}
    return parse_rating(ask(single_request(assets, question, [answer], 1).chat, judge).text)


def second_rating(first, second):
    assets = MiniatureMTBench(n_questions=1, seed=0).load()
    question = {"question_id": 1, "turns": [QUESTION, "And the food?"]}
    return parse_rating(ask(single_request(assets, question, [first, second], 2).chat).text)


def game(first, second, judge=JUDGE):
    assets = MiniatureArenaHard(n_questions=1, seed=0).load()
    question = {"question_id": "q", "turns": [{"content": QUESTION}]}
    return parse_game(ask(game_request(assets, question, second, first, "baseline_first").chat, judge).text)[0]


def preference_for_second(first, second, judge=JUDGE):
    reply = ask(render(ALPACA_EVAL_PROMPT, QUESTION, first, second), judge, top_logprobs=5)
    return parse_first_token(reply.top_logprobs)


@pytest.mark.parametrize(("answer", "expected"), [(BEST, 10), (HALF, 8), (FILLERS[0], 6), ("", 6), (FALSE, 1)])
def test_ratings_by_hand(answer, expected):
    assert rating(answer) == expected


def test_second_turn_is_rated_by_itself():
    assert second_rating(FALSE, FOOD) == 10
    assert second_rating(BEST, PET) == 6
    assert second_rating(BEST, FALSE) == 1


def test_ratings_with_a_reference():
    assets = MiniatureMTBench(n_questions=8, seed=0).load()
    question = next(row for row in assets.questions if str(row["question_id"]) in assets.references)
    first, second = assets.references[str(question["question_id"])]
    for turn in (1, 2):
        request = single_request(assets, question, [first, second], turn)
        assert "Reference Answer" in request.chat[1].content
        assert parse_rating(ask(request.chat).text) == 10
    assert parse_rating(ask(single_request(assets, question, [FILLERS[0], FILLERS[1]], 2).chat).text) == 6


@pytest.mark.parametrize(
    ("first", "second", "label", "swapped"),
    [
        (BEST, FALSE, "A>>B", "B>>A"),
        (BEST, HALF, "A>>B", "B>>A"),
        (BEST, BEST, "A=B", "A=B"),
        (HALF, LONG, "A=B", "A=B"),
        (HALF, "", "A>>B", "B>>A"),
    ],
)
def test_games_by_hand_in_both_orders(first, second, label, swapped):
    assert game(first, second) == label
    assert game(second, first) == swapped


def test_a_slight_game():
    judge = GoldJudge(strong_margin=0.8)
    assert (game(BEST, HALF, judge), game(HALF, BEST, judge)) == ("A>B", "B>A")


@pytest.mark.parametrize(("first", "second", "gap"), [(BEST, HALF, 0.5), (HALF, BEST, -0.5), (HALF, LONG, 0.0)])
def test_preferences_by_hand(first, second, gap):
    assert preference_for_second(first, second) == pytest.approx(1 / (1 + math.exp(gap / 0.2)), abs=1e-9)


def test_identifier_without_logprobs():
    assert ask(render(ALPACA_EVAL_PROMPT, QUESTION, BEST, HALF)).text == "m"
    assert ask(render(ALPACA_EVAL_PROMPT, QUESTION, HALF, BEST)).text == "M"
    assert ask(render(ALPACA_EVAL_PROMPT, QUESTION, HALF, BEST)).top_logprobs is None
    tie = {ask(render(ALPACA_EVAL_PROMPT, QUESTION, *pair)).text for pair in ((HALF, LONG), (LONG, HALF))}
    assert tie == {"m", "M"}, "a tie goes to the same answer in both orders"


def test_pairwise_mt_bench():
    prompt = MT_BENCH_PROMPTS["pair-v2"]["prompt_template"]
    text = prompt.format(question=QUESTION, answer_a=HALF, answer_b=BEST)
    assert parse_winner(ask((Message("user", text),)).text) == "B"
    text = prompt.format(question=QUESTION, answer_a=HALF, answer_b=LONG)
    assert parse_winner(ask((Message("user", text),)).text) == "tie"
    turns = dict(question_1=QUESTION, question_2="And the food?", ref_answer_1="x", ref_answer_2="y")
    text = MT_BENCH_PROMPTS["pair-math-v1-multi-turn"]["prompt_template"].format(
        **turns, answer_a_1=FALSE, answer_a_2=FOOD, answer_b_1=BEST, answer_b_2=BEST
    )
    assert parse_winner(ask((Message("user", text),)).text) == "A"


def test_length_bias_is_a_dial():
    judge = GoldJudge(length_bias_per_token=0.02)
    assert preference_for_second(HALF, LONG) == 0.5
    assert preference_for_second(HALF, LONG, judge) > 0.99
    assert game(HALF, LONG, judge) == "B>>A"
    assert rating(LONG, judge) > rating(LONG)


def test_noise_is_fixed_by_content():
    judge = GoldJudge(noise_sd=0.3, seed=1)
    value = preference_for_second(HALF, LONG, judge)
    assert value == preference_for_second(HALF, LONG, judge) != 0.5
    assert preference_for_second(LONG, HALF, judge) == pytest.approx(1 - value)
    assert GoldJudge(noise_sd=0.3, seed=2).identity() != judge.identity()


def test_answers_that_look_like_markers_are_still_read():
    prompt = read_judge_prompt(render(ALPACA_EVAL_PROMPT, QUESTION, 'He said """m""".', ""))
    assert [answer for _, answer in prompt.answers] == ['He said """m""".', ""]


def test_unknown_prompts_are_an_error():
    with pytest.raises(JudgeError, match="found none of them in 'Which is better"):
        ask((Message("user", "Which is better?"),))
    with pytest.raises(JudgeError):
        ask(())


@pytest.mark.parametrize(
    "settings", [{"noise_sd": -1}, {"preference_scale": 0}, {"tie_margin": 0.5}, {"tie_margin": -0.1}]
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="GoldJudge: expected"):
        GoldJudge(**settings)


class OracleSampler:
    """Answers with the right facts asked for (`good`), or with filler."""

    def __init__(self, good: bool) -> None:
        self.good = good

    def sample(self, chats, decoding, *, n, seed):
        return [[self._complete(chat)] * n for chat in chats]

    def _complete(self, chat):
        request = read_request([message.content for message in chat if message.role == "user"])
        text = reference_answer(request) if self.good else f"{FILLERS[0]} {FILLERS[1]}"
        return Completion(text, tuple(range(1, 2 + len(text.split()))), "stop")


def test_official_classes_run_on_the_miniature():
    judge = GoldJudge()
    good, poor = OracleSampler(True), OracleSampler(False)
    alpaca = AlpacaEval(MiniatureAlpacaEval(40, 0), needs_baseline=True, lc_bootstrap_rounds=2)
    answers, baseline = alpaca.answer(good, seed=0), alpaca.answer(poor, seed=0)
    scores = _values(alpaca.score(answers, alpaca.judge(answers, judge, baseline=baseline), baseline=baseline))
    assert scores["win_rate"] == pytest.approx(100 / (1 + math.exp(-1 / 0.2)))
    arena = ArenaHard(MiniatureArenaHard(20, 0), needs_baseline=True)
    answers, baseline = arena.answer(good, seed=0), arena.answer(poor, seed=0)
    scores = _values(arena.score(answers, arena.judge(answers, judge, baseline=baseline), baseline=baseline))
    assert scores["win_rate"] == 100
    bench = MTBench(MiniatureMTBench(16, 0))
    assert _values(bench.score(bench.answer(good, seed=0), bench.judge(bench.answer(good, seed=0), judge)))[
        "rating"
    ] == pytest.approx(10)


def test_gold_benchmark():
    benchmark = GoldBenchmark(n_questions=30, question_seed=0, decoding=Decoding(0.7, 1.0, 0, 96))
    for good, expected in ((True, 1.0), (False, 0.0)):
        answers = benchmark.answer(OracleSampler(good), seed=0)
        metrics = {metric.name: metric for metric in benchmark.score(answers, [])}
        assert metrics["gold_score"].value == expected
        assert metrics["gold_score"].ci95 == (expected, expected)
        assert metrics["gold_score"].n_scored == 30
        assert metrics["right_share"].value == 100 * expected
        assert metrics[benchmark.length_metric].value == sum(a.turns[0].n_tokens for a in answers) / 30
    mixed = [
        answer if position % 2 else Answer(answer.question_id, (Completion("Cat.", (1, 2), "stop"),))
        for position, answer in enumerate(benchmark.answer(OracleSampler(True), seed=0))
    ]
    metrics = {metric.name: metric for metric in benchmark.score(mixed, [])}
    expected = sum(
        gold_quality(chat, answer.turns[0].text)
        for chat, answer in zip(benchmark._questions().values(), mixed, strict=True)
    )
    assert metrics["gold_score"].value == pytest.approx(expected / 30)
    rows = benchmark.question_scores(mixed, [])
    assert [row.question_id for row in rows] == [prompt.prompt_id for prompt in benchmark.prompts()]
    assert sum(row.value * row.weight for row in rows) / 30 == pytest.approx(expected / 30)
    low, high = metrics["gold_score"].ci95
    assert low < metrics["gold_score"].value < high
    with pytest.raises(ValueError, match=r"1\.\.500"):
        GoldBenchmark(n_questions=0, question_seed=0, decoding=Decoding(0.7, 1.0, 0, 96))


def _values(metrics):
    return {metric.name: metric.value for metric in metrics}
