"""Reading a sweep: every job is either in the frames or listed as missing."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from aipo.jobs import ScoreRecord
from aipo.records import Metric
from analysis.collect import AnalysisError, collect, read_protocol


def test_every_metric_of_every_point(paper_sweep):
    sweep = collect(paper_sweep(("dpo", "aipo"), (0, 1), iterations=2).folder)
    assert [(run.objective, run.seed) for run in sweep.runs] == [("aipo", 0), ("aipo", 1), ("dpo", 0), ("dpo", 1)]
    assert not sweep.problems
    main = sweep.scores[sweep.scores["diagnostic"] == ""]
    assert len(main) == 4 * 3 * (2 + 5 + 4 + 2)  # runs x points x metrics of the four benchmarks
    assert len(sweep.scores) - len(main) == 4 * 3 * 3  # by the length-only judge, gold has none
    assert set(sweep.scores["judge"]) == {"gold", "length_only"}
    row = main[(main["metric"] == "rating") & (main["iteration"] == 1) & (main["job"] == "3")].iloc[0]
    assert (row["n_scored"], row["n_unscored"], row["seed"], row["objective"]) == (78, 2, 1, "aipo")
    assert row["ci95_high"] - row["ci95_low"] == pytest.approx(0.6)
    lengths = main[main["metric"] == "mean_tokens"]
    assert lengths["ci95_low"].map(math.isnan).all()
    assert list(sweep.pairs["kept"]) == [120] * 8
    assert sweep.pairs.iloc[1]["dropped"] == {"tie": 4, "identical": 1, "truncated": 0}


def test_overrides_all_runs_share_are_no_variant(fake_sweep):
    for alpha in ("0.07", "0.3"):
        fake_sweep.job("aipo", overrides=["iteration.iterations=1", f"objective.loss.alpha={alpha}"], iterations=1)
    sweep = collect(fake_sweep.folder)
    assert sweep.shared_overrides == ("iteration.iterations=1",)
    assert [run.variant for run in sweep.runs] == ["objective.loss.alpha=0.07", "objective.loss.alpha=0.3"]


def test_failed_and_running_jobs_are_listed_and_keep_their_points(fake_sweep):
    fake_sweep.job("dpo", iterations=2)
    fake_sweep.job("aipo", iterations=1, status="failed", error="non-finite loss at step 7")
    fake_sweep.job("simpo", iterations=0, status="running")
    fake_sweep.job("dpo_nll", iterations=0, status="failed", error="no pairs", points=[], benchmarks=())
    sweep = collect(fake_sweep.folder)
    listed = {problem.job: problem.what for problem in sweep.problems}
    assert listed == {
        "1": "failed: non-finite loss at step 7 (shown up to round 1)",
        "2": "lost: process 0 on  gave no sign of life for two minutes; the same command goes on from here "
        "(only the base model is shown)",
        "3": "failed: no pairs (no point reached)",
    }
    assert sorted(set(zip(sweep.scores["objective"], sweep.scores["iteration"], strict=True))) == [
        *(("aipo", -1), ("aipo", 0), ("dpo", -1), ("dpo", 0), ("dpo", 1), ("simpo", -1)),
    ]


def test_jobs_without_a_record_and_scores_that_a_done_job_lacks_are_listed(fake_sweep):
    run = fake_sweep.job("dpo", iterations=1, benchmarks=("gold", "mt_bench"))
    del run["points"][1]["scores"]["mt_bench"]
    fake_sweep.write(run, "0")
    (fake_sweep.folder / "jobs" / "7").mkdir()
    first, second = collect(fake_sweep.folder).problems
    assert first.job == "7" and first.what.startswith("no run.json")
    assert (second.job, second.iteration) == ("0", 0) and "mt_bench: no score" in second.what


def test_missing_and_changed_artifacts_are_listed(fake_sweep):
    run = fake_sweep.job("dpo", iterations=1, benchmarks=("gold",))
    base, trained = (point["scores"]["gold"] for point in run["points"])
    shutil.rmtree(fake_sweep.store / "scores" / base)
    metrics = fake_sweep.store / "scores" / trained / "metrics.json"
    digits = metrics.read_text()
    metrics.write_text(digits.replace('"value": 0.', '"value": 8.', 1))
    assert len(metrics.read_text()) == len(digits) and metrics.read_text() != digits
    pairs = fake_sweep.store / "pairs" / run["points"][1]["pairs"] / "manifest.json"
    pairs.write_text(json.dumps(json.loads(pairs.read_text()) | {"fingerprint": "0" * 16}))
    sweep = collect(fake_sweep.folder)
    assert sweep.scores.empty and sweep.pairs.empty
    base_problem, score_problem, pair_problem = sweep.problems
    assert base_problem.iteration == -1 and f"scores/{base} is missing" in base_problem.what
    assert score_problem.iteration == 0 and "metrics.json: the manifest lists SHA-256" in score_problem.what
    assert "pairs/0000000000000000" in pair_problem.what and "mv " in pair_problem.what


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"points": 3}, "not iterable"),
        (
            {"status": "finished"},
            "status must be one of running, done, failed, interrupted, requeued, cancelled, timed out, given up, got "
            "'finished'",
        ),
        (None, "missing field(s) ["),
    ],
)
def test_unreadable_run_is_listed(fake_sweep, change, expected):
    fake_sweep.job("dpo", iterations=0)
    run = fake_sweep.job("aipo", iterations=0)
    fake_sweep.write(run | change if change else {"status": "done", "points": []}, job="1")
    sweep = collect(fake_sweep.folder)
    assert [run.objective for run in sweep.runs] == ["dpo"]
    assert [problem.job for problem in sweep.problems] == ["1"] and expected in sweep.problems[0].what


def test_nothing_to_read(tmp_path):
    with pytest.raises(AnalysisError, match="no such folder"):
        collect(tmp_path / "absent")
    with pytest.raises(AnalysisError, match="no runs in it"):
        collect(tmp_path)
    (tmp_path / "jobs" / "0").mkdir(parents=True)
    (tmp_path / "jobs" / "0" / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(AnalysisError, match="none of its 1 runs can be read"):
        collect(tmp_path)


def test_two_jobs_with_one_name(fake_sweep):
    run = fake_sweep.job("dpo", iterations=1)
    fake_sweep.write(run)
    assert len(collect(fake_sweep.folder).runs) == 1  # the same artifacts twice: harmless
    fake_sweep.job("dpo", iterations=2)
    assert [run.job for run in collect(fake_sweep.folder).runs] == ["2"]  # the same job, further on
    run["points"][1]["policy"] = "0" * 16
    fake_sweep.write(run, "0")
    with pytest.raises(AnalysisError, match="jobs . and . both say objective=dpo, seed=0.*move the folder"):
        collect(fake_sweep.folder)


def test_the_model_an_endpoint_returned_is_part_of_the_judge(fake_sweep):
    points = []
    for iteration, model in ((-1, "gpt-4-0613"), (0, "gpt-4-1106")):
        metrics = [Metric("rating", 5.0, None, 1, 0), Metric("mean_tokens", 9.0, None, 1, 0)]
        score = fake_sweep.score((iteration,), metrics, judge="gpt-4", model=model)
        keys = ("policy", "pairs", "reference", "train")
        points.append({"iteration": iteration, **dict.fromkeys(keys), "scores": {"mt_bench": score}})
    fake_sweep.job("dpo", benchmarks=("mt_bench",), points=points)
    scores = collect(fake_sweep.folder).scores
    assert sorted(set(scores["judge"])) == ["gpt-4 (answered by gpt-4-0613)", "gpt-4 (answered by gpt-4-1106)"]
    assert scores["protocol"].nunique() == 2


def test_jobs_of_one_policy_with_other_benchmarks_are_one_run(fake_sweep):
    """The same sweep asked for again with another benchmark: a job of its own, whose policies are the same."""
    options = {"iterations": 1, "diagnostic": False}
    first = fake_sweep.job("dpo", benchmarks=("gold",), **options)
    fake_sweep.job("dpo", benchmarks=("mt_bench",), **options)
    sweep = collect(fake_sweep.folder)
    (run,) = sweep.runs
    assert set(run.primary) == {"gold", "mt_bench"} and not sweep.problems
    assert sorted(set(zip(sweep.scores["benchmark"], sweep.scores["iteration"], strict=True))) == [
        *(("gold", -1), ("gold", 0), ("mt_bench", -1), ("mt_bench", 0)),
    ]
    first["points"][1]["kl"] = "f" * 16
    fake_sweep.write(first, "0")
    assert [point.kl for point in collect(fake_sweep.folder).runs[0].points] == [None, "f" * 16]


def test_other_questions_of_a_benchmark_of_our_own_are_another_protocol(fake_sweep):
    """The gold benchmark's questions follow from its settings; its decoding is how they are answered."""
    identity = {"world": "7"}
    found = set()
    for n_questions, seed, tokens in ((64, 1, 128), (64, 1, 256), (256, 1, 128), (64, 2, 128)):
        asked = {"n_questions": n_questions, "question_seed": seed, "decoding": {"max_new_tokens": tokens}}
        config = {"benchmark": asked | {"identity": identity}}
        answers = fake_sweep.artifact("answers", (str(asked),), lambda folder: None, config=config)
        score = ScoreRecord("gold", "gold", False, "0" * 16)
        found.add(read_protocol(fake_sweep.store, {"parents": {"answers": answers}}, score, False).identity)
    assert len(found) == 3
