"""Arena-Hard: games, retry turn, scores, official files and table, token counts."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
import yaml
from benchmark_doubles import EchoSampler, Given, ScriptedJudge, completion, our_arena_hard

from aipo.benchmarks.arena_hard import ORDERS, RETRY_MESSAGE, ArenaHard, ArenaHardAssets, game_outcome, game_value
from aipo.benchmarks.official.arena_hard_files import (
    read_answers,
    read_judgments,
    standings,
    write_answers,
    write_judgments,
)
from aipo.benchmarks.token_counters import EstimatedTokens, PolicyTokens, estimate_cl100k
from aipo.records import Answer, Chat, Completion, JudgeReply, Judgment, read_jsonl

BASELINE = "gpt-4-0314"


def _answers(n_questions: int = 3) -> list[Answer]:
    return [Answer(f"q{number}", (completion(f"policy solves {number}"),)) for number in range(n_questions)]


def _policy_is_a(chat: Chat) -> bool:
    return "[A] policy" in chat[1].content


def test_two_games_in_one_batch() -> None:
    benchmark = ArenaHard(Given(our_arena_hard()), bootstrap_rounds=20)
    judge = ScriptedJudge(lambda chat: JudgeReply("[[A>>B]]" if _policy_is_a(chat) else "[[B>A]]"))
    judgments = benchmark.judge(_answers(), judge)
    assert [len(batch) for batch in judge.batches] == [6]
    assert judge.settings == [(4096, 0.0, 0)]
    assert [(row.order, row.value) for row in judgments[:2]] == [("baseline_first", 0.75), ("policy_first", 1.0)]


def test_only_games_without_a_label_are_asked_again() -> None:
    script = {
        ("q0", "baseline_first"): ["no verdict", "now [[B>A]]"],
        ("q0", "policy_first"): ["[[A=B]]"],
        ("q1", "baseline_first"): ["[[A>B]] or [[B>A]]"],
        ("q1", "policy_first"): ["no", "no"],
    }

    def answer(chat: Chat) -> JudgeReply:
        question = "q" + chat[1].content.split("\n")[0].split()[1]
        replies = script[question, "policy_first" if _policy_is_a(chat) else "baseline_first"]
        if len(chat) == 4:
            assert chat[2].content == replies[0]
            assert chat[3].content == RETRY_MESSAGE
        return JudgeReply(replies[(len(chat) - 2) // 2])

    judge = ScriptedJudge(answer)
    judgments = ArenaHard(Given(our_arena_hard(2))).judge(_answers(2), judge)
    assert [len(batch) for batch in judge.batches] == [4, 2]
    assert [row.value for row in judgments] == [0.75, 0.5, None, None]
    assert [len(row.replies) for row in judgments] == [2, 1, 1, 2]


def _judgment(question: str, order: str, value: float | None) -> Judgment:
    return Judgment(question, 1, order, value, (JudgeReply("x"),), "scripted", "0")  # type: ignore[arg-type]


def test_score_by_hand() -> None:
    benchmark = ArenaHard(Given(our_arena_hard(2)), bootstrap_rounds=100, max_unscored_share=0.25)
    values = {("q0", 0): 1.0, ("q0", 1): 0.25, ("q1", 0): 0.5, ("q1", 1): None}
    judgments = [_judgment(question, ORDERS[game], value) for (question, game), value in values.items()]
    metrics = {metric.name: metric for metric in benchmark.score(_answers(2), judgments)}
    # 3 wins (strong), 1 loss, 1 tie: 3.5 of 5 weighted games.
    assert metrics["win_rate"].value == pytest.approx(70)
    assert (metrics["win_rate"].n_scored, metrics["win_rate"].n_unscored) == (3, 1)
    # Resampled questions: q0 alone is 3/4, q1 alone 1/2.
    assert metrics["win_rate"].ci95 == pytest.approx((50, 75))
    assert metrics["win_rate_game_1"].value == pytest.approx(100 * 3.5 / 4)
    assert metrics["win_rate_game_2"].value == 0
    assert metrics["mean_tokens"].value == 3
    rows = benchmark.question_scores(_answers(2), judgments)
    assert [(row.value, row.weight, row.n_tokens) for row in rows] == [(75, 4, 3), (50, 1, 3)]
    assert benchmark.length_metric == "mean_tokens"


def test_position_biased_judge_is_even_over_both_games() -> None:
    benchmark = ArenaHard(Given(our_arena_hard(6)), bootstrap_rounds=20)
    judgments = benchmark.judge(_answers(6), ScriptedJudge(lambda chat: JudgeReply("[[A>>B]]")))
    metrics = {metric.name: metric.value for metric in benchmark.score(_answers(6), judgments)}
    assert (metrics["win_rate"], metrics["win_rate_game_1"], metrics["win_rate_game_2"]) == (50, 0, 100)


def test_one_sided_games_have_a_rate_but_no_official_interval() -> None:
    benchmark = ArenaHard(Given(our_arena_hard(3)), bootstrap_rounds=20)
    judge = ScriptedJudge(lambda chat: JudgeReply("[[A>B]]" if _policy_is_a(chat) else "[[B>A]]"))
    metrics = {metric.name: metric for metric in benchmark.score(_answers(), benchmark.judge(_answers(), judge))}
    assert metrics["win_rate"].value == 100
    assert metrics["win_rate_pooled_ci"].ci95 is None


def test_labels_without_meaning_are_unscored() -> None:
    assert game_value("A<B", "baseline_first") is None
    assert game_value(None, "policy_first") is None
    assert game_value("A>>B", "policy_first") == 1.0
    assert [game_outcome(value) for value in (0.0, 0.25, 0.5, 0.75, 1.0)] == [
        (0.0, 3), (0.0, 1), (0.5, 1), (1.0, 1), (1.0, 3),
    ]  # fmt: skip


def test_baseline_answers_are_required_where_assets_bring_none() -> None:
    assets = Given(our_arena_hard(baseline_answers=None))
    judge = ScriptedJudge(lambda chat: JudgeReply("[[A=B]]"))
    with pytest.raises(ValueError, match="set needs_baseline: true"):
        ArenaHard(assets).judge(_answers(), judge)
    with pytest.raises(ValueError, match="got none"):
        ArenaHard(assets, needs_baseline=True).judge(_answers(), judge)
    judgments = ArenaHard(assets, needs_baseline=True).judge(_answers(), judge, baseline=_answers())
    assert [row.value for row in judgments] == [0.5] * 6


def test_answering_is_greedy() -> None:
    sampler = EchoSampler()
    answers = ArenaHard(Given(our_arena_hard(2))).answer(sampler, seed=3)
    assert [answer.turns[0].text for answer in answers] == ["1: problem 0", "1: problem 1"]
    ((_, decoding, seed),) = sampler.calls
    assert (decoding.temperature, decoding.max_new_tokens, seed) == (0.0, 4096, 3)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="max_unscored_share: expected a share"):
        ArenaHard(Given(our_arena_hard()), max_unscored_share=5)
    with pytest.raises(ValueError, match="judge_attempts"):
        ArenaHard(Given(our_arena_hard()), judge_attempts=0)


def test_rendered_requests_byte_for_byte(data: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((data / "arena_hard/judge_config.yaml").read_text())
    cases = json.loads((data / "fixtures/arena_hard/rendered_requests.json").read_text())["cases"]
    for number, case in enumerate(cases):
        assets = ArenaHardAssets(
            questions=(case["question"],),
            baseline_answers={"q1": case["baseline_answer"]},
            system_prompt=config["system_prompt"],
            prompt_template=config["prompt_template"][0],
        )
        # Replies are listed game by game; we ask all first turns before any second.
        script: dict[str, list[str]] = {}
        requests = [[(row["role"], row["content"]) for row in request] for request in case["requests"]]
        for request, reply in zip(requests, case["replies"], strict=True):
            script.setdefault(request[1][1], []).append(reply)
        judge = ScriptedJudge(lambda chat, script=script: JudgeReply(script[chat[1].content][(len(chat) - 2) // 2]))
        answers = [Answer("q1", (completion(case["model_answer"]),))]
        judgments = ArenaHard(Given(assets)).judge(answers, judge)
        sent = [[(message.role, message.content) for message in chat] for batch in judge.batches for chat in batch]
        assert sorted(sent) == sorted(requests)
        file = tmp_path / f"{number}.jsonl"
        write_judgments(file, assets, answers, assets.baseline_answers or {}, judgments, "model-x")
        (written,) = read_jsonl(file)
        assert written == case["record"] | {"judge": "scripted"}
    assert len(cases) == 3


@pytest.mark.parametrize(
    ("key", "options"),
    [("default", {}), ("first_game_only", {"first_game_only": True}), ("weight_1", {"strong_weight": 1})],
)
def test_official_table(data: Path, key: str, options: dict) -> None:
    folder = data / "fixtures/arena_hard"
    expected = json.loads((folder / "expected.json").read_text())[key]
    judgments = dict(read_judgments(file) for file in sorted((folder / "model_judgment").glob("*.jsonl")))
    table = {row.policy: row for row in standings(judgments, baseline=BASELINE, **options)}
    assert {name: row.rating for name, row in table.items()} == pytest.approx(expected["elo"], abs=1e-7)
    assert table[BASELINE].n_battles == expected["n_battles"]
    for name, row in table.items():
        official = expected["win_rate_pct"][name]
        rounded = [round(value, 2) for value in (row.win_rate, *row.interval)]
        assert rounded == [official["score"], official["lower"], official["upper"]]
        ci = expected["elo_ci"][name]
        assert row.rating_interval == pytest.approx((ci["lower"], ci["upper"]), abs=1e-5)
        if name != BASELINE:
            assert row.n_battles == sum(expected["battle_counts"][name].values())
            assert row.win_rate == pytest.approx(expected["win_rate_closed_form_pct"][name], abs=1e-4)


def test_token_lengths_of_official_files(data: Path) -> None:
    folder = data / "fixtures/arena_hard"
    expected = json.loads((folder / "expected.json").read_text())["avg_tokens"]
    found = [read_answers(file) for file in (folder / "model_answer").glob("*.jsonl")]
    assert {model: int(mean) for model, _, mean in found if mean is not None} == expected


def test_estimated_tokens(data: Path) -> None:
    with gzip.open(data / "arena_hard/token_lengths.csv.gz", "rt") as file:
        counts = {(row["model"], row["question_id"]): int(row["token_len"]) for row in csv.DictReader(file)}
    for model in ("gpt-4-0314", "gpt-3.5-turbo-0125"):
        _, answers, mean = read_answers(data / f"arena_hard/model_answer/{model}.jsonl")
        pairs = [(estimate_cl100k(answer.turns[0].text), counts[model, answer.question_id]) for answer in answers]
        assert sum(estimate for estimate, _ in pairs) / sum(count for _, count in pairs) == pytest.approx(1, abs=0.0015)
        errors = [abs(estimate / count - 1) for estimate, count in pairs if count]
        assert sum(errors) / len(errors) == pytest.approx(0.05, abs=0.003)
        assert mean is None or mean == pytest.approx(sum(count for _, count in pairs) / len(pairs))


def test_token_counters_name_what_they_count() -> None:
    turns = [completion("four words stand here"), completion("")]
    assert PolicyTokens().count([*turns, Completion("", (), "length")]) == [4, 0, 0]
    assert EstimatedTokens().count(turns) == [4, 0]
    assert EstimatedTokens().metric.endswith("estimated")
    benchmark = ArenaHard(Given(our_arena_hard(2)), token_counter=EstimatedTokens())
    judge = ScriptedJudge(lambda chat: JudgeReply("[[A=B]]"))
    names = [metric.name for metric in benchmark.score(_answers(2), benchmark.judge(_answers(2), judge))]
    assert benchmark.length_metric == "mean_tokens_cl100k_estimated"
    assert names.count(benchmark.length_metric) == 1


def test_answers_round_trip(tmp_path: Path) -> None:
    write_answers(tmp_path / "a.jsonl", _answers(), "ours", [3, 4, 5])
    model, answers, mean = read_answers(tmp_path / "a.jsonl")
    assert (model, [answer.turns[0].text for answer in answers], mean) == (
        "ours", [answer.turns[0].text for answer in _answers()], 4,
    )  # fmt: skip
    with pytest.raises(ValueError, match="carry no policy token ids"):
        PolicyTokens().count([answer.turns[0] for answer in answers])
    write_answers(tmp_path / "b.jsonl", _answers(), "ours")
    assert read_answers(tmp_path / "b.jsonl")[2] is None
