"""MT-Bench: sampling, prompts byte for byte, verdicts, scores, official files."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

import pytest
from benchmark_doubles import EchoSampler, Given, ScriptedJudge, completion, our_mt_bench

from aipo.benchmarks.mt_bench import TEMPERATURES, MTBench, MTBenchAssets, single_request
from aipo.benchmarks.mt_bench_pairwise import MTBenchPairwise, match_outcome, pair_request
from aipo.benchmarks.official.mt_bench_files import (
    category_ratings,
    matches,
    ratings,
    read_answers,
    write_answers,
    write_pair_judgments,
    write_single_judgments,
)
from aipo.records import Answer, Chat, JudgeReply, Judgment, read_jsonl


@pytest.fixture
def benchmark_of_ours() -> MTBench:
    return MTBench(Given(our_mt_bench()), bootstrap_rounds=50)


def _official(data: Path) -> MTBenchAssets:
    questions = read_jsonl(data / "mt_bench/question.jsonl")
    references = read_jsonl(data / "mt_bench/reference_answer/gpt-4.jsonl")
    return MTBenchAssets(
        questions=tuple(questions),
        judge_prompts={row["name"]: row for row in read_jsonl(data / "mt_bench/judge_prompts.jsonl")},
        references={str(row["question_id"]): tuple(row["choices"][0]["turns"]) for row in references},
    )


def test_answers_two_turns_in_one_batch_per_temperature(benchmark_of_ours: MTBench) -> None:
    sampler = EchoSampler()
    answers = benchmark_of_ours.answer(sampler, seed=1)
    assert [[turn.text for turn in answer.turns] for answer in answers] == [
        ["1: a poem", "3: a shorter one"],
        ["1: one and one", "3: and one more"],
    ]
    assert [(len(chats), decoding.temperature) for chats, decoding, _ in sampler.calls] == [
        (1, 0.7), (1, 0.0), (1, 0.7), (1, 0.0),
    ]  # fmt: skip
    assert [message.role for message in sampler.calls[2][0][0]] == ["user", "assistant", "user"]
    assert len({seed for _, _, seed in sampler.calls}) == 4
    assert {decoding.max_new_tokens for _, decoding, _ in sampler.calls} == {1024}


def test_questions_of_one_temperature_share_a_batch() -> None:
    benchmark = MTBench(Given(our_mt_bench()), temperatures={}, default_temperature=0.5)
    sampler = EchoSampler()
    benchmark.answer(sampler, seed=1)
    assert [(len(chats), decoding.temperature) for chats, decoding, _ in sampler.calls] == [(2, 0.5), (2, 0.5)]


def test_judge_asks_everything_at_once_and_reads_ratings(benchmark_of_ours: MTBench) -> None:
    replies = {"Q: a poem": "[[8]]", "Q1: a poem": "nothing", "R: two Q:": "[[3]]", "R: two/three": "[[100]]"}

    def answer(chat: Chat) -> JudgeReply:
        return JudgeReply(next(text for start, text in replies.items() if chat[1].content.startswith(start)))

    judge = ScriptedJudge(answer)
    answers = benchmark_of_ours.answer(EchoSampler(), seed=1)
    judgments = benchmark_of_ours.judge(answers, judge)
    assert [len(batch) for batch in judge.batches] == [4]
    assert judge.settings == [(2048, 0.0, 0)]
    assert [(row.question_id, row.turn, row.value) for row in judgments] == [
        ("1", 1, 8.0), ("1", 2, None), ("2", 1, 3.0), ("2", 2, None),
    ]  # fmt: skip
    assert judge.batches[0][3][0].content == "Be fair (single-math-v1-multi-turn)."


def _judgment(question: str, turn: int, value: float | None) -> Judgment:
    return Judgment(question, turn, "single", value, (JudgeReply("text"),), "scripted", "0")


def _answers() -> list[Answer]:
    return [Answer(question, (completion("two words"), completion("three words now"))) for question in "12"]


def test_score_by_hand() -> None:
    benchmark = MTBench(Given(our_mt_bench()), max_unscored_share=0.25, bootstrap_rounds=50)
    judgments = [_judgment("1", 1, 8), _judgment("1", 2, 5), _judgment("2", 1, 2), _judgment("2", 2, None)]
    metrics = {metric.name: metric for metric in benchmark.score(_answers(), judgments)}
    rows = benchmark.question_scores(_answers(), judgments)
    # Both turns of question 1, one of question 2; answers of two and three words.
    assert [(row.value, row.weight, row.n_tokens) for row in rows] == [(6.5, 2, 2.5), (2, 1, 2.5)]
    assert metrics["rating"].value == 5.0
    assert (metrics["rating"].n_scored, metrics["rating"].n_unscored) == (3, 1)
    assert metrics["rating_turn_1"].value == 5.0
    assert metrics["rating_turn_2"].value == 5.0
    assert metrics["rating_writing"].value == 6.5
    assert metrics["rating_math"].value == 2.0
    assert metrics["rating"].ci95 == pytest.approx((2.0, 6.5))
    assert metrics["mean_chars"].value == (9 + 15) / 2
    assert metrics["mean_tokens"].value == 2.5
    assert {benchmark.primary_metric, benchmark.length_metric} <= set(metrics)


@pytest.mark.parametrize(
    ("judgments", "message"),
    [
        ([("1", 1, 8), ("1", 2, 5), ("2", 1, 2)], "missing \\[\\('2', 2, 'single'\\)\\]"),
        ([("1", 1, 8), ("1", 2, 5), ("2", 1, 2), ("2", 2, 2), ("2", 2, 3)], "repeated 1"),
        ([("1", 1, 8), ("1", 2, None), ("2", 1, 2), ("2", 2, 2)], "1 of 4 verdicts are unscored"),
    ],
)
def test_score_has_no_silent_gap(benchmark_of_ours: MTBench, judgments: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        benchmark_of_ours.score(_answers(), [_judgment(*row) for row in judgments])


def test_score_refuses_two_judges(benchmark_of_ours: MTBench) -> None:
    judgments = [_judgment(question, turn, 5) for question in "12" for turn in (1, 2)]
    mixed = judgments[:3] + [Judgment("2", 2, "single", 5, (), "another", "0")]
    with pytest.raises(ValueError, match=r"several judges.*\['another', 'scripted'\]"):
        benchmark_of_ours.score(_answers(), mixed)


def test_missing_answers_are_named(benchmark_of_ours: MTBench) -> None:
    with pytest.raises(ValueError, match=r"policy answers: expected each of 2 questions.*missing \['2'\]"):
        benchmark_of_ours.judge(_answers()[:1], ScriptedJudge(lambda chat: JudgeReply("[[1]]")))


def test_position_biased_judge_has_half_of_the_matches() -> None:
    benchmark = MTBenchPairwise(Given(our_mt_bench()), bootstrap_rounds=20)
    judge = ScriptedJudge(lambda chat: JudgeReply("The first. [[A]]"))
    baseline = [Answer(question, (completion("x"), completion("y"))) for question in "12"]
    judgments = benchmark.judge(_answers(), judge, baseline=baseline)
    assert [len(batch) for batch in judge.batches] == [8]
    metrics = {metric.name: metric for metric in benchmark.score(_answers(), judgments, baseline=baseline)}
    assert metrics["win_rate"].value == 50.0
    assert metrics["strict_win_rate"].value == 0.0
    assert metrics["win_rate"].n_scored == 4
    with pytest.raises(ValueError, match="no baseline answers"):
        benchmark.judge(_answers(), judge)


@pytest.mark.parametrize(
    ("games", "outcome"),
    [((1.0, 1.0), 1.0), ((0.0, 0.0), 0.0), ((1.0, 0.0), 0.5), ((0.5, 1.0), 0.5), ((None, 1.0), None)],
)
def test_match_outcome(games: tuple, outcome: float | None) -> None:
    assert match_outcome(*games) == outcome


def test_rendered_requests_byte_for_byte(data: Path) -> None:
    assets = _official(data)
    questions = {question["question_id"]: question for question in assets.questions}
    cases = json.loads((data / "fixtures/mt_bench/rendered_requests.json").read_text())
    for case in cases:
        question = questions[case["question_id"]]
        if case["kind"] == "single":
            rendered = [(single_request(assets, question, case["answer_turns"], case["turn"]), case["messages"])]
        else:
            sides = case["answer_1"], case["answer_2"]
            rendered = [
                (pair_request(assets, question, *sides, case["turn"], order), case[f"game{number}_messages"])
                for number, order in ((1, "policy_first"), (2, "baseline_first"))
            ]
        for request, messages in rendered:
            assert [{"role": message.role, "content": message.content} for message in request.chat] == messages
    assert len(cases) == 16


def test_show_result_numbers(data: Path) -> None:
    expected = json.loads((data / "fixtures/mt_bench/expected.json").read_text())
    rows = read_jsonl(data / "fixtures/mt_bench/judgments_single.jsonl")
    for key, table in (
        ("official_show_result", ratings(rows)),
        ("dedup_keep_last", ratings(rows, keep_last=True)),
        ("official_model_list_model-b", ratings([row for row in rows if row["model"] == "model-b"])),
    ):
        for name, field in (("first_turn", "turn_1"), ("second_turn", "turn_2"), ("average", "average")):
            found = {row.policy: getattr(row, field) for row in table}
            assert found == pytest.approx(expected[key][name], abs=1e-12)
    assert sum(row.n_unscored for row in ratings(rows)) == expected["counts"]["failed"]
    categories = {str(row["question_id"]): row["category"] for row in read_jsonl(data / "mt_bench/question.jsonl")}
    for policy, values in expected["per_category_pooled_over_turns"]["values"].items():
        assert category_ratings(rows, categories, policy) == pytest.approx(values, abs=1e-12)


def test_pairwise_numbers(data: Path) -> None:
    expected = json.loads((data / "fixtures/mt_bench/expected.json").read_text())
    rows = read_jsonl(data / "fixtures/mt_bench/judgments_pair.jsonl")
    for baseline, wanted in (
        ("model-c", expected["official_pairwise_baseline"]["rows"]),
        (None, expected["official_pairwise_all"]),
    ):
        table = matches(rows, baseline=baseline)
        assert [(row.policy, row.wins, row.losses, row.ties) for row in table] == [
            (row["model"], row["win"], row["loss"], row["tie"]) for row in wanted
        ]
        for row, official in zip(table, wanted, strict=True):
            for name in ("win_rate", "loss_rate", "win_rate_adjusted"):
                assert getattr(row, name) == pytest.approx(official[name], abs=1e-15)


def test_our_files_through_show_result(
    tmp_path: Path, benchmark_of_ours: MTBench, capsys: pytest.CaptureFixture[str]
) -> None:
    from argparse import Namespace

    from fastchat.llm_judge.show_result import display_result_pairwise, display_result_single

    scores = iter([7, 4, 9, 2])
    judge = ScriptedJudge(lambda chat: JudgeReply(f"Rating: [[{next(scores)}]]"), name="judge")
    judgments = benchmark_of_ours.judge(_answers(), judge)
    write_answers(tmp_path / "answers.jsonl", _answers(), "ours")
    write_single_judgments(tmp_path / "single.jsonl", our_mt_bench(), _answers(), judgments, "ours")
    name, answers = read_answers(tmp_path / "answers.jsonl")
    assert name == "ours"
    assert [[turn.text for turn in answer.turns] for answer in answers] == [["two words", "three words now"]] * 2
    settings = Namespace(input_file=str(tmp_path / "single.jsonl"), bench_name="mt_bench", model_list=None)
    display_result_single(settings)
    printed = capsys.readouterr().out
    numbers = [line.split()[-1] for line in printed.splitlines() if line.startswith("ours")]
    metrics = {metric.name: metric.value for metric in benchmark_of_ours.score(_answers(), judgments)}
    wanted = [metrics["rating_turn_1"], metrics["rating_turn_2"], metrics["rating"]]
    assert [float(number) for number in numbers] == wanted == [8.0, 3.0, 5.5]

    pairwise = MTBenchPairwise(Given(our_mt_bench()), bootstrap_rounds=20)
    baseline = [Answer(question, (completion("x"), completion("y"))) for question in "12"]
    # Match outcomes: win (A then B), tie (disagreement), loss (B then A), tie.
    winners = iter("ABAABACC")
    pair_judge = ScriptedJudge(lambda chat: JudgeReply(f"[[{next(winners)}]]"), name="judge")
    games = pairwise.judge(_answers(), pair_judge, baseline=baseline)
    write_pair_judgments(tmp_path / "pair.jsonl", our_mt_bench(), _answers(), baseline, games, "ours", "theirs")
    display_result_pairwise(
        Namespace(input_file=str(tmp_path / "pair.jsonl"), model_list=None, baseline_model="theirs")
    )
    row = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("ours"))
    scored = {metric.name: metric.value for metric in pairwise.score(_answers(), games, baseline=baseline)}
    assert [float(value) for value in row[1:]] == [1, 1, 2, 0.25, 0.25, 0.5]
    assert [scored[name] for name in ("strict_win_rate", "loss_rate", "win_rate")] == [25, 25, 50]


def test_unscored_is_minus_one_in_the_official_file(tmp_path: Path) -> None:
    judgments = [_judgment("1", 1, None), _judgment("1", 2, 6.5), _judgment("2", 1, 3), _judgment("2", 2, 4)]
    write_single_judgments(tmp_path / "single.jsonl", our_mt_bench(), _answers(), judgments, "ours")
    rows = read_jsonl(tmp_path / "single.jsonl")
    assert [row["score"] for row in rows] == [-1, 6.5, 3, 4]
    assert rows[0]["judge"] == ["scripted", "single-v1"]
    assert rows[3]["judge"] == ["scripted", "single-math-v1-multi-turn"]
    assert rows[0]["question_id"] == 1
    assert rows[0]["user_prompt"] == "Q: a poem A: two words"


def test_constants_are_fastchats() -> None:
    """Read from the source: importing llm_judge.common needs clients of other providers."""
    import fastchat

    source = Path(importlib.util.find_spec("fastchat").origin).parent / "llm_judge/common.py"
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("temperature_config", "NEED_REF_CATS")
    }
    assert fastchat.__version__ == "0.2.36"
    assert {**TEMPERATURES, "arena-hard-200": 0.0} == constants["temperature_config"]
    from aipo.benchmarks.official.questions import REFERENCE_CATEGORIES

    assert {*REFERENCE_CATEGORIES, "arena-hard-200"} == set(constants["NEED_REF_CATS"])
