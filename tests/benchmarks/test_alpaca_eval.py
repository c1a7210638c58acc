"""AlpacaEval: order, prompts byte for byte, verdicts, scores, official files, 29 real models."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from benchmark_doubles import EchoSampler, Given, ScriptedJudge, completion, our_alpaca_eval

from aipo.benchmarks.alpaca_eval import (
    AlpacaEval,
    TextAnnotator,
    difficulty_by_row,
    gamed_rows,
    is_switched,
    pairwise_request,
    preference_metrics,
    render,
)
from aipo.benchmarks.official.alpaca_eval_files import (
    answers_of,
    leaderboard_row,
    official_preference,
    read_annotations,
    read_outputs,
    write_annotations,
    write_outputs,
)
from aipo.judges import JudgeError
from aipo.records import Answer, Chat, JudgeReply
from aipo.stats import length_controlled, win_rate


def _answers(n_items: int, text: str = "policy says {}") -> list[Answer]:
    return [Answer(str(number), (completion(text.format(number)),)) for number in range(n_items)]


def _prefers(policy: float) -> ScriptedJudge:
    """A judge that gives the policy's output this probability, wherever it stands."""

    def answer(chat: Chat) -> JudgeReply:
        policy_first = chat[1].content.splitlines()[1].startswith("1) policy")
        first = policy if policy_first else 1 - policy
        return JudgeReply("m", {"m": math.log(first), "M": math.log(1 - first)})

    return ScriptedJudge(answer)


def test_is_switched(data: Path) -> None:
    cases = json.loads((data / "fixtures/alpaca_parser_prompt.json").read_text())["is_switched_outputs"]
    assert [is_switched(case["instruction"]) for case in cases] == [case["seed0"] for case in cases]
    meta = pd.read_csv(data / "alpaca_eval/instruction_meta.csv")
    rows = json.loads((data / "alpaca_eval/alpaca_eval_gpt4_baseline.json").read_text())
    assert [int(is_switched(row["instruction"])) for row in rows] == meta.is_switched_outputs.tolist()


def test_render_fills_one_placeholder_after_another() -> None:
    template = "<|im_start|>user\n{instruction}|{output_1}|{output_2}\n<|im_end|>"
    (message,) = render(template, "say {output_2}", "one", "two") or ()
    assert (message.role, message.content) == ("user", "say two|one|{output_2}")
    assert render(template, "plain {braces}", "{x}", "y")[0].content == "plain {braces}|{x}|y"


def test_render_refuses_broken_chats() -> None:
    template = "<|im_start|>user\n{instruction}|{output_1}|{output_2}\n<|im_end|>"
    assert render(template, "i", "<|im_start|>tool\nx", "b") is None
    assert render("no markers {instruction}", "i", "a", "b") is None


def test_rendered_requests_byte_for_byte(data: Path) -> None:
    cases = json.loads((data / "fixtures/alpaca_parser_prompt.json").read_text())["prompts"]
    # The official template is not among the files: the first rendered request gives it back.
    first = cases[0]
    template = "\n".join(
        f"<|im_start|>{message['role']}\n{message['content']}\n<|im_end|>" for message in first["chatml_messages"]
    )
    assert not is_switched(first["instruction"])
    for name in ("instruction", "output_1", "output_2"):
        assert template.count(first[name]) == 1
        template = template.replace(first[name], "{" + name + "}")
    for case in cases:
        order = "policy_first" if is_switched(case["instruction"]) else "baseline_first"
        request = pairwise_request(template, 0, case["instruction"], case["output_2"], case["output_1"], order)
        messages = [{"content": message.content, "role": message.role} for message in request.chat]
        assert messages == case["chatml_messages"]


def test_judge_sends_one_batch_and_turns_switched_verdicts_round() -> None:
    benchmark = AlpacaEval(Given(our_alpaca_eval(6)))
    judge = _prefers(0.8)
    judgments = benchmark.judge(_answers(6), judge)
    assert [len(batch) for batch in judge.batches] == [6]
    assert judge.settings == [(1, 1.0, 5)]
    assert [row.value for row in judgments] == pytest.approx([0.8] * 6)
    assert {row.order for row in judgments} == {"baseline_first", "policy_first"}


def test_equal_outputs_tie_without_a_request() -> None:
    benchmark = AlpacaEval(Given(our_alpaca_eval(3)))
    judge = _prefers(0.8)
    answers = _answers(3)
    answers[1] = Answer("1", (completion("baseline says 1"),))
    judgments = benchmark.judge(answers, judge)
    assert [len(batch) for batch in judge.batches] == [2]
    assert judgments[1].value == 0.5
    assert judgments[1].replies == ()


def test_position_biased_judge_is_even_when_both_orders_are_asked() -> None:
    benchmark = AlpacaEval(Given(our_alpaca_eval(9)), both_orders=True, lc_bootstrap_rounds=2)
    judge = ScriptedJudge(lambda chat: JudgeReply("m", {"m": math.log(0.9), "M": math.log(0.1)}))
    judgments = benchmark.judge(_answers(9), judge)
    assert [len(batch) for batch in judge.batches] == [18]
    assert [row.value for row in judgments] == pytest.approx([0.1, 0.9] * 9)
    metrics = {metric.name: metric for metric in benchmark.score(_answers(9), judgments)}
    assert metrics["win_rate"].value == pytest.approx(50)
    assert metrics["win_rate"].n_scored == 9
    cut = [replace(judgments[0], value=None), *judgments[1:]]
    rows = benchmark.question_scores(_answers(9), cut)
    # One verdict of two is missing: the item is unscored, as in the win rate.
    assert (rows[0].value, rows[0].weight) == (None, 0)
    assert [row.value for row in rows[1:]] == pytest.approx([50] * 8)


def test_one_unscored_order_leaves_the_item_unscored() -> None:
    benchmark = AlpacaEval(
        Given(our_alpaca_eval(9)), both_orders=True, annotator=TextAnnotator(), max_unscored_share=0.1
    )
    judge = ScriptedJudge(lambda chat: JudgeReply("?" if "task 4\n1) policy" in chat[1].content else "m"))
    metrics = {metric.name: metric for metric in benchmark.score(_answers(9), benchmark.judge(_answers(9), judge))}
    assert (metrics["win_rate"].n_scored, metrics["win_rate"].n_unscored) == (8, 1)
    assert metrics["win_rate"].value == 50


def test_no_log_probs_is_a_clear_refusal() -> None:
    benchmark = AlpacaEval(Given(our_alpaca_eval()))
    with pytest.raises(JudgeError, match="alpaca_eval_text"):
        benchmark.judge(_answers(4), ScriptedJudge(lambda chat: JudgeReply("m")))


def test_text_annotator() -> None:
    benchmark = AlpacaEval(Given(our_alpaca_eval(8)), annotator=TextAnnotator())
    judge = ScriptedJudge(lambda chat: JudgeReply("m"))
    judgments = benchmark.judge(_answers(8), judge)
    assert judge.settings == [(5, 0.0, 0)]
    assert [row.value for row in judgments] == [float(row.order == "policy_first") for row in judgments]
    unsure = benchmark.judge(_answers(8), ScriptedJudge(lambda chat: JudgeReply("hard to say")))
    assert {row.value for row in unsure} == {None}
    with pytest.raises(ValueError, match="8 of 8 verdicts are unscored"):
        benchmark.score(_answers(8), unsure)


def test_score_by_hand() -> None:
    benchmark = AlpacaEval(Given(our_alpaca_eval(10)), bootstrap_rounds=50, lc_bootstrap_rounds=5)
    answers = _answers(10)
    judgments = benchmark.judge(answers, _prefers(0.8))
    metrics = {metric.name: metric for metric in benchmark.score(answers, judgments)}
    assert metrics["win_rate"].value == pytest.approx(80)
    assert metrics["win_rate"].ci95 == pytest.approx((80, 80))
    assert metrics["discrete_win_rate"].value == 100
    assert metrics["standard_error"].value == pytest.approx(0, abs=1e-12)
    assert metrics["mean_chars"].value == len("policy says 0")
    assert metrics["mean_tokens"].value == 3
    # Every output is as much shorter as every other: length explains nothing. The penalty pulls a little towards 50.
    assert metrics["lc_win_rate"].value == pytest.approx(80, abs=0.5)
    assert {benchmark.primary_metric, benchmark.length_metric} <= set(metrics)


def test_baseline_against_itself_is_fifty_by_definition() -> None:
    benchmark = AlpacaEval(Given(our_alpaca_eval(4)))
    answers = _answers(4, "baseline says {}")
    judge = _prefers(0.9)
    metrics = {metric.name: metric for metric in benchmark.score(answers, benchmark.judge(answers, judge))}
    assert judge.batches == []
    assert (metrics["lc_win_rate"].value, metrics["win_rate"].value) == (50, 50)


def test_baseline_answers_are_required_where_assets_bring_none() -> None:
    assets = Given(our_alpaca_eval(5, baseline_outputs=None))
    answers = _answers(5)
    with pytest.raises(ValueError, match="set needs_baseline: true"):
        AlpacaEval(assets).judge(answers, _prefers(0.5))
    benchmark = AlpacaEval(assets, needs_baseline=True, lc_bootstrap_rounds=2)
    with pytest.raises(ValueError, match="got none"):
        benchmark.judge(answers, _prefers(0.5))
    baseline = _answers(5, "base {} says more")
    judgments = benchmark.judge(answers, _prefers(0.6), baseline=baseline)
    metrics = {metric.name: metric.value for metric in benchmark.score(answers, judgments, baseline=baseline)}
    assert metrics["win_rate"] == pytest.approx(60)


def test_answering_uses_the_decoding_of_the_config() -> None:
    sampler = EchoSampler()
    answers = AlpacaEval(Given(our_alpaca_eval(5))).answer(sampler, seed=7)
    assert [answer.question_id for answer in answers] == ["0", "1", "2", "3", "4"]
    ((chats, decoding, seed),) = sampler.calls
    assert (len(chats), decoding.temperature, decoding.top_k, decoding.max_new_tokens, seed) == (5, 0.7, 50, 2048, 7)


def test_difficulty_goes_by_row() -> None:
    gamed = pd.DataFrame({"index": [0, 1, 0, 1], "instruction_difficulty": [0.5, -1.0, 0.5, -1.0]})
    assert difficulty_by_row(gamed, 2) == [0.5, -1.0]
    with pytest.raises(ValueError, match=r"no difficulty for rows \[2\]"):
        difficulty_by_row(gamed, 3)
    with pytest.raises(ValueError, match="missing column"):
        gamed_rows(gamed)


def test_official_preferences() -> None:
    values = [official_preference(value) for value in (0, 1, 1.25, 1.5, 2, None, math.nan, 3)]
    assert values[:5] == [0.5, 0.0, 0.25, 0.5, 1.0]
    assert all(math.isnan(value) for value in values[5:])


def test_files_round_trip(tmp_path: Path) -> None:
    assets = our_alpaca_eval(5)
    benchmark = AlpacaEval(Given(assets), lc_bootstrap_rounds=2)
    answers = _answers(5)
    judgments = benchmark.judge(answers, _prefers(0.7))
    write_outputs(tmp_path / "model_outputs.json", assets, answers, "ours")
    write_annotations(tmp_path / "annotations.json", assets, answers, assets.baseline_outputs, judgments, "ours")
    generator, rows = read_outputs(tmp_path / "model_outputs.json")
    assert generator == "ours"
    assert [answer.turns[0].text for answer in answers_of(rows, assets)] == [a.turns[0].text for a in answers]
    found = read_annotations(tmp_path / "annotations.json")
    assert found.preferences == pytest.approx([0.7] * 5)
    assert found.chars == (13,) * 5
    row = leaderboard_row(benchmark.score(answers, judgments))
    assert row["win_rate"] == pytest.approx(70)
    assert (row["n_wins"], row["n_wins_base"], row["n_draws"], row["n_total"], row["avg_length"]) == (5, 0, 0, 5, 13)
    with pytest.raises(ValueError, match="have no output"):
        answers_of(rows[:2], assets)
    both = AlpacaEval(Given(assets), both_orders=True).judge(answers, _prefers(0.7))
    with pytest.raises(ValueError, match="got 10 for 5; a run with both_orders=true has no official file"):
        write_annotations(tmp_path / "b.json", assets, answers, assets.baseline_outputs, both, "ours")


def test_real_annotations_give_the_published_preferences(data: Path) -> None:
    found = read_annotations(data / "alpaca_eval/sample_annotations.json")
    assert (found.policy, found.baseline) == ("vicuna-13b-v1.5", "gpt4_1106_preview")
    assert found.preferences[0] == pytest.approx(0.0001159194)


@pytest.fixture(scope="module")
def leaderboard(data: Path) -> pd.DataFrame:
    """Our numbers beside the published ones for 29 real models."""
    rows = pd.read_parquet(data / "alpaca_eval/preferences_shared.parquet")
    expected = pd.read_csv(data / "alpaca_eval/expected_shared.csv").set_index("model")
    gamed = pd.read_csv(data / "alpaca_eval/df_gamed_reconstructed.csv")
    table = {}
    for model, own in rows.groupby("model"):
        own = own.sort_values("row")
        preferences = [official_preference(value) for value in own.preference]
        metrics = preference_metrics(
            preferences,
            own.len_output.tolist(),
            own.len_baseline.tolist(),
            difficulty=difficulty_by_row(gamed, 805)[: len(own)],
            gamed=gamed_rows(gamed),
            same_policy=bool(own.same_output.all()),
            bootstrap_rounds=10,
            lc_bootstrap_rounds=0,
        )
        table[model] = {metric.name: metric.value for metric in metrics}
    ours = pd.DataFrame.from_dict(table, orient="index")
    assert len(ours) == 29
    return ours.merge(expected, left_index=True, right_index=True, suffixes=("", "_published"), how="left")


def test_win_rates_of_29_real_models(leaderboard: pd.DataFrame) -> None:
    for name in ("win_rate", "standard_error", "discrete_win_rate"):
        difference = (leaderboard[name] - leaderboard[f"{name}_published"]).abs()
        assert difference.max() < 1e-6, difference.sort_values().tail(3)
    assert (leaderboard.n_wins == leaderboard.n_wins_published).all()


def test_length_controlled_win_rates_of_29_real_models(leaderboard: pd.DataFrame) -> None:
    ours = leaderboard.lc_win_rate
    assert (ours - leaderboard.length_controlled_winrate).abs().max() < 0.2
    official = leaderboard["lc_alpaca_eval_pkg_sklearn1.9.1"]
    assert (ours - official).abs().max() < 1e-9
    agrees = (official - leaderboard.length_controlled_winrate).abs() < 1e-6
    assert agrees.sum() >= 20
    assert (ours - leaderboard.length_controlled_winrate)[agrees].abs().max() < 1e-6


def test_few_items_are_said_to_be_few(caplog: pytest.LogCaptureFixture) -> None:
    gamed = pd.Series([0.5, 0.6, 0.7]), pd.Series([0.1, -0.4, 0.2]), pd.Series([0.0, 1.0, -1.0])
    preference_metrics(
        [0.2, 0.9, 0.4, 0.6, 0.5],
        [10, 20, 30, 40, 50],
        [20, 10, 40, 40, 45],
        difficulty=[0.0, 1.0, -1.0, 0.5, 0.2],
        gamed=gamed,
        lc_bootstrap_rounds=0,
    )
    assert "below 200 the gamed rows dominate" in caplog.text


def test_metrics_agree_with_the_parts() -> None:
    preferences, chars, baseline = [0.2, 0.9, 0.4, 0.7, 0.1, math.nan], [10, 20, 30, 5, 8, 9], [20, 10, 40, 9, 9, 9]
    metrics = {
        metric.name: metric.value
        for metric in preference_metrics(
            preferences, chars, baseline, difficulty=None, gamed=None, lc_bootstrap_rounds=0
        )
    }
    assert metrics["win_rate"] == win_rate(preferences).win_rate
    assert metrics["lc_win_rate"] == length_controlled(preferences, chars, baseline).lc_win_rate
