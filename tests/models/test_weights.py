"""Weights that do not fit their config, or are not finite, are refused by name: before a run and when they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import build

from aipo.models.policy import PolicyRef
from aipo.models.weights import ModelError, first_not_finite

Weights = dict[str, torch.Tensor]
FAMILIES = ("llama", "llama_tied", "gpt2", "gemma2")


def damaged(policy: PolicyRef, damage: Callable[[Weights, str], None]) -> tuple[PolicyRef, str]:
    """The policy after `damage` to its weights, and the name of the tensor that was to be damaged."""
    file = Path(policy.path) / "model.safetensors"
    weights = load_file(file)
    name = sorted(weights)[2]
    damage(weights, name)
    save_file(weights, file, metadata={"format": "pt"})
    return policy, name


def missing(weights: Weights, name: str) -> None:
    del weights[name]


def unexpected(weights: Weights, name: str) -> None:
    weights[f"{name}.more"] = weights[name].clone()


def cut(weights: Weights, name: str) -> None:
    weights[name] = weights[name][:1].clone()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("damage", "told"),
    [(missing, "missing 1 tensor"), (unexpected, "unexpected 1 tensor"), (cut, "other sizes in 1 tensor")],
)
def test_a_tensor_that_does_not_fit_is_named(family: str, damage, told: str, tmp_path: Path) -> None:
    policy, name = damaged(build(family, tmp_path), damage)
    (line,) = policy.missing()
    assert told in line and name in line and str(tmp_path) in line
    for load in (policy.load_model, policy.load_masters):
        with pytest.raises(ModelError, match=told) as caught:
            load()
        assert name in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    def spoil(weights: Weights, name: str) -> None:
        weights[name].view(-1)[-1] = value

    policy, name = damaged(build("llama", tmp_path), spoil)
    assert replace(policy, chat_template="{{ messages[0].content }}").missing() == []  # no weight is read before a run
    for load in (policy.load_model, replace(policy, dtype="bfloat16").load_model, policy.load_masters):
        with pytest.raises(ModelError, match="values that are not finite") as caught:
            load()
        assert name in str(caught.value)


def test_weights_beyond_the_range_of_float16_are_not_finite_there(tmp_path: Path) -> None:
    def enlarge(weights: Weights, name: str) -> None:
        weights[name].view(-1)[0] = 1e6

    policy, name = damaged(build("llama", tmp_path), enlarge)
    policy.load_model()
    with pytest.raises(ModelError, match=rf"{name} hold values that are not finite .* in torch.float16"):
        replace(policy, dtype="float16").load_model()


def test_a_file_that_ends_early_is_told(tmp_path: Path) -> None:
    policy = build("llama", tmp_path)
    file = Path(policy.path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="its weights cannot be loaded"):
        policy.load_model()
    (line,) = policy.missing()
    assert "its weights cannot be loaded" in line


def test_the_first_tensor_that_is_not_finite() -> None:
    fine = torch.ones(3)
    assert first_not_finite([("a", fine), ("b", torch.tensor([])), ("c", torch.tensor([1]))]) is None
    assert first_not_finite([("a", fine), ("b", torch.tensor([1.0, float("nan")])), ("c", fine / 0)]) == "b"
