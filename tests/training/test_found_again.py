"""How many tokens a micro-batch has, where that is found: again where a resumed run has other circumstances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tiny_models import build, pairs

from aipo.models.policy import PolicyRef
from aipo.training import Trainer, loop

ROOT = Path(__file__).resolve().parents[2]
PAIRS = pairs(12, seed=3)
TRAINER = Trainer(
    learning_rate=1e-2, pairs_per_step=4, warmup_ratio=0.0, checkpoint_every_steps=1, memory_limit_gib=64.0
)


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PolicyRef:
    return build("llama", tmp_path_factory.mktemp("policy"))


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The limits under which was searched; what is found is 10 tokens a GiB."""
    limits: list[float | None] = []

    def find(attempt: Any, device: Any, limit_gib: float, largest: int, reserve_bytes: int) -> int:
        limits.append(limit_gib)
        attempt(1)
        if limit_gib < 1:
            raise MemoryError("one row needs more")
        return round(10 * limit_gib)

    monkeypatch.setattr(loop, "find_tokens_per_batch", find)
    return limits


def run(policy: PolicyRef, out: Path, trainer: Trainer, *, stop_at: int | None = None) -> int:
    def log(row: dict[str, float]) -> None:
        if row["step"] == stop_at:
            raise Stopped

    config = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "objective" / "simpo.yaml"))
    summary = trainer.run(policy=policy, pairs=PAIRS, reference=None, objective_config=config, out=out, seed=0, log=log)
    return int(summary["tokens_per_batch"])


def stopped(policy: PolicyRef, out: Path, trainer: Trainer = TRAINER) -> None:
    with pytest.raises(Stopped):  # of step 1 the checkpoint is there
        run(policy, out, trainer, stop_at=2)


def forget(out: Path) -> None:
    """Leave the checkpoint as one of before, which says nothing of where its number was found."""
    (state,) = (out / "checkpoints").glob("step-*/state.pt")
    content = torch.load(state, weights_only=True)
    content["values"].pop("found_under", None)
    torch.save(content, state)


def test_the_same_circumstances_keep_it_and_every_bit(
    policy: PolicyRef, tmp_path: Path, searched: list[float | None]
) -> None:
    stopped(policy, tmp_path / "broken")
    assert run(policy, tmp_path / "broken", TRAINER) == 640 and searched == [64.0]
    run(policy, tmp_path / "whole", TRAINER)
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("broken", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("limit", "tokens"), [(8.0, 80), (128.0, 1280)])
def test_another_limit_is_searched_under(
    policy: PolicyRef, tmp_path: Path, searched: list[float | None], limit: float, tokens: int
) -> None:
    stopped(policy, tmp_path)
    assert run(policy, tmp_path, replace(TRAINER, memory_limit_gib=limit)) == tokens
    assert searched == [64.0, limit]


def test_a_limit_under_which_nothing_fits_ends_a_resumed_run_too(
    policy: PolicyRef, tmp_path: Path, searched: list[float | None]
) -> None:
    """It went on with the number of the first limit."""
    stopped(policy, tmp_path)
    with pytest.raises(MemoryError, match="one row needs more"):
        run(policy, tmp_path, replace(TRAINER, memory_limit_gib=0.5))
    assert run(policy, tmp_path, TRAINER) == 640, "the checkpoint is as it was"


def test_without_a_limit_a_cpu_takes_its_default(
    policy: PolicyRef, tmp_path: Path, searched: list[float | None]
) -> None:
    stopped(policy, tmp_path)
    assert run(policy, tmp_path, replace(TRAINER, memory_limit_gib=None)) == 2048 and searched == [64.0]


@pytest.mark.parametrize(("limit", "tokens", "more"), [(8.0, 80, [8.0]), (128.0, 640, [128.0]), (None, 640, [])])
def test_a_checkpoint_of_before_keeps_it_where_the_limit_allows(
    policy: PolicyRef,
    tmp_path: Path,
    searched: list[float | None],
    limit: float | None,
    tokens: int,
    more: list[float],
) -> None:
    stopped(policy, tmp_path)
    forget(tmp_path)
    assert run(policy, tmp_path, replace(TRAINER, memory_limit_gib=limit)) == tokens and searched == [64.0, *more]


def test_a_number_that_was_set_is_never_searched(
    policy: PolicyRef, tmp_path: Path, searched: list[float | None]
) -> None:
    trainer = replace(TRAINER, tokens_per_batch=80)
    stopped(policy, tmp_path, trainer)
    assert run(policy, tmp_path, replace(trainer, memory_limit_gib=1.0)) == 80 and searched == []
