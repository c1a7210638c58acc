"""What a plan counts beside the stages that train, and that it names what it does not count."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from composing import composed

from aipo.artifacts import StageEvent, StageReport
from aipo.pipeline.check import check
from aipo.pipeline.loop import walk
from aipo.pipeline.run import build_run
from aipo.planning.costs import decoding_cost
from aipo.planning.estimate import judge_loads, model_shape, runs_of, stage_costs, uncounted
from aipo.planning.report import print_plan

MODEL = ["model=mistral_7b_instruct_v02", "trainer=paper", "hardware=h100_8", "workload=ultrafeedback"]


@pytest.fixture(autouse=True)
def _any_model_may_be_asked_about_the_miniatures_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large models are planned here with the miniature's pool, which a run refuses: only the sizes matter."""
    monkeypatch.setattr("aipo.pipeline.conflicts.knows_world", lambda model: True)


def test_the_measurement_of_kl_is_counted_and_what_is_not_counted_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = [*MODEL, "iteration.iterations=2", f"store.root={tmp_path}/none", "iteration.reference=ema"]
    job = build_run(check(composed(*given, "kl_prompts=300")))
    print_plan(job, walk(job), [])
    text = capsys.readouterr().out
    assert re.search(r"^kl +2 +", text, re.MULTILINE)
    assert "Not counted: ranking, average, proxy, judging, loading, starting servers" in text
    shape = model_shape(job, [])
    assert shape is not None
    cost, hardware, load = stage_costs(job, shape)["kl"], job.hardware, job.workload
    new = min(load.completion_tokens, job.iteration.decoding.max_new_tokens)
    row = load.prompt_tokens + new
    # 600 completions drawn on all devices, and read by three models on one
    assert cost.tokens == 300 * load.prompt_tokens + 600 * new + 3 * 600 * row
    read = 3 * 600 * row * shape.forward_flops(row) / (hardware.tflops * 1e12 * hardware.prefill_share) / 3600
    drawn = decoding_cost(shape, hardware, load, 300, 2, new).hours
    assert cost.hours == pytest.approx(read + drawn) and drawn > 0
    assert "kl" not in stage_costs(build_run(check(composed(*given, "kl_prompts=0"))), shape)


def test_self_instruct_reads_its_lists_and_writes_the_rest(tmp_path: Path) -> None:
    given = [*MODEL, "data/self_instruct=official", "workload=ultrafeedback", f"store.root={tmp_path}/none"]
    job = build_run(check(composed(*given, "data=pairrm_gen_si_uf", "iteration.iterations=1")))
    shape = model_shape(job, [])
    assert shape is not None
    # Of the 1,700 tokens of each prompt 8 demonstrations of 180 are read at once, and 260 are written one by one.
    cost, prompts = stage_costs(job, shape)["prompts"], job.iteration.prompts
    assert prompts is not None and cost.tokens == prompts * 1700
    lists = replace(job.workload, prompt_tokens=8 * 180)
    assert cost == decoding_cost(shape, job.hardware, lists, prompts, 1, 260)


def test_what_is_read_from_a_data_set_is_no_stage_that_takes_devices(tmp_path: Path) -> None:
    job = build_run(check(composed(*MODEL, "data=uf", "iteration.iterations=1", f"store.root={tmp_path}/none")))
    shape = model_shape(job, [])
    assert shape is not None
    events = walk(job)
    assert {"prompts", "candidates", "ranking"} <= {event.stage for event in events}
    assert not {"prompts", "candidates", "ranking"} & set(uncounted(job, stage_costs(job, shape), events))


@pytest.mark.parametrize(("recipe", "responses"), [("pairrm_uf", 2), ("pairrm_uf_full", 4), ("pairrm_gen_uf", 5)])
def test_a_ranking_counts_the_responses_that_there_are(tmp_path: Path, recipe: str, responses: int) -> None:
    """Of a data set it counted as many as the policy would draw: for two responses ten times the comparisons."""
    given = ["scale=paper", f"data={recipe}", "iteration.iterations=1", f"store.root={tmp_path}/none"]
    job = build_run(check(composed(*given)))
    shape = model_shape(job, [])
    assert shape is not None
    row = job.workload.prompt_tokens + 2 * job.workload.completion_tokens
    assert stage_costs(job, shape)["ranking"].tokens == 20_000 * responses * (responses - 1) * row
    asking = build_run(check(composed(*given, "ranker=llm_judge")))
    *_, ranking = judge_loads(asking, walk(asking))
    assert ranking.requests == 20_000 * responses


def test_a_diagnostic_judge_that_costs_something_is_on_the_bill(tmp_path: Path) -> None:
    given = ["scale=paper", "iteration.iterations=2", "+judge@diagnostic_judge.second=gpt_4"]
    job = build_run(check(composed(*given, f"store.root={tmp_path}/none")))
    main, second = judge_loads(job, walk(job))
    assert (main.name, second.name) == ("gpt-4-1106-preview", "gpt-4")
    assert main.requests == second.requests > 0
    assert main.dollars and second.dollars and second.dollars > 2 * main.dollars


def test_a_benchmark_whose_name_ends_another_ones_is_counted_by_itself() -> None:
    events = [
        StageEvent("answers", name, "planned", 0.0, StageReport(), f"iter 0 {name}") for name in ("alpaca_eval", "eval")
    ]
    assert [runs_of(f"answers {name}", events) for name in ("eval", "alpaca_eval")] == [1, 1]
    assert runs_of("answers", events) == 2
