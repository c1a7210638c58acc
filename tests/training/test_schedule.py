"""The learning rate's course: transformers' cosine, but no round is wholly at rate 0."""

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
from transformers import get_cosine_schedule_with_warmup

from aipo.models.policy import PolicyRef
from aipo.training.reference import compute_reference_logps
from aipo.training.schedule import step_indices, warmup_cosine
from aipo.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
TRAINER = Trainer(learning_rate=1e-2, pairs_per_step=6, tokens_per_batch=80)
PAIRS = pairs(20, seed=3)


def transformers_factors(total: int, ratio: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = get_cosine_schedule_with_warmup(optimizer, math.ceil(ratio * total), total)
    found = []
    for _ in range(total):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(("total", "ratio"), [(2, 0.1), (12, 0.1), (63, 0.1), (12, 0.0), (1, 0.0), (7, 0.5)])
def test_the_schedule_is_transformers_cosine(total: int, ratio: float) -> None:
    found = [warmup_cosine(step, total, ratio) for step in range(total)]
    assert found == pytest.approx(transformers_factors(total, ratio), abs=1e-12)


def test_the_miniatures_round_by_hand() -> None:
    """12 steps, 2 of them warm-up: 0, 1/2, then (1 + cos(pi k / 10)) / 2."""
    found = [warmup_cosine(step, 12, 0.1) for step in range(12)]
    assert found[:3] == [0.0, 0.5, 1.0]
    assert found[7] == pytest.approx(0.5) and found[11] == pytest.approx((1 + math.cos(0.9 * math.pi)) / 2)


def test_a_round_of_one_step_has_the_full_rate() -> None:
    assert transformers_factors(1, 0.1) == [0.0]
    assert warmup_cosine(0, 1, 0.1) == 1.0


@given(st.integers(1, 200), st.floats(0, 1, exclude_max=True))
def test_no_round_is_wholly_at_rate_zero_and_none_is_above_one(total: int, ratio: float) -> None:
    found = [warmup_cosine(step, total, ratio) for step in range(total)]
    assert max(found) > 0.49 and all(0 <= factor <= 1 for factor in found)


@given(st.integers(1, 50), st.integers(1, 9), st.integers(0, 3), st.integers(0, 5))
def test_every_epoch_takes_every_pair_once(count: int, size: int, epoch: int, seed: int) -> None:
    steps = math.ceil(count / size)
    found = [index for step in range(steps) for index in step_indices(epoch * steps + step, count, size, seed)]
    assert sorted(found) == list(range(count))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PolicyRef:
    return build("llama", tmp_path_factory.mktemp("policy"))


def train(policy: PolicyRef, count: int, out: Path, trainer: Trainer = TRAINER) -> tuple[list[dict], dict]:
    rows: list[dict] = []
    config = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "objective" / "dpo.yaml"))
    reference = compute_reference_logps(policy, PAIRS[:count], progress=False)
    summary = trainer.run(
        policy=policy, pairs=PAIRS[:count], reference=reference, objective_config=config, out=out, seed=0,
        log=lambda row: rows.append(dict(row)),
    )  # fmt: skip
    return rows, summary


def test_seven_pairs_in_one_step_move_the_weights(policy: PolicyRef, tmp_path: Path) -> None:
    rows, summary = train(policy, 7, tmp_path, replace(TRAINER, pairs_per_step=32))
    before, after = load_file(Path(policy.path) / "model.safetensors"), load_file(tmp_path / "model/model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert [(row["pairs"], row["learning_rate"]) for row in rows] == [(7, 1e-2)]
    assert summary["pairs_at_rate_zero"] == 0


def test_pairs_that_train_nothing_are_counted_and_many_of_them_warned_of(
    policy: PolicyRef, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "aipo"):
        rows, summary = train(policy, 20, tmp_path / "a")
        assert summary["pairs_at_rate_zero"] == 6 and [row["pairs"] for row in rows] == [6, 6, 6, 2]
        assert (
            "20 pairs make 4 optimizer step(s) of at most 6" in caplog.text and "6 pairs train nothing" in caplog.text
        )
        caplog.clear()
        train(policy, 20, tmp_path / "b", replace(TRAINER, warmup_ratio=0.0))
        train(policy, 20, tmp_path / "c", replace(TRAINER, pairs_per_step=2, tokens_per_batch=400))
        assert not caplog.text
