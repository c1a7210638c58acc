"""Which run a checkpoint belongs to: what changes it, and what does not."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from tiny_models import build, pairs

from aipo.models.policy import PolicyRef
from aipo.records import ReferenceLogps
from aipo.training import Trainer
from aipo.training.checkpoint import CheckpointError
from aipo.training.job import Job

ROOT = Path(__file__).resolve().parents[2]
PAIRS = pairs(12, seed=3)
ROWS = [ReferenceLogps(pair.pair_id, -9.0, -8.0, -3.0, -4.0) for pair in PAIRS]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PolicyRef:
    return build("llama", tmp_path_factory.mktemp("policy"))


def identity(policy: PolicyRef, **changed: Any) -> str:
    held_out = {"evaluation_pairs": PAIRS[:2], "evaluation_reference": ROWS[:2]}
    given = {"pairs": PAIRS, "reference": ROWS, "objective_config": {"_target_": "x"}, "seed": 0} | held_out | changed
    return Job(policy=policy, out=Path("nowhere"), **given).identity({"learning_rate": 1.0})


def with_first(rows: Sequence[Any], **values: Any) -> list[Any]:
    return [replace(rows[0], **values), *rows[1:]]


@pytest.mark.parametrize(
    "changed",
    [
        {"pairs": with_first(PAIRS, chosen=PAIRS[0].rejected, rejected=PAIRS[0].chosen)},
        {"pairs": with_first(PAIRS, win_probability=0.4321)},
        {"pairs": [PAIRS[1], PAIRS[0], *PAIRS[2:]]},
        {"reference": with_first(ROWS, chosen_prefix=-3.5)},
        {"reference": with_first(ROWS, rejected_sample=-1.0)},
        {"reference": None},
        {"evaluation_pairs": PAIRS[1:3]},
        {"evaluation_reference": None},
        {"seed": 1},
    ],
)
def test_every_row_that_training_reads_is_part_of_it(policy: PolicyRef, changed: dict[str, Any]) -> None:
    assert identity(policy, **changed) != identity(policy)


def test_it_knows_the_weights_by_each_tensor_and_not_by_their_place(policy: PolicyRef, tmp_path: Path) -> None:
    moved = replace(policy, path=str(shutil.copytree(policy.path, tmp_path / "moved")))
    assert identity(moved) == identity(policy)
    (file,) = Path(moved.path).glob("*.safetensors")
    tensors = load_file(file)
    for name in tensors:
        for place in (0, -1):
            changed = {key: value.clone() for key, value in tensors.items()}
            changed[name].view(-1)[place] += 0.5
            save_file(changed, file, metadata={"format": "pt"})
            assert identity(moved) != identity(policy), name
    save_file(tensors, file, metadata={"format": "pt"})
    assert identity(moved) == identity(policy)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("name", ["simpo", "sppo_pairwise"])
def test_a_checkpoint_of_the_same_ids_with_other_rows_is_refused(name: str, policy: PolicyRef, tmp_path: Path) -> None:
    trainer = Trainer(
        learning_rate=1e-2, pairs_per_step=4, tokens_per_batch=80, checkpoint_every_steps=1, warmup_ratio=0.0
    )
    given: dict[str, Any] = {"policy": policy, "out": tmp_path, "seed": 0}
    given["objective_config"] = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "objective" / f"{name}.yaml"))
    given["reference"] = None if name == "simpo" else ROWS

    def stop(row: dict[str, float]) -> None:  # of step 1 the checkpoint is there
        if row["step"] == 2:
            raise Stopped

    with pytest.raises(Stopped):
        trainer.run(pairs=PAIRS, log=stop, **given)
    other = {
        "simpo": [replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in PAIRS],
        "sppo_pairwise": [replace(pair, win_probability=1 - pair.win_probability) for pair in PAIRS],
    }[name]
    with pytest.raises(CheckpointError, match="other settings, pairs or model"):
        trainer.run(pairs=other, log=lambda row: None, **given)
    trainer.run(pairs=PAIRS, log=lambda row: None, **given)
