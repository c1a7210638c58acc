"""The one calling convention of every objective: log-probs of a batch of pairs in, a loss per pair out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

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
    policy_chosen_prefix: Tensor | None = None
    """Summed over the first min(chosen_tokens, rejected_tokens) tokens only; None unless needed. So the next three."""
    policy_rejected_prefix: Tensor | None = None
    reference_chosen_prefix: Tensor | None = None
    reference_rejected_prefix: Tensor | None = None


class PairLoss(NamedTuple):
    """What an objective returns. Every tensor has shape (batch,)."""

    loss: Tensor
    """Not reduced."""
    chosen_reward: Tensor
    """Detached; this objective's own implicit reward. So is `rejected_reward`."""
    rejected_reward: Tensor


class PairLossFunction(Protocol):
    """A pure function of the log-probs, its coefficients already bound."""

    def __call__(self, logps: PairLogps, /) -> PairLoss: ...


@dataclass(frozen=True)
class Objective:
    """A loss and what it needs. Built from `conf/objective/<name>.yaml`."""

    name: str
    loss: PairLossFunction
    uses_reference: bool = True
    uses_win_probability: bool = False
    uses_prefix: bool = False
