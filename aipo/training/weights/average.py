"""The running average of policies over rounds, as a reference that moves more slowly than they do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aipo.models.policy import PolicyRef

FOLDER = "model"


def write_average(average: PolicyRef, policy: PolicyRef, decay: float, out: Path) -> None:
    """Write decay * average + (1 - decay) * policy to `out/model`, in float32, whatever the policy is sampled in.

    The soft update of TR-DPO (arXiv 2404.09656, Eq. 5, with decay = 1 - alpha). Both are read as their float32 weights
    and held in main memory at once. ValueError when they are not the same architecture; NonFiniteError for weights
    that are not finite.
    """
    import torch  # here: a job whose averages are all there asks only where they lie

    from aipo.training.weights.artifact import refuse_not_finite, save_policy

    model, other = average.load_masters(), dict(policy.load_masters().named_parameters())
    own = dict(model.named_parameters())
    if different := sorted(set(own) ^ set(other)) or [name for name in own if own[name].shape != other[name].shape]:
        raise ValueError(f"{average.path} and {policy.path} have different weights, the first: {different[0]}")
    with torch.no_grad():
        for name, weight in own.items():
            weight.lerp_(other.pop(name), 1 - decay)
    refuse_not_finite(model)
    save_policy(model, policy, out / FOLDER)


def averaged(policy: PolicyRef, out: Path) -> PolicyRef:
    """The average that `write_average` writes, or would write, to `out`: computed in whatever `policy` is."""
    folder = str(out / FOLDER)
    return replace(policy, path=folder, masters=folder, revision=None)
