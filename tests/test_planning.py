"""The planner's arithmetic, against published sizes and hand-made sums."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate

from aipo.planning.costs import (
    Hardware,
    Workload,
    decoding_cost,
    devices_per_replica,
    forward_cost,
    training_cost,
    training_memory,
)
from aipo.planning.shapes import ModelShape

ROOT = Path(__file__).resolve().parent.parent
TINY = ModelShape(2, 8, 16, 2, 1, 4, 10, False)
DEVICE = Hardware(1, 1.0, 1.0, 1.0, 0.5, 0.25, 0.5)
LENGTHS = Workload(10, 20, 20, 100, 10, 1.0, 100, 4)


def test_parameters_by_hand() -> None:
    # attention 2*8*8 + 2*8*4 = 192, MLP 3*8*16 = 384, norms 16: 592 a layer; embeddings 2*80; final norm 8
    assert TINY.parameters == 2 * 592 + 160 + 8


def test_parameters_equal_transformers() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=2, hidden_size=8, intermediate_size=16, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=10, tie_word_embeddings=False,
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
        ("mistral_nemo_instruct_2407", 12.2), ("gemma_2_27b_it", 27.2), ("mistral_large_2407", 123),
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


def test_memory_by_hand() -> None:
    memory = training_memory(TINY, DEVICE, row_tokens=50, checkpointing=False, trained_share=1.0, bytes_each=4)
    assert memory.weights * 2**30 == TINY.parameters * 4
    assert memory.gradients * 2**30 == pytest.approx(TINY.parameters * 4)
    assert memory.optimizer * 2**30 == pytest.approx(TINY.parameters * 8)
    assert memory.logits * 2**30 == pytest.approx(50 * 10 * 8)
    assert memory.activations * 2**30 == pytest.approx(2 * 50 * 4 * (80 + 48))


def test_hardware_refuses_zero() -> None:
    with pytest.raises(ValueError, match="hardware.devices must be positive, got 0"):
        Hardware(0, 1.0, 1.0, 1.0, 0.5, 0.25, 0.5)
