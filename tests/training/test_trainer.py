"""Training runs: the first loss, the log, determinism, interruptions, processes, adapters, memory."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tiny_models import build, pairs

from aipo.models.policy import PolicyRef
from aipo.records import read_jsonl
from aipo.training.checkpoint import CheckpointError
from aipo.training.loop import NonFiniteError
from aipo.training.lora import Lora
from aipo.training.memory import find_tokens_per_batch, peak_memory_gib, release_cached_memory
from aipo.training.reference import compute_reference_logps
from aipo.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
TRAINER = Trainer(learning_rate=1e-2, pairs_per_step=6, tokens_per_batch=80)
PAIRS = pairs(20, seed=3)


def objective(name: str = "dpo", **coefficients: float) -> dict:
    config = OmegaConf.load(ROOT / "conf" / "objective" / f"{name}.yaml")
    config.loss.update(coefficients)
    return OmegaConf.to_container(config)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PolicyRef:
    return build("llama", tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def reference(policy: PolicyRef):
    return compute_reference_logps(policy, PAIRS, progress=False)


def run(policy: PolicyRef, reference, out: Path, trainer: Trainer = TRAINER, config: dict | None = None, **more):
    rows: list[dict] = []
    arguments = {"pairs": PAIRS, "reference": reference, "seed": 0, "log": lambda row: rows.append(dict(row))} | more
    summary = trainer.run(policy=policy, objective_config=config or objective(), out=out, **arguments)
    return rows, summary


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def equal(one: dict, other: dict, tolerance: float = 0.0) -> bool:
    return one.keys() == other.keys() and all(
        torch.allclose(one[name], other[name], atol=tolerance, rtol=0) for name in one
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi_head_bias"])
def test_the_first_loss_is_ln_2_dropout_or_not(family: str, tmp_path: Path) -> None:
    """gpt2 and phi come with dropout of 0.3."""
    start = build(family, tmp_path / "start")
    before = weights_of(start)
    cached = compute_reference_logps(start, PAIRS, progress=False)
    rows, _ = run(start, cached, tmp_path / "out", replace(TRAINER, epochs=6))
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[0]["chosen_reward"] == pytest.approx(0, abs=1e-5) == rows[0]["rejected_reward"]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert equal(before, weights_of(start))  # the reference's weights are untouched
    assert not equal(before, weights(tmp_path / "out"))


def weights_of(policy: PolicyRef) -> dict[str, torch.Tensor]:
    return load_file(Path(policy.path) / "model.safetensors")


def test_the_log_is_complete(policy: PolicyRef, reference, tmp_path: Path) -> None:
    trainer = replace(TRAINER, epochs=2, evaluate_every_steps=3)
    held_out = pairs(5, seed=9)
    held_out = [replace(pair, pair_id=f"held {pair.pair_id}") for pair in held_out]
    rows, summary = run(
        policy,
        reference,
        tmp_path,
        trainer,
        evaluation_pairs=held_out,
        evaluation_reference=compute_reference_logps(policy, held_out, progress=False),
    )
    assert [row["step"] for row in rows] == list(range(1, 9))  # two epochs of 6 + 6 + 6 + 2 pairs
    expected = {
        "step",
        "loss",
        "chosen_reward",
        "rejected_reward",
        "reward_margin",
        "reward_accuracy",
        "reference_margin",
        "reference_agreement",
        "chosen_tokens",
        "rejected_tokens",
        "grad_norm",
        "learning_rate",
        "tokens_per_s",
        "pairs_per_s",
        "peak_memory_gib",
    }
    assert all(expected <= row.keys() for row in rows)
    evaluated = [row["step"] for row in rows if "evaluation_loss" in row]
    assert evaluated == [3, 6, 8] and summary["evaluation_loss"] == rows[-1]["evaluation_loss"]
    assert summary["steps"] == 8 and summary["pairs"] == 20
    assert read_jsonl(tmp_path / "metrics.jsonl") == rows
    mean_agreement = sum(row.chosen > row.rejected for row in reference) / 20
    counts = [6, 6, 6, 2]
    epoch = sum(row["reference_agreement"] * count for row, count in zip(rows, counts, strict=False)) / 20
    assert epoch == pytest.approx(mean_agreement)
    assert not (tmp_path / "checkpoints").exists()


def test_the_written_folder_loads_and_equals_the_trained_model(policy: PolicyRef, reference, tmp_path: Path) -> None:
    run(policy, reference, tmp_path)
    written = PolicyRef(str(tmp_path / "model"))
    found = compute_reference_logps(written, PAIRS, progress=False)
    assert all(math.isfinite(row.chosen) for row in found)
    assert written.load_tokenizer().get_vocab() == policy.load_tokenizer().get_vocab()
    better = sum(
        (row.chosen - row.rejected) - (old.chosen - old.rejected) for row, old in zip(found, reference, strict=True)
    )
    assert better > 0


def test_the_same_seed_gives_the_same_bits_and_another_does_not(policy: PolicyRef, reference, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        run(policy, reference, tmp_path / name, seed=seed)
    assert equal(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert not equal(weights(tmp_path / "one"), weights(tmp_path / "three"))


@pytest.mark.parametrize("name", ["dpo", "aot"])  # one per pair, and one that couples the pairs of a batch
def test_micro_batches_change_nothing_but_rounding(name: str, policy: PolicyRef, reference, tmp_path: Path) -> None:
    runs = {tokens: tmp_path / str(tokens) for tokens in (1, 10**6)}
    for tokens, out in runs.items():
        run(policy, reference, out, replace(TRAINER, tokens_per_batch=tokens, learning_rate=1e-3), objective(name))
    assert equal(weights(runs[1]), weights(runs[10**6]), 2e-5)


def test_gradient_checkpointing_changes_nothing(policy: PolicyRef, reference, tmp_path: Path) -> None:
    run(policy, reference, tmp_path / "plain")
    run(policy, reference, tmp_path / "checkpointed", replace(TRAINER, gradient_checkpointing=True))
    assert equal(weights(tmp_path / "plain"), weights(tmp_path / "checkpointed"), 1e-6)


def test_packed_pairs_train_the_same_policy(
    policy: PolicyRef, reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def packs(self, pairs):
        return "packed"

    monkeypatch.setattr("aipo.models.layouts.LayerCosts.cheapest", packs)
    trainer = replace(TRAINER, learning_rate=1e-3, layout="cheapest")
    found = trainer.reference(policy=policy, pairs=PAIRS, out=tmp_path)
    for one, other in zip(found, reference, strict=True):
        assert [one.chosen, one.rejected] == pytest.approx([other.chosen, other.rejected], abs=2e-5)
    rows, _ = run(policy, found, tmp_path / "packed", trainer)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    plain, _ = run(policy, reference, tmp_path / "rows", replace(TRAINER, learning_rate=1e-3))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in plain], abs=1e-5)
    assert equal(weights(tmp_path / "packed"), weights(tmp_path / "rows"), 2e-5)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    policy: PolicyRef, reference, tmp_path: Path
) -> None:
    broken = [replace(row, chosen=float("nan")) if row.pair_id == "p7" else row for row in reference]
    with pytest.raises(NonFiniteError, match=r"step (\d+): loss nan, .*weights after step") as caught:
        run(policy, broken, tmp_path)
    step = int(str(caught.value).split()[1].rstrip(":"))
    (kept,) = (tmp_path / "checkpoints").iterdir()
    assert torch.load(kept / "state.pt", weights_only=True)["step"] == step - 1
    saved = [value for file in kept.glob("*.safetensors") for value in load_file(file).values()]
    assert len(saved) > 30 and all(torch.isfinite(value).all() for value in saved)
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, step))


def test_a_checkpoint_of_another_run_is_refused(policy: PolicyRef, reference, tmp_path: Path) -> None:
    broken = [replace(row, chosen=float("nan")) if row.pair_id == "p7" else row for row in reference]
    with pytest.raises(NonFiniteError):
        run(policy, broken, tmp_path)
    with pytest.raises(CheckpointError, match="other settings, pairs or model"):
        run(policy, broken, tmp_path, replace(TRAINER, learning_rate=1e-3))


@pytest.mark.parametrize("damage", ["empty", "cut", "a byte of a tensor", "half a tensor"])
def test_a_damaged_checkpoint_is_named_with_its_remedy(policy: PolicyRef, reference, tmp_path: Path, damage) -> None:
    broken = [replace(row, chosen=float("nan")) if row.pair_id == "p7" else row for row in reference]
    with pytest.raises(NonFiniteError):
        run(policy, broken, tmp_path)
    (kept,) = (tmp_path / "checkpoints").iterdir()
    name = "*.safetensors" if damage.endswith("tensor") else "state.pt"
    (file,) = kept.glob(name)
    content = bytearray(file.read_bytes())
    if damage == "a byte of a tensor":
        content[len(content) // 2] ^= 1
    kept_bytes = {"empty": 0, "cut": len(content) // 2, "half a tensor": len(content) - 64}.get(damage, len(content))
    file.write_bytes(content[:kept_bytes])
    told = rf"{file.name} (cannot be read|is not as it was written) .*`mv .*checkpoints/step-\d+ "
    with pytest.raises(CheckpointError, match=told):
        run(policy, broken, tmp_path)
    kept.rename(f"{kept}.damaged")
    with pytest.raises(NonFiniteError):  # from the start
        run(policy, broken, tmp_path)


def test_a_checkpoint_is_resumed_after_the_store_has_moved(policy: PolicyRef, reference, tmp_path: Path) -> None:
    """The policy's folder and the run's are elsewhere; the bits are those of a run that stayed."""
    trainer = replace(TRAINER, checkpoint_every_steps=1)
    rows, _ = run(policy, reference, tmp_path / "stayed", trainer)
    (kept,) = (tmp_path / "stayed" / "checkpoints").iterdir()
    shutil.copytree(policy.path, tmp_path / "elsewhere")
    moved = tmp_path / "moved"
    shutil.copytree(kept, moved / "checkpoints" / kept.name)
    shutil.copy(tmp_path / "stayed" / "metrics.jsonl", moved)
    again, _ = run(replace(policy, path=str(tmp_path / "elsewhere")), reference, moved, trainer)
    assert [row["step"] for row in again] == [row["step"] for row in rows]
    assert equal(weights(tmp_path / "stayed"), weights(moved))


def test_bad_inputs_are_told_before_a_model_is_loaded(reference, tmp_path: Path) -> None:
    nowhere = PolicyRef(str(tmp_path / "no model here"))
    with pytest.raises(ValueError, match="at least one pair to train on, got none"):
        run(nowhere, reference, tmp_path, pairs=[])
    with pytest.raises(ValueError, match="have no reference log-probs"):
        run(nowhere, reference[:3], tmp_path)
    with pytest.raises(ValueError, match="exceed max_length=5"):
        run(nowhere, reference, tmp_path, replace(TRAINER, max_length=5))
    with pytest.raises(ValueError, match="trainer.betas must be two numbers"):
        replace(TRAINER, betas=(0.9,))
    with pytest.raises(ValueError, match="null with strategy fsdp2"):
        replace(TRAINER, strategy="fsdp2", lora=Lora())


def test_bfloat16_keeps_float32_masters(tmp_path: Path) -> None:
    """At 1e-5 a bfloat16 weight of 0.05 cannot move in one step; its master moves, and shows after enough of them."""
    start = build("llama", tmp_path / "start")
    model = start.load_model().bfloat16()
    model.save_pretrained(tmp_path / "half")
    start.load_tokenizer().save_pretrained(tmp_path / "half")
    half = PolicyRef(str(tmp_path / "half"), dtype="bfloat16")
    cached = compute_reference_logps(half, PAIRS, progress=False)
    trainer = replace(TRAINER, learning_rate=1e-5, epochs=12, warmup_ratio=0.0)
    run(half, cached, tmp_path / "out", trainer)
    before, after = load_file(tmp_path / "half" / "model.safetensors"), weights(tmp_path / "out")
    assert all(value.dtype == torch.bfloat16 for value in after.values())
    moved = sum(int((before[name] != after[name]).sum()) for name in before)
    assert moved > 0.01 * sum(value.numel() for value in before.values())


def test_lora_trains_adapters_only_and_writes_a_merged_model(policy: PolicyRef, reference, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    rows, _ = run(policy, reference, tmp_path, replace(TRAINER, lora=Lora(rank=4), epochs=6))
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6) and rows[-1]["loss"] < rows[0]["loss"]
    before, after = weights_of(policy), weights(tmp_path)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("proj" in name for name in changed)


def test_tokens_per_batch_is_found_under_a_limit(policy: PolicyRef, reference, tmp_path: Path) -> None:
    limit = peak_memory_gib(torch.device("cpu")) + 0.5
    _, summary = run(policy, reference, tmp_path, replace(TRAINER, tokens_per_batch=None, memory_limit_gib=limit))
    assert summary["tokens_per_batch"] >= 40
    with pytest.raises(MemoryError, match="raise memory_limit_gib"):
        run(policy, reference, tmp_path / "small", replace(TRAINER, tokens_per_batch=None, memory_limit_gib=0.001))


def test_one_row_at_a_time_where_a_second_does_not_fit() -> None:
    def device_with_room_for(most: int):
        def attempt(rows: int) -> int:
            if rows > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return 100 * rows

        return attempt

    cpu, limit = torch.device("cpu"), peak_memory_gib(torch.device("cpu")) + 1
    assert find_tokens_per_batch(device_with_room_for(1), cpu, limit, 3200, 0) == 100
    assert find_tokens_per_batch(device_with_room_for(2), cpu, limit, 3200, 0) == 3200
    with pytest.raises(MemoryError, match="the longest row does not fit"):
        find_tokens_per_batch(device_with_room_for(0), cpu, limit, 3200, 0)


WORKER = """
import json, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from aipo.models.policy import PolicyRef
from aipo.records import Pair, read_parquet
from aipo.records import ReferenceLogps
from aipo.training.trainer import Trainer
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
def log(row):
    print(row["step"], flush=True)
    time.sleep(float(sys.argv[3]))
trainer = Trainer(learning_rate=1e-2, pairs_per_step=6, tokens_per_batch=80, epochs=2, checkpoint_every_steps=1)
trainer.run(policy=PolicyRef(str(folder / "model")), pairs=read_parquet(folder / "pairs.parquet", Pair),
    reference=read_parquet(folder / "reference.parquet", ReferenceLogps),
    objective_config=json.loads((folder / "objective.json").read_text()), out=out, seed=0, log=log)
"""


@pytest.mark.slow
def test_killed_in_either_epoch_the_weights_are_the_same_bits(policy: PolicyRef, reference, tmp_path: Path) -> None:
    from shutil import copytree

    from aipo.records import write_parquet

    copytree(policy.path, tmp_path / "model")
    write_parquet(tmp_path / "pairs.parquet", PAIRS)
    write_parquet(tmp_path / "reference.parquet", reference)
    (tmp_path / "objective.json").write_text(json.dumps(objective()))

    def command(name: str, pause: float) -> list[str]:
        return [sys.executable, "-c", WORKER, str(tmp_path), str(tmp_path / name), str(pause)]

    subprocess.run(command("whole", 0), check=True, cwd=ROOT)
    for kill_after in (2, 6):  # steps 1-4 are epoch 0, 5-8 epoch 1
        process = subprocess.Popen(command("broken", 0.3), stdout=subprocess.PIPE, text=True, cwd=ROOT)
        while int(process.stdout.readline()) < kill_after:
            pass
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert any((tmp_path / "broken" / "checkpoints").iterdir())
    subprocess.run(command("broken", 0), check=True, cwd=ROOT)
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    steps = [row["step"] for row in read_jsonl(tmp_path / "broken" / "metrics.jsonl")]
    assert steps == list(range(1, 9))


def test_cached_gpu_memory_is_released_only_where_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    release_cached_memory()
    assert calls == []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    release_cached_memory()
    assert calls == ["empty"]
