"""The planner's arithmetic, against published sizes and hand-made sums."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from composing import composed
from hydra.utils import instantiate

from aipo.artifacts import StageEvent
from aipo.models.shape import ModelShape
from aipo.pipeline.check import check
from aipo.pipeline.loop import walk
from aipo.pipeline.missing import missing_needs
from aipo.pipeline.run import build_run
from aipo.planning.costs import (
    Hardware,
    Workload,
    decoding_cost,
    devices_per_replica,
    forward_cost,
    training_cost,
)
from aipo.planning.estimate import (
    device_hours,
    devices_held,
    judge_loads,
    model_shape,
    runs_of,
    stage_costs,
    sweep_totals,
)
from aipo.planning.idle import (
    JUDGING,
    STARTS,
    Allocation,
    Part,
    allocation,
    idle_share,
    server_starts,
    successions,
)
from aipo.planning.memory import Memory, TrainingSetup, activation_bytes, lora_parameters, training_memory
from aipo.planning.report import duration, print_plan, print_sweep

ROOT = Path(__file__).resolve().parents[2]
TINY = ModelShape(2, 8, 16, 2, 1, 4, 10, False)
DEVICE = Hardware(1, 1.0, 1.0, 1.0, 0.5, 0.25, 0.5)
LENGTHS = Workload(10, 20, 20, 100, 10, 1.0, 500, 100, 4)


def test_parameters_by_hand() -> None:
    # attention 2*8*8 + 2*8*4 = 192, MLP 3*8*16 = 384, norms 16: 592 a layer; embeddings 2*80; final norm 8
    assert TINY.parameters == 2 * 592 + 160 + 8


def test_parameters_equal_transformers() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=2,
        hidden_size=8,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=10,
        tie_word_embeddings=False,
    )
    assert LlamaForCausalLM(config).num_parameters() == TINY.parameters
    assert ModelShape.from_config(config.to_dict()) == TINY


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [("mistral_7b_instruct_v02", 7_241_732_096), ("llama_3_70b_instruct", 70_553_706_496)],
)
def test_presets_have_the_published_size(preset: str, parameters: int) -> None:
    node = yaml.safe_load((ROOT / "conf" / "model" / f"{preset}.yaml").read_text())["shape"]
    assert instantiate(node).parameters == parameters


@pytest.mark.parametrize(
    ("preset", "billions"),
    [
        ("mistral_nemo_instruct_2407", 12.2),
        ("gemma_2_27b_it", 27.2),
        ("mistral_large_2407", 123),
        ("qwen25_05b_instruct", 0.49),
    ],
)
def test_presets_have_about_the_published_size(preset: str, billions: float) -> None:
    node = yaml.safe_load((ROOT / "conf" / "model" / f"{preset}.yaml").read_text())["shape"]
    assert instantiate(node).parameters / 1e9 == pytest.approx(billions, rel=0.02)


def test_forward_by_hand() -> None:
    # 3 rows of 10 tokens; 2 FLOPs for each of 1352 - 80 weights in matrices; attention 2*10*2*2*4 a token
    flops = 30 * (2 * (TINY.parameters - 80) + 2 * 10 * 2 * 2 * 4)
    cost = forward_cost(TINY, DEVICE, 3, 10)
    assert cost.tokens == 30
    assert cost.hours == pytest.approx(flops / (1e12 * 0.25) / 3600)


def test_training_is_three_forwards_or_four() -> None:
    plain = training_cost(TINY, DEVICE, LENGTHS, 6, checkpointing=False)
    saved = training_cost(TINY, DEVICE, LENGTHS, 6, checkpointing=True)
    forward = forward_cost(TINY, DEVICE, 6, 50)
    assert plain.tokens == forward.tokens == 300
    assert plain.hours == pytest.approx(forward.hours * 3 * 0.25 / 0.5)
    assert saved.hours == pytest.approx(plain.hours * 4 / 3)


def test_decoding_is_bound_by_memory_at_small_batches() -> None:
    # 4 sequences at once, 8 in all: 2 batches of 20 steps; each reads the weights and 4 x 20 cached tokens
    bytes_a_step = 2 * TINY.parameters + 4 * 20 * TINY.kv_bytes_per_token
    cost = decoding_cost(TINY, DEVICE, LENGTHS, prompts=4, samples=2, new_tokens=20)
    prefill = forward_cost(TINY, DEVICE, 4, 10)
    assert cost.hours - prefill.hours == pytest.approx(2 * 20 * bytes_a_step / 0.5e9 / 3600)
    assert cost.tokens == 4 * 10 + 8 * 20


def test_replicas_of_a_large_model_span_devices() -> None:
    node = Hardware(8, 80, 989, 3350, 0.3, 0.4, 0.5)
    small = ModelShape(32, 4096, 14336, 32, 8, 128, 32000, False)
    large = ModelShape(80, 8192, 28672, 64, 8, 128, 128256, False)
    assert devices_per_replica(small, node) == 1
    assert devices_per_replica(large, node) == 4  # 131 GiB of weights over 60 GiB each is 2.2 devices, a power of two


def _setup(**changes: object) -> TrainingSetup:
    return replace(TrainingSetup("float32", "sdpa", 1, False, False, None, 50), **changes)


def _bytes(memory: Memory) -> list[float]:
    return [getattr(memory, field.name) * 2**30 for field in fields(memory)]


def test_memory_by_hand() -> None:
    p = TINY.parameters
    activations = 2 * 50 * (24 * 8 + 16 * 16 + 16 * 8)
    logits = 50 * 10 * 12
    assert _bytes(training_memory(TINY, _setup())) == pytest.approx([4 * p, 4 * p, 8 * p, activations, logits])
    checkpointed = activations / 2 + 2 * 50 * 8 * 4
    assert _bytes(training_memory(TINY, _setup(gradient_checkpointing=True)))[3] == pytest.approx(checkpointed)


def test_a_bfloat16_policy_has_float32_masters_gradients_and_moments() -> None:
    p = TINY.parameters
    whole = training_memory(TINY, _setup(dtype="bfloat16"))
    assert sum(_bytes(whole)[:3]) == pytest.approx((2 + 4 + 4 + 8) * p)
    several = training_memory(TINY, _setup(dtype="bfloat16", processes=4))
    assert several == whole  # ddp: all of it in each
    sharded = training_memory(TINY, _setup(dtype="bfloat16", processes=4, sharded=True))
    gathered = 2 * (160 + 2 * 592)  # embeddings and two layers, 16 bit
    assert _bytes(sharded)[:3] == pytest.approx([4 * p / 4 + gathered, 4 * p / 4, 8 * p / 4])


def test_adapters_are_the_only_weights_with_gradients() -> None:
    # rank 2; per layer q, o: 2 x (8 + 8); k, v: 2 x (8 + 4); gate, up, down: 3 x (8 + 16)
    trained = 2 * 2 * (32 + 24 + 72)
    assert lora_parameters(TINY, 2) == trained
    memory = training_memory(TINY, _setup(dtype="bfloat16", lora_rank=2))
    assert _bytes(memory)[:3] == pytest.approx([2 * TINY.parameters + 4 * trained, 4 * trained, 8 * trained])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_activations_are_what_autograd_keeps(dtype: str, attention: str) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def kept(layers: int) -> int:
        config = LlamaConfig(
            num_hidden_layers=layers,
            hidden_size=256,
            intermediate_size=704,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=64,
            attn_implementation=attention,
        )
        model = LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
        weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        held = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                held[storage.data_ptr()] = storage  # held on to, so that no address is used twice
            return tensor

        mask = torch.zeros(1, 1, 96, 96, dtype=getattr(torch, dtype))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.model(input_ids=torch.zeros(1, 96, dtype=torch.long), attention_mask=mask, use_cache=False)
        return sum(storage.nbytes() for storage in held.values())

    shape = ModelShape(3, 256, 704, 4, 2, 64, 64, False)
    estimate = 96 * activation_bytes(shape, _setup(dtype=dtype, attn_implementation=attention, longest_row=96))
    assert kept(3) - kept(2) == pytest.approx(estimate, rel=0.12 if attention == "eager" else 0.03)


def test_hardware_refuses_zero() -> None:
    with pytest.raises(ValueError, match="hardware.devices must be positive, got 0"):
        Hardware(0, 1.0, 1.0, 1.0, 0.5, 0.25, 0.5)


@pytest.mark.parametrize(
    ("hours", "text"), [(0.001, "3.6 s"), (0.5, "30 min"), (1.25, "1.2 h"), (42.4, "42 h"), (1234.5, "1,234 h")]
)
def test_durations_are_told_as_a_person_would(hours: float, text: str) -> None:
    assert duration(hours) == text


def _plan(capsys: pytest.CaptureFixture[str], *overrides: str) -> tuple[str, list[StageEvent]]:
    job = build_run(check(composed(*overrides)))
    events = walk(job)
    print_plan(job, events, missing_needs(job))
    return capsys.readouterr().out, events


@pytest.fixture(autouse=True)
def _any_model_may_be_asked_about_the_miniatures_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large models are planned here with the miniature's pool, which a run refuses: only the sizes matter."""
    monkeypatch.setattr("aipo.pipeline.conflicts.knows_world", lambda model: True)


MODEL = ["model=mistral_7b_instruct_v02", "trainer=paper", "hardware=h100_8", "workload=ultrafeedback"]


def test_a_plan_tells_everything_and_counts_a_shared_stage_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text, events = _plan(capsys, *MODEL, "iteration.iterations=3", f"store.root={tmp_path}/none")
    # pool; 7 stages a round (KL too); of 4 policies 4 answers, judgments of 3 x 2, scores of 1 + 3 x 2, a proxy score
    assert len(events) == len({event.fingerprint for event in events}) == 1 + 3 * 7 + 4 * (4 + 6 + 7 + 1)
    assert "94 stages: 0 cached, 94 to run" in text
    assert "round 1 to 3" in text and max(map(len, text.partition("Estimates")[0].splitlines())) <= 100
    # 4 policies x (160 ratings + 200 comparisons + 200 games); equal answers, as the base model's, are fewer
    assert "Judge gold: 2,240 requests" in text
    assert "7.24 B parameters on 8 devices of 80 GiB" in text
    assert "Disk: 3 trained models of 40.5 GiB = 121 GiB" in text
    assert "Missing, 1:" in text and "Mistral-7B-Instruct-v0.2" in text
    assert not (tmp_path / "none").exists()


def test_a_plan_says_when_training_does_not_fit_and_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    large = [*MODEL[1:], "model=llama_3_70b_instruct", "data/filters=paper", "iteration.iterations=1"]
    text, _ = _plan(capsys, *large)
    assert "DOES NOT FIT: 8 devices" in text and "Divided among 32 such devices" in text
    remedy = ["trainer.strategy=fsdp2", "trainer.processes=32", "trainer.nodes=4"]
    assert f"({' '.join(remedy)})" in text
    text, _ = _plan(capsys, *large, *remedy)
    assert "Fits: 32 devices" in text and "on 8 devices of 80 GiB, trained on 32" in text
    assert "trainer.nodes=4: expected a Slurm job of as many nodes" in text
    # 4 bytes for each of 70,553,706,496 weights
    assert "Main memory of the first node: 263 GiB, where the trained weights are put together" in text


def test_training_takes_the_devices_it_is_given(tmp_path: Path) -> None:
    given = [*MODEL, "iteration.iterations=1", f"store.root={tmp_path}/none", "benchmark=[gold]"]
    one, four = (
        build_run(check(composed(*given, f"trainer.processes={8 * nodes}", f"trainer.nodes={nodes}")))
        for nodes in (1, 4)
    )
    shape = model_shape(one, [])
    assert shape is not None
    few, many = stage_costs(one, shape), stage_costs(four, shape)
    for stage in ("reference", "train"):
        assert many[stage].hours == pytest.approx(few[stage].hours / 4)
    assert many["candidates"] == few["candidates"]  # sampled on the first node alone
    assert [devices_held(job, "drawing") for job in (one, four)] == [8, 32]


def test_ranking_is_counted_where_the_rankers_model_is_known(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = [*MODEL, "ranker=pairrm", "iteration.iterations=2", "iteration.prompts=20000", "iteration.candidates=5"]
    text, _ = _plan(capsys, *given, f"store.root={tmp_path}/none")
    assert "Not counted: judging" in text and re.search(r"^ranking +2 +", text, re.MULTILINE)
    job = build_run(check(composed(*given, f"store.root={tmp_path}/none")))
    shape = model_shape(job, [])
    assert shape is not None
    cost = stage_costs(job, shape)["ranking"]
    row = job.workload.prompt_tokens + 2 * job.workload.completion_tokens
    assert cost.tokens == 20_000 * 5 * 4 * row
    # deberta-v3-large: 24 layers, width 1024; contents, 2 x 256 positions twice; eight devices of 67 TFLOP/s
    each = 2 * 24 * (12 * 1024**2 + 2 * row * 1024 + 4 * 256 * 1024)
    assert cost.hours == pytest.approx(cost.tokens * each / (8 * 67e12 * job.hardware.prefill_share) / 3600)
    faster = build_run(check(composed(*given, "ranker.dtype=tfloat32", f"store.root={tmp_path}/none")))
    assert stage_costs(faster, shape)["ranking"].hours == pytest.approx(cost.hours * 67 / 495)
    alone = build_run(check(composed(*given, "ranker.processes=1", f"store.root={tmp_path}/none")))
    assert stage_costs(alone, shape)["ranking"].hours == pytest.approx(8 * cost.hours)


def test_a_plan_without_a_shape_estimates_nothing_and_does_not_fail(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text, _ = _plan(capsys, f"store.root={tmp_path}/none", "iteration.iterations=1")
    assert "Estimates: none" in text and "Missing: nothing" in text


def test_a_sweep_counts_a_shared_stage_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = [*MODEL, "iteration.iterations=1", f"store.root={tmp_path}/none", "benchmark=[gold]"]
    built = [build_run(check(composed(*given, f"objective={name}"))) for name in ("dpo", "aipo")]
    jobs = [(job, walk(job)) for job in built]
    one, both = sweep_totals(jobs[:1]), sweep_totals(jobs)
    # Of the second job only the training and what is made of its policy is new.
    assert (one.stages, both.stages) == (1 + 2 + 7 + 4, 1 + 2 + 7 + 4 + 5)
    assert one.hours < both.hours < 2 * one.hours
    assert both.device_hours == pytest.approx(8 * both.hours)
    assert both.disk_gib == pytest.approx(2 * one.disk_gib) == pytest.approx(2 * 6 * 7_241_732_096 / 2**30)
    print_sweep(jobs)
    assert "Sweep of 2 jobs: 19 stages to run, shared ones once" in capsys.readouterr().out


def test_idle_devices_by_hand() -> None:
    """2 h on 8 of 32 devices, 1 h on all, half an hour on none: 2 x 24 + 0.5 x 32 of 3.5 x 32 device hours."""
    whole = Allocation((Part("candidates", 2.0, 8, 32), Part("train", 1.0, 32, 32), Part(JUDGING, 0.5, 0, 32)))
    assert whole.device_hours == 112.0 and whole.idle_share == pytest.approx(64 / 112)
    assert whole.without(JUDGING).idle_share == pytest.approx(48 / 96)
    assert idle_share([whole, Allocation((Part("train", 14.0, 8, 8),))]) == pytest.approx(64 / 224)
    assert Allocation(()).idle_share == 0.0
    given_back = Allocation((Part("candidates", 2.0, 8, 8), Part("train", 1.0, 32, 32), Part(JUDGING, 0.5, 0, 0)))
    assert given_back.device_hours == 48.0 and given_back.idle_share == 0.0


def test_devices_that_have_no_work_are_given_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = [*MODEL, "iteration.iterations=2", f"store.root={tmp_path}/none", "trainer.processes=16"]
    given += ["trainer.strategy=fsdp2", "trainer.nodes=2", "judge=gpt_4_1106_preview", "benchmark=[mini_alpaca_eval]"]
    whole, divided = (build_run(check(composed(*given, *more))) for more in ([], ["resources=by_stage"]))
    shape = model_shape(whole, walk(whole))
    held = {part.what: part.held for part in allocation(divided, shape, walk(divided)).parts}
    assert (held["candidates"], held["train"], held[JUDGING]) == (8, 16, 0)
    assert {part.held for part in allocation(whole, shape, walk(whole)).parts} == {16}
    # The base model's answers and each round's draws on one node, each round's training on two; at the end the judge.
    assert successions(divided, walk(divided)) == 1 + 2 * 2 + 1 and successions(whole, walk(whole)) == 1
    costs = stage_costs(divided, shape)
    trained = sum(2 * costs[stage].hours for stage in ("reference", "train"))
    drawn = sum(runs_of(kind, walk(divided)) * cost.hours for kind, cost in costs.items()) - trained
    assert device_hours(divided, costs, walk(divided)) == pytest.approx(8 * drawn + 16 * trained)
    text, _ = _plan(capsys, *given, "resources=by_stage")
    assert "8 devices held, 16 while it trains and none while it judges" in text and "judge_later" not in text
    assert "6 jobs of the cluster, one after the other" in text


def test_a_plan_says_what_waits_for_what(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = [*MODEL, "iteration.iterations=2", f"store.root={tmp_path}/none", "trainer.processes=16"]
    given += ["trainer.strategy=fsdp2", "trainer.nodes=2", "judge=gpt_4_1106_preview", "benchmark=[mini_alpaca_eval]"]
    job = build_run(check(composed(*given)))
    shape = model_shape(job, walk(job))
    found = allocation(job, shape, walk(job))
    parts = {part.what: part for part in found.parts}
    assert parts["train"].working == 16 and parts["candidates"].working == 8
    requests = 3 * job.benchmarks["alpaca_eval"].n_judge_requests
    assert parts[JUDGING].hours == pytest.approx(requests / 300 / 60) and parts[JUDGING].working == 0
    assert "server starts" not in parts, "this sampler has no server to start"
    text, _ = _plan(capsys, *given)
    assert f"{found.idle_share:.1%} of it idle" in text
    assert f"{found.without(JUDGING).idle_share:.1%} idle" in text
    later = build_run(check(composed(*given, "judge_later=true")))
    assert JUDGING not in {part.what for part in allocation(later, shape, walk(later)).parts}


def test_a_server_is_started_once_for_every_policy(tmp_path: Path) -> None:
    given = [*MODEL, "sampler=vllm", "iteration.iterations=2", f"store.root={tmp_path}/none", "benchmark=[gold]"]
    job = build_run(check(composed(*given)))
    drawn = [event.stage for event in walk(job) if event.stage in ("prompts", "candidates", "answers", "kl")]
    assert len(drawn) == 2 + 2 + 3 + 2
    # Answers; then, in each of two rounds, prompts (the proxy scores of the answers took the devices), KL and answers.
    assert server_starts(job, walk(job)) == 1 + 2 * 3
    without = build_run(check(composed(*given, "kl_prompts=0")))
    assert server_starts(without, walk(without)) == 1 + 2 * 2
    parts = allocation(without, model_shape(without, walk(without)), walk(without)).parts
    assert [part for part in parts if part.what == STARTS] == [Part(STARTS, 5 * 5 / 60, 0, 8)]


def test_judge_and_ranker_get_their_bills(tmp_path: Path) -> None:
    given = ["judge=gpt_4_1106_preview", "ranker=llm_judge", "ranker.judge.price.input_per_million=20"]
    given += ["benchmark=[mini_alpaca_eval]", "iteration.iterations=2", f"store.root={tmp_path}/none"]
    config = check(composed(*given))
    workload, price = config["workload"], config["judge"]["price"]
    prompt, reply = workload["judge_prompt_tokens"], workload["judge_reply_tokens"]
    output = reply * price["output_per_million"]
    job = build_run(config)
    judging, ranking = judge_loads(job, walk(job))
    questions = job.benchmarks["alpaca_eval"].n_judge_requests
    assert questions > 100
    # the base model and two trained ones; two rounds of every prompt's candidates
    assert judging.requests == 3 * questions
    assert ranking.requests == 2 * config["iteration"]["prompts"] * config["iteration"]["candidates"]
    each = (prompt * price["input_per_million"] + output) / 1e6
    assert judging.dollars == pytest.approx(3 * questions * each)
    assert ranking.dollars == pytest.approx(ranking.requests * (prompt * 20 + output) / 1e6)
