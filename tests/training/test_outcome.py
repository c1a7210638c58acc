"""What a round leaves: held-out pairs evaluated, readable files, and never weights that are not finite."""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tiny_models import build, pairs

from aipo.models.policy import PolicyRef
from aipo.records import read_jsonl
from aipo.training.job import NonFiniteError, hold_out
from aipo.training.reference import compute_reference_logps
from aipo.training.trainer import Trainer
from aipo.training.weights.artifact import Update, write_policy

ROOT = Path(__file__).resolve().parents[2]
TRAINER = Trainer(learning_rate=1e-2, pairs_per_step=6, tokens_per_batch=400)
PAIRS = pairs(20, seed=3)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PolicyRef:
    return build("llama", tmp_path_factory.mktemp("policy"))


def train(policy: PolicyRef, out: Path, trainer: Trainer = TRAINER, seed: int = 0) -> tuple[list[dict], dict]:
    rows: list[dict] = []
    config = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "objective" / "dpo.yaml"))
    summary = trainer.run(
        policy=policy, pairs=PAIRS, reference=compute_reference_logps(policy, PAIRS, progress=False),
        objective_config=config, out=out, seed=seed, log=lambda row: rows.append(dict(row)),
    )  # fmt: skip
    return rows, summary


def test_a_share_of_the_pairs_is_held_out_and_evaluated(policy: PolicyRef, tmp_path: Path) -> None:
    trainer = replace(TRAINER, evaluation_share=0.2, evaluate_every_steps=1)
    rows, summary = train(policy, tmp_path, trainer)
    assert (summary["pairs"], summary["evaluation_pairs"]) == (16, 4)
    assert [row["pairs"] for row in rows] == [6, 6, 4]
    assert all("evaluation_loss" in row for row in rows)
    assert summary["evaluation_loss"] == rows[-1]["evaluation_loss"] > 0
    without, _ = train(policy, tmp_path / "without")
    assert not any("evaluation_loss" in row for row in without)


def test_the_seed_alone_says_which_pairs_are_held_out() -> None:
    trained, held = hold_out(PAIRS, 0.2, seed=0)
    assert (len(trained), len(held)) == (16, 4)
    assert sorted([*trained, *held], key=PAIRS.index) == PAIRS
    assert hold_out(PAIRS, 0.2, seed=0) == (trained, held) != hold_out(PAIRS, 0.2, seed=1)
    assert hold_out(PAIRS, 0.0, seed=0) == (PAIRS, ())
    assert [len(part) for part in hold_out(PAIRS[:3], 0.01, seed=0)] == [2, 1]
    assert [len(part) for part in hold_out(PAIRS[:1], 0.5, seed=0)] == [1, 0]


def test_every_file_of_a_policy_is_readable_by_the_group(policy: PolicyRef, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        train(replace(policy, dtype="bfloat16"), tmp_path)
    finally:
        os.umask(before)
    files = [*(tmp_path / "model").iterdir(), *(tmp_path / "masters").iterdir()]
    assert {path.name for path in files} >= {"model.safetensors", "config.json", "tokenizer.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


def test_weights_that_are_not_finite_are_never_written(policy: PolicyRef, tmp_path: Path) -> None:
    model = policy.load_model()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"model.layers.1.mlp.down_proj.weight .* no policy was written"):
        write_policy(model, policy, tmp_path, keep_masters=True)
    assert not any(tmp_path.iterdir())


def test_a_last_step_to_infinity_is_refused(policy: PolicyRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the last step is computed before its update, so only the weights can show it."""
    step = torch.optim.AdamW.step

    def explode(self, *arguments, **more):
        result = step(self, *arguments, **more)
        with torch.no_grad():
            self.param_groups[0]["params"][0].mul_(1e38).mul_(1e38)
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", explode)
    with pytest.raises(NonFiniteError, match="not finite"):
        train(policy, tmp_path, replace(TRAINER, pairs_per_step=20, tokens_per_batch=10**5))
    assert not (tmp_path / "model").exists()
    assert [row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1]


def test_a_rate_that_breaks_the_policy_is_recorded_and_warned_of(
    policy: PolicyRef, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "aipo"):
        _, summary = train(policy, tmp_path, replace(TRAINER, learning_rate=1.0, warmup_ratio=0.0))
    assert summary["update_norm_ratio"] > 10
    assert "times their own norm: the learning rate is too high" in caplog.text


def test_the_miniatures_rate_for_a_large_model_is_warned_of(
    policy: PolicyRef, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.WARNING, "aipo"):
        train(policy, tmp_path / "small", replace(TRAINER, learning_rate=3e-4))
        assert "all trained" not in caplog.text
        monkeypatch.setattr("aipo.training.loop.LARGE_MODEL", 10_000)
        train(policy, tmp_path / "large", replace(TRAINER, learning_rate=3e-4))
    assert "trainer.learning_rate=0.0003 for 19,424 weights, all trained" in caplog.text


def test_a_round_that_moves_nothing_is_told(
    policy: PolicyRef, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "aipo"):
        _, summary = train(policy, tmp_path, replace(TRAINER, learning_rate=1e-30))
    assert summary["share_of_weights_changed"] == 0 == summary["share_of_update_kept"]
    assert "no weight moved in this round" in caplog.text


def test_the_share_of_an_update_that_is_kept_by_hand() -> None:
    """Exact update (3, 4); the copies moved by (6, 0): 18 of 25 along it, one of two changed, 5 over the norm 10."""
    update = Update()
    before, after = torch.tensor([8.0, -6.0]), torch.tensor([11.0, -2.0])
    update.add(before, torch.tensor([8.0, -6.0]), after, torch.tensor([14.0, -6.0]))
    expected = {"share_of_update_kept": 18 / 25, "share_of_weights_changed": 0.5, "update_norm_ratio": 0.5}
    assert update.counts() == pytest.approx(expected)
