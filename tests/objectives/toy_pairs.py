"""Batches of made-up pairs, and every objective of conf/objective, for the tests in this folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from hydra.utils import instantiate
from hypothesis import strategies as st
from omegaconf import OmegaConf

import aipo.objectives as objectives
from aipo.objectives import Objective, PairLogps, PairLoss

CONF = Path(__file__).resolve().parents[2] / "conf" / "objective"
OURS = "_target_: aipo.objectives."
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if path.read_text(encoding="utf-8").count(OURS) == 2)
"""Objectives whose function is this package's; a function of somebody else's package is theirs to test."""
POLICY_FIELDS = (
    *("policy_chosen", "policy_rejected", "policy_chosen_prefix", "policy_rejected_prefix"),
    *("policy_chosen_sample", "policy_rejected_sample"),
)
REFERENCE_FIELDS = (
    "reference_chosen",
    "reference_rejected",
    "reference_chosen_prefix",
    "reference_rejected_prefix",
)


def objective(name: str, **coefficients: float) -> Objective:
    """The objective of conf/objective/<name>.yaml, some coefficients replaced."""
    assert name in vars(objectives), f"write {name} in a module of aipo/objectives, and name it in its __all__"
    config = OmegaConf.load(CONF / f"{name}.yaml")
    config.loss.update(coefficients)
    return instantiate(config, _convert_="all")


def declares(name: str, flag: str, default: bool) -> bool:
    """What conf/objective/<name>.yaml says of the objective; nothing is built, so that a mistake fails a test alone."""
    return bool(OmegaConf.load(CONF / f"{name}.yaml").get(flag, default))


def tensor(*values: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def hand_pairs() -> PairLogps:
    """Two pairs with round numbers. In nats:

    |   | log pi(y_w), log pi(y_l) | log ref(y_w), log ref(y_l) | tokens | r_w, r_l | h    | policy, reference margin |
    |---|--------------------------|----------------------------|--------|----------|------|--------------------------|
    | A | -10, -12                 | -11, -11.5                 | 5, 8   | 1, -0.5  |  1.5 |  2, 0.5                  |
    | B | -20, -15                 | -18, -16                   | 10, 4  | -2, 1    | -3   | -5, -2                   |
    """
    return PairLogps(
        policy_chosen=tensor(-10, -20),
        policy_rejected=tensor(-12, -15),
        reference_chosen=tensor(-11, -18),
        reference_rejected=tensor(-11.5, -16),
        chosen_tokens=torch.tensor([5, 10]),
        rejected_tokens=torch.tensor([8, 4]),
        win_probability=tensor(0.8, 0.6),
        chosen_win_share=tensor(0.7, 0.6),
        rejected_win_share=tensor(0.2, 0.45),
        policy_chosen_prefix=tensor(-10, -7),
        policy_rejected_prefix=tensor(-7, -15),
        reference_chosen_prefix=tensor(-11, -8),
        reference_rejected_prefix=tensor(-6, -16),
        policy_chosen_sample=tensor(-10, -9),
        policy_rejected_sample=tensor(-8, -15),
        reference_chosen_sample=tensor(-11, -7),
        reference_rejected_sample=tensor(-7, -16),
        chosen_alignment=tensor(-0.2, 0.3),
        rejected_alignment=tensor(-0.3, 0.1),
    )


def gradients(loss, logps: PairLogps) -> tuple[PairLoss, dict[str, torch.Tensor]]:
    """The loss, and the derivative of its sum with respect to each policy log-prob."""
    leaves = {name: getattr(logps, name).detach().clone().requires_grad_() for name in POLICY_FIELDS}
    result = loss(replace(logps, **leaves))
    found = torch.autograd.grad(result.loss.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return result, dict(zip(leaves, found, strict=True))


@st.composite
def pair_batches(draw: st.DrawFn, min_size: int = 1, max_size: int = 5) -> PairLogps:
    """Batches of valid pairs in float64: log-probs of at most 0, prefixes consistent with totals and lengths."""
    rows = []
    for _ in range(draw(st.integers(min_size, max_size))):
        chosen_tokens, rejected_tokens = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        shared = min(chosen_tokens, rejected_tokens)
        row: dict[str, float] = {"chosen_tokens": chosen_tokens, "rejected_tokens": rejected_tokens}
        for side, tokens in (("chosen", chosen_tokens), ("rejected", rejected_tokens)):
            for model in ("policy", "reference"):
                per_token = draw(st.floats(-4.0, -0.05))
                row[f"{model}_{side}"] = per_token * tokens
                row[f"{model}_{side}_prefix"] = row[f"{model}_{side}_sample"] = per_token * shared
            row[f"{side}_alignment"] = draw(st.floats(-3.0, 0.5))
        for share in ("win_probability", "chosen_win_share", "rejected_win_share"):
            row[share] = draw(st.floats(0.0, 1.0))
        rows.append(row)
    columns = {}
    for name in rows[0]:
        dtype = torch.int64 if name.endswith("_tokens") else torch.float64
        columns[name] = torch.tensor([row[name] for row in rows], dtype=dtype)
    return PairLogps(**columns)
