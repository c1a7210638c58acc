"""Learning rate and data order, both pure functions: nothing to save in a checkpoint, nothing that can drift."""

from __future__ import annotations

import math

import torch


def warmup_cosine(step: int, total_steps: int, warmup_ratio: float) -> float:
    """Factor on the learning rate in optimizer step `step` (from 0) of `total_steps`.

    Linear from 0 over ceil(warmup_ratio * total_steps) steps, then half a cosine to 0: the schedule of the official
    code (transformers' `cosine`), whose first step therefore has rate 0 when there is a warm-up. One departure: the
    warm-up never takes all steps, so a round of a single step is trained, at the full rate.
    """
    warmup_steps = min(math.ceil(warmup_ratio * total_steps), total_steps - 1)
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def steps_per_epoch(pairs: int, pairs_per_step: int) -> int:
    """Optimizer steps of an epoch; the last one may have fewer pairs."""
    return -(-pairs // pairs_per_step)


def step_indices(step: int, pairs: int, pairs_per_step: int, seed: int) -> list[int]:
    """Indices of the pairs of optimizer step `step` (from 0). Every epoch is a permutation of its own."""
    epoch, position = divmod(step, steps_per_epoch(pairs, pairs_per_step))
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(pairs, generator=generator).tolist()
    return order[position * pairs_per_step : (position + 1) * pairs_per_step]
