"""What a bfloat16 policy learns is kept: from step to step, in the sampled copy, and from round to round."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tiny_models import build, pairs

from aipo.models.policy import PolicyRef
from aipo.training.lora import Lora
from aipo.training.reference import compute_reference_logps
from aipo.training.trainer import Trainer
from aipo.training.weights.rounding import rounded

ROOT = Path(__file__).resolve().parents[2]
PAIRS = pairs(8, seed=3)
TRAINER = Trainer(learning_rate=1e-6, epochs=20, pairs_per_step=8, tokens_per_batch=10**6)
"""20 steps at 1e-6: an update is at most 2e-5, where half a bfloat16 step of a weight of 0.02 is 6e-5."""


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> PolicyRef:
    """A policy on the grid of bfloat16, as a hub model is."""
    folder = tmp_path_factory.mktemp("policy")
    start = build("llama", folder / "start")
    start.load_model().bfloat16().save_pretrained(folder / "half")
    start.load_tokenizer().save_pretrained(folder / "half")
    return PolicyRef(str(folder / "half"), dtype="bfloat16")


def train(policy: PolicyRef, out: Path, trainer: Trainer = TRAINER, name: str = "dpo", seed: int = 0):
    rows: list[dict] = []
    config = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "objective" / f"{name}.yaml"))
    summary = trainer.run(
        policy=policy, pairs=PAIRS, reference=trainer.reference(policy=policy, pairs=PAIRS, out=out),
        objective_config=config, out=out, seed=seed, log=lambda row: rows.append(dict(row)),
    )  # fmt: skip
    return rows, summary


def successor(policy: PolicyRef, out: Path) -> PolicyRef:
    """The trained policy, as the train stage describes it."""
    return replace(TRAINER, keep_masters=(out / "masters").exists()).trained(policy, out)


def margin(model_of: PolicyRef) -> float:
    """The mean margin of the pairs in nats, computed in float32 with the masters."""
    rows = compute_reference_logps(model_of, PAIRS, progress=False, dtype="float32")
    return sum(row.chosen - row.rejected for row in rows) / len(rows)


def sampled_margin(policy: PolicyRef) -> float:
    """The same with the rounded weights that are sampled; exact arithmetic, so that rounding of weights alone shows."""
    return margin(PolicyRef(policy.path))


@pytest.fixture(scope="module")
def gained(half: PolicyRef, tmp_path_factory: pytest.TempPathFactory) -> float:
    """What the same 20 steps gain in a float32 policy."""
    out = tmp_path_factory.mktemp("exact")
    policy = PolicyRef(half.path)
    train(policy, out)
    return margin(successor(policy, out)) - margin(policy)


def test_after_20_steps_the_saved_policy_keeps_the_margin_gained(
    half: PolicyRef, gained: float, tmp_path: Path
) -> None:
    _, summary = train(half, tmp_path)
    trained = successor(half, tmp_path)
    assert gained > 0
    assert margin(trained) - margin(half) == pytest.approx(gained, rel=0.05)
    assert sampled_margin(trained) - margin(half) == pytest.approx(gained, rel=0.2)  # 1e4 weights; more average better
    assert summary["share_of_update_kept"] == pytest.approx(1, abs=0.1)
    assert 0.01 < summary["share_of_weights_changed"] < 0.9
    assert {value.dtype for value in load_file(tmp_path / "model/model.safetensors").values()} == {torch.bfloat16}
    assert {value.dtype for value in load_file(tmp_path / "masters/model.safetensors").values()} == {torch.float32}


def test_without_masters_the_round_is_lost_and_that_is_told(
    half: PolicyRef, gained: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "aipo"):
        _, summary = train(half, tmp_path, replace(TRAINER, keep_masters=False))
    assert abs(sampled_margin(successor(half, tmp_path)) - margin(half)) < 0.3 * gained
    assert summary["share_of_update_kept"] < 0.3 and not (tmp_path / "masters").exists()
    assert "of this round's update survives in the bfloat16 weights" in caplog.text
    assert "set trainer.keep_masters=true" in caplog.text


def test_a_second_round_goes_on_from_the_masters(half: PolicyRef, tmp_path: Path) -> None:
    """Two rounds of 20 steps move the masters twice; the second starts where the first ended, at a loss of ln 2."""
    train(half, tmp_path / "one")
    first = successor(half, tmp_path / "one")
    rows, summary = train(first, tmp_path / "two")
    second = successor(half, tmp_path / "two")
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert summary["share_of_update_kept"] == pytest.approx(1, abs=0.1)
    start, one, two = (margin(policy) for policy in (half, first, second))
    assert start < one < two
    before = load_file(tmp_path / "one/masters/model.safetensors")
    after = load_file(tmp_path / "two/masters/model.safetensors")
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 1e-6 < moved <= 2.1e-5  # Adam moves a weight by at most about the rate in a step


def test_the_sampled_copy_is_the_rounded_masters(half: PolicyRef, tmp_path: Path) -> None:
    train(half, tmp_path)
    masters = load_file(tmp_path / "masters/model.safetensors")
    for name, copy in load_file(tmp_path / "model/model.safetensors").items():
        assert torch.equal(copy, rounded(masters[name], torch.bfloat16, name))


def test_a_policy_sampled_in_bfloat16_can_be_trained_in_float32(half: PolicyRef, gained: float, tmp_path: Path) -> None:
    rows, _ = train(half, tmp_path, replace(TRAINER, dtype="float32"))
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert margin(successor(half, tmp_path)) - margin(half) == pytest.approx(gained, rel=1e-3)
    assert {value.dtype for value in load_file(tmp_path / "model/model.safetensors").values()} == {torch.bfloat16}
    again, _ = train(successor(half, tmp_path), tmp_path / "next", replace(TRAINER, dtype="float32"))
    assert again[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_a_policy_sampled_in_float16_is_trained_in_float32_or_not_at_all(half: PolicyRef, tmp_path: Path) -> None:
    policy = replace(half, dtype="float16")
    with pytest.raises(ValueError, match=r"float16 is not supported.*trainer.dtype=float32"):
        train(policy, tmp_path)
    train(policy, tmp_path, replace(TRAINER, dtype="float32"))
    assert {value.dtype for value in load_file(tmp_path / "model/model.safetensors").values()} == {torch.float16}


def test_adapters_of_a_bfloat16_policy_are_merged_into_its_masters(half: PolicyRef, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    trainer = replace(TRAINER, lora=Lora(rank=4), learning_rate=1e-4)
    _, summary = train(half, tmp_path / "one", trainer)
    first = successor(half, tmp_path / "one")
    rows, _ = train(first, tmp_path / "two", trainer)
    assert summary["share_of_update_kept"] == pytest.approx(1, abs=0.15)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert margin(half) < margin(first) < margin(successor(half, tmp_path / "two"))


def test_a_float32_policy_is_one_folder_and_keeps_everything(half: PolicyRef, tmp_path: Path) -> None:
    _, summary = train(PolicyRef(half.path), tmp_path)
    assert summary["share_of_update_kept"] == 1 and summary["share_of_weights_changed"] > 0.5
    assert not (tmp_path / "masters").exists()


def test_masters_that_are_gone_are_told(half: PolicyRef, tmp_path: Path) -> None:
    from aipo.models.weights import ModelError

    with pytest.raises(ModelError, match=r"nowhere: the float32 weights .* trainer.keep_masters=false"):
        replace(half, masters=str(tmp_path / "nowhere")).load_masters()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_masters_go_on_in_two_processes(half: PolicyRef, gained: float, strategy: str, tmp_path: Path) -> None:
    """Two rounds in two processes: the reference pass and the first step compute with the same weights."""
    trainer = replace(TRAINER, processes=2, strategy=strategy, epochs=10)
    policy, margins = half, [margin(half)]
    for name in ("one", "two"):
        rows, summary = train(policy, tmp_path / name, trainer)
        policy = successor(half, tmp_path / name)
        margins.append(margin(policy))
        # bfloat16 passes of other batch shapes; rounding of a master by half a step would move it by far more
        assert rows[0]["loss"] == pytest.approx(math.log(2), abs=2e-3)
        assert summary["share_of_update_kept"] == pytest.approx(1, abs=0.15)
    assert margins[1] - margins[0] > 0.25 * gained and margins[2] - margins[1] > 0.25 * gained


FINITE = st.floats(-(2.0**127), 2.0**127, width=32)


@given(st.lists(FINITE, min_size=1, max_size=40), st.text(max_size=8))
def test_a_copy_is_one_of_the_two_neighbours(values: list[float], name: str) -> None:
    weights = torch.tensor(values, dtype=torch.float32)
    copy = rounded(weights, torch.bfloat16, name).float()
    toward_zero = (weights.view(torch.int32) & ~0xFFFF).view(torch.float32)
    away = ((weights.view(torch.int32) & ~0xFFFF) + 0x10000).view(torch.float32)
    exact = toward_zero == weights
    assert bool(((copy == toward_zero) | (~exact & (copy == away))).all())


@given(st.lists(FINITE, min_size=1, max_size=40))
def test_what_is_bfloat16_already_is_copied_exactly(values: list[float]) -> None:
    weights = torch.tensor(values).bfloat16()
    assert torch.equal(rounded(weights.float(), torch.bfloat16, "w"), weights)


def test_dithering_keeps_the_mean_and_the_same_weights_give_the_same_copy() -> None:
    """A weight a quarter of a step above 1 is rounded up a quarter of the time: 1 + 2^-7 is the next bfloat16."""
    weights = torch.full((1000, 400), 1 + 2.0**-9)
    copy = rounded(weights, torch.bfloat16, "w")
    share = float((copy > 1).float().mean())
    assert share == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 4e5))
    rows = (copy > 1).float().mean(1)
    assert float(rows.std()) == pytest.approx(math.sqrt(0.25 * 0.75 / 400), rel=0.15)  # as if independent
    assert torch.equal(copy, rounded(weights.clone(), torch.bfloat16, "w"))
    assert not torch.equal(copy, rounded(weights, torch.bfloat16, "v"))
    assert torch.equal(rounded(weights, torch.bfloat16, None), torch.ones(1000, 400).bfloat16())
    parts = torch.cat([weights.view(-1)[:70_000], -weights.view(-1)[70_000:]])  # another chunk, another sign
    assert torch.equal(rounded(parts, torch.bfloat16, "w").abs(), copy.view(-1))


def test_a_weight_that_rises_changes_its_copy_once() -> None:
    path = torch.linspace(1, 1 + 2.0**-7, 50)
    copies = torch.stack([rounded(torch.full((200,), float(value)), torch.bfloat16, "w") for value in path]).float()
    assert bool((copies.diff(dim=0) >= 0).all()) and bool((copies.diff(dim=0) > 0).sum(0).eq(1).all())


def test_what_is_not_finite_stays_so() -> None:
    bits = torch.tensor([0x7FFFFFFF, 0x7FC00000, 0x7F800001, 0x7F800000, -1, -0x800000], dtype=torch.int32)
    assert not bool(rounded(bits.view(torch.float32), torch.bfloat16, "w").isfinite().any())
