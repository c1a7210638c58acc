"""The one calling convention of every objective: log-probs of a batch of pairs in, a loss per pair out."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairLogps:
    """One batch of pairs. Log-probs: nats, float32, summed over completion tokens. Every tensor has shape (batch,)."""

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor | None
    """None iff the objective declares `uses_reference: false`; the same for `reference_rejected`."""
    reference_rejected: Tensor | None
    chosen_tokens: Tensor
    """int64, at least 1: completion tokens trained on, the end-of-turn token included."""
    rejected_tokens: Tensor
    win_probability: Tensor | None = None
    """The ranker's P(chosen beats rejected) in [0, 1]; None unless the objective needs it."""
    chosen_win_share: Tensor | None = None
    """Mean P(chosen beats a candidate of its prompt), itself among them at 1/2; None unless needed. So the next."""
    rejected_win_share: Tensor | None = None
    policy_chosen_prefix: Tensor | None = None
    """Summed over the first min(chosen_tokens, rejected_tokens) tokens only; None unless needed. So the next three."""
    policy_rejected_prefix: Tensor | None = None
    reference_chosen_prefix: Tensor | None = None
    reference_rejected_prefix: Tensor | None = None
    policy_chosen_sample: Tensor | None = None
    """Summed over as many tokens as the shorter side has, drawn at random from the longer one, the same for policy and
    reference; None unless needed. So the next three."""
    policy_rejected_sample: Tensor | None = None
    reference_chosen_sample: Tensor | None = None
    reference_rejected_sample: Tensor | None = None
    chosen_alignment: Tensor | None = None
    """Mean over tokens of log p(token) - log sum_v p(v)^2 under the policy, detached: about 0 where the policy would
    draw such tokens itself, far below where it would not. None unless needed. So the next."""
    rejected_alignment: Tensor | None = None


class PairLoss(NamedTuple):
    """What an objective returns. Every tensor has shape (batch,)."""

    loss: Tensor
    """Not reduced; the training loss of a batch is its mean."""
    chosen_reward: Tensor
    """Detached; this objective's own implicit reward. So is `rejected_reward`.

    Where the objective compares the two sides (a sigmoid, hinge or square of a difference), chosen_reward minus
    rejected_reward is what it compares, a constant target margin left out."""
    rejected_reward: Tensor


class PairLossFunction(Protocol):
    """A pure function of the log-probs, its coefficients already bound."""

    def __call__(self, logps: PairLogps, /) -> PairLoss: ...


@dataclass(frozen=True)
class Objective:
    """A loss and what it needs. Built from `conf/objective/<name>.yaml`.

    Construction runs the loss once on three made-up pairs that carry the declared inputs and no others. So a missing
    or impossible coefficient, a forgotten `uses_reference` and a wrong `batch_coupled` are ValueErrors before a run.
    """

    name: str
    loss: PairLossFunction
    uses_reference: bool = True
    uses_win_probability: bool = False
    uses_win_shares: bool = False
    uses_prefix: bool = False
    uses_sample: bool = False
    uses_alignment: bool = False
    batch_coupled: bool = False
    """True: a pair's loss depends on the other pairs of its batch (a mean, a spread, a sort), so the sum over
    micro-batches is another objective than the batch. A trainer that splits the batch, over accumulation steps or over
    processes, must then collect the log-probs of the whole batch first and use `aipo.objectives.coupling`; one that
    cannot must refuse to split. False: any split gives the same gradient, once each pair is weighted 1 / batch."""

    def __post_init__(self) -> None:
        coefficients = self.loss.keywords if isinstance(self.loss, functools.partial) else {}
        for key, value in coefficients.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"objective {self.name}: {key} must be a finite number, got {value}")
        pairs = _made_up_pairs(self)
        try:
            result = self.loss(pairs)
        except (TypeError, ValueError) as error:
            raise ValueError(f"objective {self.name}: {error}") from error
        shape = tuple(pairs.policy_chosen.shape)
        for field, tensor in zip(PairLoss._fields, result, strict=True):
            if tuple(tensor.shape) != shape:
                raise ValueError(
                    f"objective {self.name}: {field} must have shape {shape}, one value per pair, got "
                    f"{tuple(tensor.shape)}; do not reduce over the batch"
                )
            if not tensor.float().isfinite().all():  # training is float32
                raise ValueError(
                    f"objective {self.name}: {field} of three ordinary pairs is {tensor.tolist()}; choose coefficients "
                    "that leave it finite"
                )
        alone = torch.cat([self.loss(_row(pairs, number)).loss for number in range(len(pairs.policy_chosen))])
        coupled = not torch.allclose(alone, result.loss, rtol=1e-9, atol=1e-12)
        if coupled and not self.batch_coupled:
            raise ValueError(
                f"objective {self.name}: a pair's loss depends on the other pairs of its batch, which splitting the "
                f"batch would change silently; declare batch_coupled: true"
            )


def _made_up_pairs(objective: Objective) -> PairLogps:
    """Three ordinary pairs, float64, with exactly the inputs that the objective declares.

    Policy and reference margins rank them differently, so that a sort shows.
    """

    def values(*numbers: float) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64)

    reference, prefix, sample = objective.uses_reference, objective.uses_prefix, objective.uses_sample
    return PairLogps(
        policy_chosen=values(-9.0, -14.0, -6.5),
        policy_rejected=values(-11.0, -8.0, -7.0),
        reference_chosen=values(-9.5, -15.5, -7.25) if reference else None,
        reference_rejected=values(-10.0, -8.25, -8.0) if reference else None,
        chosen_tokens=torch.tensor([6, 9, 4]),
        rejected_tokens=torch.tensor([7, 5, 4]),
        win_probability=values(0.9, 0.6, 0.75) if objective.uses_win_probability else None,
        chosen_win_share=values(0.8, 0.6, 0.7) if objective.uses_win_shares else None,
        rejected_win_share=values(0.1, 0.4, 0.3) if objective.uses_win_shares else None,
        policy_chosen_prefix=values(-9.0, -8.0, -6.5) if prefix else None,
        policy_rejected_prefix=values(-10.0, -8.0, -7.0) if prefix else None,
        reference_chosen_prefix=values(-9.5, -8.5, -7.25) if prefix and reference else None,
        reference_rejected_prefix=values(-9.0, -8.25, -8.0) if prefix and reference else None,
        policy_chosen_sample=values(-9.0, -8.0, -6.5) if sample else None,
        policy_rejected_sample=values(-10.0, -8.0, -7.0) if sample else None,
        reference_chosen_sample=values(-9.5, -8.5, -7.25) if sample and reference else None,
        reference_rejected_sample=values(-9.0, -8.25, -8.0) if sample and reference else None,
        chosen_alignment=values(-0.5, 0.25, -0.125) if objective.uses_alignment else None,
        rejected_alignment=values(-0.25, 0.5, 0.0) if objective.uses_alignment else None,
    )


def _row(logps: PairLogps, number: int) -> PairLogps:
    """Pair `number` as a batch of its own."""
    rows = {name: tensor[number : number + 1] for name, tensor in vars(logps).items() if tensor is not None}
    return replace(logps, **rows)
