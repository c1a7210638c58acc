"""What a plan counts beside the stages that train, and that it names what it does not count."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from composing import composed

from aipo.pipeline.check import check
from aipo.pipeline.loop import walk
from aipo.pipeline.run import build_run
from aipo.planning.costs import decoding_cost
from aipo.planning.estimate import model_shape, stage_costs, uncounted
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


def test_what_is_read_from_a_data_set_is_no_stage_that_takes_devices(tmp_path: Path) -> None:
    job = build_run(check(composed(*MODEL, "data=uf", "iteration.iterations=1", f"store.root={tmp_path}/none")))
    shape = model_shape(job, [])
    assert shape is not None
    events = walk(job)
    assert {"prompts", "candidates", "ranking"} <= {event.stage for event in events}
    assert not {"prompts", "candidates", "ranking"} & set(uncounted(job, stage_costs(job, shape), events))
