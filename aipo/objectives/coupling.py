"""The exact gradient of a batch that does not fit in memory at once, for objectives that couple its pairs.

Two passes over the micro-batches. The first computes log-probs without a graph; `concatenate` puts them together (and
a data-parallel trainer gathers every rank's); `policy_gradients` gives the derivative of the batch's mean loss with
respect to each log-prob. The second computes the log-probs again, with a graph, and calls backward on
`linear_surrogate` of each micro-batch. By the chain rule the accumulated gradient is that of the whole batch, for any
split. The price is one more forward pass, so uncoupled objectives, where each micro-batch's gradient is already right,
should not pay it. The two passes must see the same network: with dropout, restore the random state between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from aipo.objectives.pair_logps import PairLogps, PairLoss, PairLossFunction

POLICY_FIELDS = (
    *("policy_chosen", "policy_rejected", "policy_chosen_prefix", "policy_rejected_prefix"),
    *("policy_chosen_sample", "policy_rejected_sample"),
)
"""The fields of PairLogps that a policy's gradient flows through."""


def concatenate(parts: Sequence[PairLogps]) -> PairLogps:
    """The pairs of several micro-batches as one batch, in order. A field must be present in all of them or in none."""
    if not parts:
        raise ValueError("concatenate: expected at least one micro-batch, got none")
    joined: dict[str, Any] = {}
    for field in fields(PairLogps):
        tensors = [getattr(part, field.name) for part in parts]
        present = [tensor for tensor in tensors if tensor is not None]
        if present and len(present) != len(tensors):
            raise ValueError(
                f"concatenate: {field.name} is present in {len(present)} of {len(tensors)} micro-batches; "
                f"give it in all of them or in none"
            )
        joined[field.name] = torch.cat(present) if present else None
    return PairLogps(**joined)


def policy_gradients(loss: PairLossFunction, logps: PairLogps) -> tuple[PairLoss, dict[str, Tensor]]:
    """The loss of a whole batch, detached, and the derivative of its mean with respect to each policy log-prob.

    Derivatives: shape (batch,), loss per nat, keyed by field of PairLogps. `logps` needs no graph. A trainer whose
    processes average their gradients multiplies the derivatives by the number of processes.
    """
    leaves = {
        name: tensor.detach().clone().requires_grad_()
        for name in POLICY_FIELDS
        if (tensor := getattr(logps, name)) is not None
    }
    with torch.enable_grad():
        result = loss(replace(logps, **leaves))
        derivatives = torch.autograd.grad(
            result.loss.mean(), list(leaves.values()), allow_unused=True, materialize_grads=True
        )
    return PairLoss(*(tensor.detach() for tensor in result)), dict(zip(leaves, derivatives, strict=True))


def linear_surrogate(logps: PairLogps, derivatives: Mapping[str, Tensor]) -> Tensor:
    """A scalar whose gradient with respect to the weights is that of the batch's mean loss, micro-batch by micro-batch.

    `logps`: one micro-batch with its graph. `derivatives`: its rows of what `policy_gradients` returned. The value
    itself means nothing.
    """
    terms = [(derivative * getattr(logps, name)).sum() for name, derivative in derivatives.items()]
    return torch.stack(terms).sum()
