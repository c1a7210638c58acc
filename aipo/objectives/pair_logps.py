"""The one calling convention of every objective: log-probs of a batch of pairs in, a loss per pair out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
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
    rejected_reward is what it compares, without the target: a constant margin, AlphaDPO's (2410) margin of each pair,
    or AOT's, the reference's margins in order."""
    rejected_reward: Tensor


class PairLossFunction(Protocol):
    """A pure function of the log-probs, its coefficients already bound."""

    def __call__(self, logps: PairLogps, /) -> PairLoss: ...
