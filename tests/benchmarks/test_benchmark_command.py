"""`python -m aipo.benchmarks`: official files in, tables out; our artifacts out as official files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from benchmark_doubles import Given, ScriptedJudge, completion

from aipo.artifacts import seal
from aipo.benchmarks.arena_hard import ArenaHard
from aipo.benchmarks.mt_bench import MTBench
from aipo.benchmarks.official.assets import AssetCache
from aipo.benchmarks.official.command import main, table
from aipo.benchmarks.official.questions import OfficialArenaHard, OfficialMTBench
from aipo.records import Answer, JudgeReply, write_jsonl, write_parquet


def _cells(text: str) -> dict[str, list[str]]:
    """First word of each line -> its words; intervals are one word."""
    return {line.split()[0]: line.replace(", ", ",").split() for line in text.splitlines() if line.strip()}


def test_table() -> None:
    text = table([["model", "rate", "ci"], ["a", 1.234, (1.0, 2.0)], ["long name", None, 3]], ["careful"])
    assert text.splitlines() == [
        "model      rate  ci",
        "a          1.23  [1.00, 2.00]",
        "long name  -     3",
        "note: careful",
    ]


def test_score_mt_bench(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(data / "fixtures/mt_bench/judgments_single.jsonl")
    assert main(["score", "--benchmark", "mt_bench", "--judgments", file]) == 0
    printed = capsys.readouterr().out
    assert _cells(printed)["model-a"][1:6] == ["6.01", "6.08", "6.04", "154", "8"]
    assert "9 repeated line(s) count" in printed
    assert main(["score", "--benchmark", "mt_bench", "--judgments", file, "--keep-last"]) == 0
    assert _cells(capsys.readouterr().out)["model-a"][1:4] == ["6.02", "6.09", "6.06"]
    pairs = str(data / "fixtures/mt_bench/judgments_pair.jsonl")
    assert main(["score", "--benchmark", "mt_bench", "--judgments", pairs, "--baseline", "model-c"]) == 0
    assert _cells(capsys.readouterr().out)["model-b"][1:] == ["29", "17", "91", "0.21", "0.12", "0.54"]


def test_score_counts_the_matches_of_the_baseline_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of all models' matches it said how many were unscored, beside a table of one model's."""
    command = ["score", "--benchmark", "mt_bench", "--judgments", str(data / "fixtures/mt_bench/judgments_pair.jsonl")]
    assert main([*command, "--baseline", "model-a"]) == 0
    printed = capsys.readouterr().out
    cells = {name: row[1:4] for name, row in _cells(printed).items() if name.startswith("model-")}
    assert sum(int(count) for row in cells.values() for count in row) == 137
    assert "23 of 160 matches unscored" in printed
    assert main(command) == 0 and "46 of 320 matches unscored" in capsys.readouterr().out
    assert main([*command, "--baseline", "model-x"]) == 1
    said = capsys.readouterr()
    known = "choose from model-a, model-b, model-c"
    assert said.out == "" and f"--baseline model-x: no such model in these judgments; {known}" in said.err


def test_score_says_what_show_result_would_average(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"question_id": 1, "model": "m", "judge": ["j", "single-v1"], "score": score, "turn": 1, "judgment": ""}
        for score in (4, 100)
    ]
    rows[1]["question_id"] = 2
    write_jsonl(tmp_path / "j.jsonl", rows)
    assert main(["score", "--benchmark", "mt_bench", "--judgments", str(tmp_path / "j.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert _cells(printed)["m"][1:6] == ["4.00", "-", "4.00", "1", "1"]
    assert "1 score(s) outside 1..10 are unscored here" in printed


def test_score_alpaca_eval(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = data / "alpaca_eval/sample_annotations.json"
    rows = json.loads(source.read_text()) * 3
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(rows))
    outputs = tmp_path / "model_outputs.json"
    outputs.write_text(
        json.dumps(
            [
                {"instruction": row["instruction"], "output": row["output_2"], "generator": row["generator_2"]}
                for row in rows[:4]
            ]
        )
    )
    common = ["score", "--benchmark", "alpaca_eval", "--judgments", str(file), "--answers", str(outputs)]
    gamed = str(data / "alpaca_eval/df_gamed_reconstructed.csv")
    assert main([*common, "--gamed", gamed]) == 0
    printed = capsys.readouterr().out
    assert _cells(printed)["vicuna-13b-v1.5"][-2:] == ["12", "0"]
    assert "below 200 items" in printed
    (tmp_path / "board.csv").write_text(",win_rate,length_controlled_winrate\nvicuna-13b-v1.5,1.0,2.0\nother,3.0,4.0\n")
    assert main([*common, "--gamed", gamed, "--published", str(tmp_path / "board.csv")]) == 0
    cells = _cells(capsys.readouterr().out)
    assert cells["model"][-4:] == ["published_lc_win_rate", "difference", "published_win_rate", "difference"]
    ours = cells["vicuna-13b-v1.5"]
    assert (ours[-4], ours[-2]) == ("2.00", "1.00")
    assert float(ours[-1]) == pytest.approx(float(ours[4]) - 1, abs=0.01)
    assert main([*common, "--assets", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "no length control" in printed
    assert "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d" in printed
    rows[0]["output_2"] += "!"
    file.write_text(json.dumps(rows))
    assert main([*common, "--gamed", gamed]) == 1
    assert "are not those in the answers of vicuna-13b-v1.5" in capsys.readouterr().err


def test_score_reproduces_a_published_row_in_full(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole annotations.json of a real model, its outputs of the real lengths, beside the published leaderboard."""
    model = "vicuna-13b-v1.5"
    rows = pd.read_parquet(data / "alpaca_eval/preferences_shared.parquet").query("model == @model").sort_values("row")
    annotations = [
        {"instruction": str(row.index_), "output_1": "x" * row.len_baseline, "output_2": "y" * row.len_output}
        | {"generator_1": "gpt4_1106_preview", "generator_2": model, "annotator": "weighted_alpaca_eval_gpt4_turbo"}
        | {"preference": row.preference}
        for row in rows.rename(columns={"index": "index_"}).itertuples()
    ]
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    command = ["score", "--benchmark", "alpaca_eval", "--judgments", str(tmp_path / "annotations.json")]
    command += ["--gamed", str(data / "alpaca_eval/df_gamed_reconstructed.csv")]
    command += ["--published", str(data / "alpaca_eval/leaderboard_published.csv")]
    assert main(command) == 0
    header, values = (line.replace(", ", ",").split() for line in capsys.readouterr().out.splitlines()[:2])
    cells = dict(zip(header, values, strict=True))
    assert cells["n_scored"] == str(len(rows)) and len(rows) > 800
    assert abs(float(cells["difference"])) < 1e-6  # the last of the two columns: the win rate's
    assert float(cells["lc_win_rate"]) == pytest.approx(float(cells["published_lc_win_rate"]), abs=0.2)


def test_score_of_few_items_and_of_the_baseline_itself(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gamed = ["--gamed", str(data / "alpaca_eval/df_gamed_reconstructed.csv")]
    sample = data / "alpaca_eval/sample_annotations.json"
    common = ["score", "--benchmark", "alpaca_eval", "--judgments"]
    assert main([*common, str(sample), *gamed]) == 0
    printed = capsys.readouterr().out
    assert _cells(printed)["vicuna-13b-v1.5"][1:4] == ["-", "-", "-"]
    assert "no length control for vicuna-13b-v1.5: 4 scored items, at least 5 needed" in printed
    rows = [row | {"generator_2": row["generator_1"], "preference": 1.5} for row in json.loads(sample.read_text()) * 2]
    (tmp_path / "annotations.json").write_text(json.dumps(rows))
    assert main([*common, str(tmp_path / "annotations.json"), *gamed]) == 0
    cells = _cells(capsys.readouterr().out)["gpt4_1106_preview"]
    assert cells[1:5] == ["50.00", "[50.00,50.00]", "-", "50.00"]


def test_score_says_what_it_does_not_use(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data / "fixtures/arena_hard"
    common = ["score", "--benchmark", "arena_hard", "--judgments", str(folder / "model_judgment/model-mid.jsonl")]
    (tmp_path / "board.csv").write_text("model,score\nmodel-x,50.0\n")
    answers = str(folder / "model_answer/model-weak.jsonl")
    assert main([*common, "--answers", answers, "--published", str(tmp_path / "board.csv")]) == 0
    printed = capsys.readouterr().out
    assert "answers of model-weak not used" in printed
    (absent,) = re.findall("board.csv: no row for (.*)", printed)
    assert sorted(absent.split(", ")) == ["gpt-4-0314", "model-mid"]
    with pytest.raises(SystemExit) as stopped:
        main([*common, "--keep-last"])
    assert stopped.value.code == 2
    assert "--keep-last is an option for mt_bench" in capsys.readouterr().err


def test_score_refuses_files_of_another_kind(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mt_bench = data / "fixtures/mt_bench"
    single, pair = str(mt_bench / "judgments_single.jsonl"), str(mt_bench / "judgments_pair.jsonl")
    assert main(["score", "--benchmark", "mt_bench", "--judgments", single, pair]) == 1
    assert "single and pairwise judgments do not belong in one table" in capsys.readouterr().err
    answers = str(data / "fixtures/arena_hard/model_answer/model-mid.jsonl")
    assert main(["score", "--benchmark", "mt_bench", "--judgments", single, "--answers", answers]) == 1
    assert "model-mid.jsonl, answer 1: expected choices[0].turns to be text" in capsys.readouterr().err


def test_score_arena_hard(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data / "fixtures/arena_hard"
    judgments = [str(file) for file in (folder / "model_judgment").glob("*.jsonl")]
    answers = [str(file) for file in (folder / "model_answer").glob("*.jsonl")]
    common = ["score", "--benchmark", "arena_hard", "--judgments", *judgments, "--assets", str(tmp_path)]
    assert main([*common, "--answers", *answers]) == 0
    cells = _cells(capsys.readouterr().out)
    assert cells["model-strong"][1:3] == ["76.40", "[73.06,80.10]"]
    assert cells["model-strong"][4:] == ["1204.06", "491", "233", "7"]
    assert cells["gpt-4-0314"][1] == "50.00"
    assert cells["model"][5] == "avg_tokens"


def test_score_says_how_many_rows_repeat_and_refuses_a_policy_twice(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = (data / "fixtures/arena_hard/model_judgment").glob("model-mid.jsonl")
    lines = source.read_text(encoding="utf-8").splitlines()
    twice = tmp_path / "model-mid.jsonl"
    twice.write_text("\n".join([*lines, *lines[:5]]) + "\n", encoding="utf-8")
    given = ["score", "--benchmark", "arena_hard", "--judgments", str(twice)]
    assert main(given) == 0
    assert "10 repeated game(s) count, as in show_result" in " ".join(capsys.readouterr().out.split())
    assert main([*given, str(source)]) == 1
    assert "judgments of model-mid in a second file" in " ".join(capsys.readouterr().err.split())
    pair = {"instruction": "q", "output_1": "a", "output_2": "bb", "preference": 2.0}
    rows = [pair | {"instruction": f"q{n % 3}", "generator_1": "x", "generator_2": "y"} for n in range(4)]
    (tmp_path / "annotations.json").write_text(json.dumps(rows), encoding="utf-8")
    assert main(["score", "--benchmark", "alpaca_eval", "--judgments", str(tmp_path / "annotations.json")]) == 0
    assert "1 repeated row(s) count" in " ".join(capsys.readouterr().out.split())


def test_score_refuses_mixed_judges(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = data / "fixtures/arena_hard/model_judgment/model-mid.jsonl"
    other = tmp_path / "other.jsonl"
    other.write_text(source.read_text().replace("gpt-4-1106-preview", "gpt-9").replace("model-mid", "model-x"))
    assert main(["score", "--benchmark", "arena_hard", "--judgments", str(source), str(other)]) == 1
    assert "several judges" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "not json", '{"question_id": 1', '{"question_id": 1}'])
def test_score_names_the_broken_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text(content)
    for benchmark in ("mt_bench", "alpaca_eval", "arena_hard"):
        assert main(["score", "--benchmark", benchmark, "--judgments", str(file)]) == 1
        assert "broken.jsonl" in capsys.readouterr().err


def test_export_refuses_what_is_no_official_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(data / "mt_bench", tmp_path / "mt_bench")
    store = tmp_path / "outputs"
    for stage in ("answers", "scores"):
        (store / stage / "f").mkdir(parents=True)
    write_parquet(store / "answers/f/answers.parquet", [Answer("1", (completion("a"), completion("b")))])
    common = ["export", "--benchmark", "mt_bench", "--model", "m", "--out", str(tmp_path / "out")]
    common += ["--assets", str(tmp_path)]
    seal(store / "answers/f", {"stage": "answers", "fingerprint": "f", "parents": {"policy": "f"}})
    seal(store / "scores/f", {"stage": "scores", "fingerprint": "f", "parents": {"answers": "f"}})
    assert main([*common, "--scores", str(store / "scores/f")]) == 1
    assert "only a run on the official questions can be exported" in capsys.readouterr().err
    assert main([*common, "--scores", str(store / "answers/f")]) == 1
    assert "expected a scores artifact, got one of stage 'answers'" in capsys.readouterr().err
    assert main([*common, "--scores", str(store / "scores/none")]) == 1
    assert "artifact scores/none is missing" in capsys.readouterr().err
    (store / "answers/f/answers.parquet").write_bytes(b"changed")
    for given in (["--scores", str(store / "scores/f")], ["--answers", str(store / "answers/f/answers.parquet")]):
        assert main([*common, *given]) == 1
        assert "answers.parquet: the manifest lists" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(common)
    assert not (tmp_path / "out").exists()


def test_export_and_score_again(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = tmp_path / "cache"
    for name in ("mt_bench", "arena_hard"):
        shutil.copytree(data / name, cache / name)
    assets = AssetCache(str(cache))
    mt_bench = MTBench(Given(OfficialMTBench(cache=assets).load()), bootstrap_rounds=10)
    ids = [str(row["question_id"]) for row in mt_bench.assets.load().questions]
    answers = [Answer(name, (completion("first"), completion("second answer"))) for name in ids]
    judge = ScriptedJudge(lambda chat: JudgeReply(f"[[{1 + len(chat[1].content) % 10}]]"), name="org/judge")
    judgments = mt_bench.judge(answers, judge)
    metrics = {metric.name: metric.value for metric in mt_bench.score(answers, judgments)}
    write_parquet(tmp_path / "answers.parquet", answers)
    write_jsonl(tmp_path / "judgments.jsonl", judgments)
    common = ["--answers", str(tmp_path / "answers.parquet"), "--judgments", str(tmp_path / "judgments.jsonl")]
    named = ["--model", "ours", "--out", str(tmp_path / "out"), "--assets", str(cache)]
    common += named
    assert main(["export", "--benchmark", "mt_bench", *common]) == 0
    written = capsys.readouterr().out.split()
    texts = [Path(file).read_text() for file in written]
    store = tmp_path / "outputs"
    for stage, digest in (("answers", "a1"), ("judgments", "j1"), ("scores", "s1")):
        (store / stage / digest).mkdir(parents=True)
    shutil.copy(tmp_path / "answers.parquet", store / "answers/a1")
    shutil.copy(tmp_path / "judgments.jsonl", store / "judgments/j1")
    seal(store / "scores/s1", {"stage": "scores", "fingerprint": "s1", "parents": {"answers": "a1", "judgments": "j1"}})
    assert main(["export", "--benchmark", "mt_bench", "--scores", str(store / "scores/s1"), *named]) == 0
    capsys.readouterr()
    without_time = [re.sub(r'"tstamp": [\d.]+', "", text) for text in texts]
    assert [re.sub(r'"tstamp": [\d.]+', "", Path(file).read_text()) for file in written] == without_time
    assert [Path(file).name for file in written] == ["ours.jsonl", "org_judge_single.jsonl"]
    assert main(["score", "--benchmark", "mt_bench", "--judgments", written[1], "--answers", written[0]]) == 0
    cells = _cells(capsys.readouterr().out)["ours"]
    names = ("rating_turn_1", "rating_turn_2", "rating", "mean_chars")
    assert [cells[place] for place in (1, 2, 3, 6)] == [f"{metrics[name]:.2f}" for name in names]

    arena = ArenaHard(Given(OfficialArenaHard(assets).load()), bootstrap_rounds=10)
    answers = [Answer(str(row["question_id"]), (completion("an answer"),)) for row in arena.assets.load().questions]
    labels = ["[[A>B]]", "[[B>A]]", "[[A>>B]]", "[[A=B]]"]
    judge = ScriptedJudge(lambda chat: JudgeReply(labels[len(chat[1].content) % 4]), name="judge")
    judgments = arena.judge(answers, judge)
    metrics = {metric.name: metric for metric in arena.score(answers, judgments)}
    write_parquet(tmp_path / "answers.parquet", answers)
    write_jsonl(tmp_path / "judgments.jsonl", judgments)
    assert main(["export", "--benchmark", "arena_hard", *common]) == 0
    written = capsys.readouterr().out.split()
    common = ["--judgments", written[1], "--answers", written[0], "--assets", str(cache)]
    assert main(["score", "--benchmark", "arena_hard", *common]) == 0
    printed = capsys.readouterr().out
    pooled = metrics["win_rate_pooled_ci"]
    assert _cells(printed)["ours"][1:3] == [
        f"{pooled.value:.2f}",
        f"[{pooled.ci95[0]:.2f},{pooled.ci95[1]:.2f}]",
    ]
    assert "mean_tokens_cl100k_estimated" in printed
