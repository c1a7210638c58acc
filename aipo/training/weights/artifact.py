"""What a round leaves: `model/`, the folder that is sampled, served and shared, and, beside a rounded one, `masters/`.

A float32 policy is one folder. A policy that is sampled in bfloat16 is trained in float32; its `model/` is a bfloat16
copy, and `masters/` holds the float32 weights that the next round goes on from. Nothing else needs `masters/`.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aipo.models.weights import first_not_finite
from aipo.training.job import NonFiniteError
from aipo.training.weights.rounding import rounded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from aipo.models.policy import PolicyRef

MODEL, MASTERS = "model", "masters"
KEPT_WARNED = 0.5
"""A smaller share of the update in the sampled weights is warned of."""
MOVED_WARNED = 1.0
"""Weights that moved by more than this many times their own norm are warned of."""


@dataclass
class Update:
    """How far a round moved the weights (`moved`: exact, float32), and how much of it the sampled ones show."""

    squared: float = 0.0
    along: float = 0.0
    """Inner product of the sampled weights' change with the exact one."""
    squared_before: float = 0.0
    changed: int = 0
    weights: int = 0

    def add(self, before: Tensor, sampled_before: Tensor, after: Tensor, sampled: Tensor) -> None:
        """Count one tensor: exact and sampled values, before and after the round."""
        moved = (after - before).flatten()
        seen = moved if sampled is after else (sampled.float() - sampled_before.float()).flatten()
        self.squared += float(torch.dot(moved, moved))
        self.along += float(torch.dot(seen, moved))
        self.squared_before += float(before.square().sum())
        self.changed += int((sampled != sampled_before).sum())
        self.weights += after.numel()

    def counts(self) -> dict[str, float]:
        """For a manifest: `share_of_update_kept` is the component of the sampled weights' change along the exact
        update, in units of the update: 1 where rounding costs nothing, 0 where the sampled weights did not move.
        `update_norm_ratio` is the update's norm over that of the weights before."""
        moved = self.squared > 0
        return {
            "share_of_update_kept": self.along / self.squared if moved else 0.0,
            "share_of_weights_changed": self.changed / self.weights,
            "update_norm_ratio": (self.squared / self.squared_before) ** 0.5 if self.squared_before else 0.0,
        }


def write_policy(model: PreTrainedModel, start: PolicyRef, out: Path, *, keep_masters: bool) -> dict[str, float]:
    """Write the trained `model` (float32 weights, which are consumed) as the successor of `start`. Returns counts.

    Weights that are not finite raise NonFiniteError and nothing is written.
    """
    refuse_not_finite(model)
    dtype = getattr(torch, start.dtype)
    rounds = dtype != torch.float32
    if rounds and keep_masters:
        save_policy(model, start, out / MASTERS)
    sampled_before = dict(start.load_model().named_parameters())
    exact_before = sampled_before if start.masters is None else dict(start.load_masters().named_parameters())
    update = Update()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            after = weight.data.float() if rounds else weight.data
            sampled = rounded(after, dtype, name if keep_masters else None) if rounds else after
            before, seen = exact_before[name], sampled_before[name]
            update.add(before.to(after.device).float(), seen.to(after.device), after, sampled)
            weight.data = sampled
    refuse_not_finite(model)
    save_policy(model, start, out / MODEL)
    counts = update.counts()
    _warn(counts, start, keep_masters)
    return counts


def refuse_not_finite(model: PreTrainedModel) -> None:
    """NonFiniteError that names a tensor with a value that is not finite."""
    if name := first_not_finite(model.named_parameters()):
        raise NonFiniteError(
            f"the trained weights {name} hold values that are not finite, in {next(model.parameters()).dtype}; no "
            "policy was written. Look at the learning rate and beta."
        )


def _warn(counts: dict[str, float], start: PolicyRef, keep_masters: bool) -> None:
    kept, ratio = counts["share_of_update_kept"], counts["update_norm_ratio"]
    logger = logging.getLogger("aipo")
    if ratio == 0:
        logger.warning("train: no weight moved in this round; look at the learning rate and the loss")
    elif kept < KEPT_WARNED:
        remedy = "raise the learning rate" if keep_masters else "set trainer.keep_masters=true"
        logger.warning(
            f"train: {kept:.1%} of this round's update survives in the {start.dtype} weights that are sampled, and "
            f"{counts['share_of_weights_changed']:.1%} of them changed; {remedy}"
        )
    if ratio > MOVED_WARNED:
        logger.warning(
            f"train: this round moved the weights by {ratio:.3g} times their own norm: the learning rate is too high, "
            "and the policy is probably broken"
        )


def save_policy(model: PreTrainedModel, policy: PolicyRef, folder: Path) -> None:
    """Write model, tokenizer and generation config as a Hugging Face folder, complete or not at all."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    policy.load_tokenizer().save_pretrained(partial)
    config = partial / "config.json"
    for path in partial.iterdir():  # safetensors makes its files readable by their owner alone
        shutil.copymode(config, path)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
