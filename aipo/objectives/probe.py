"""An objective run once on made-up pairs, so that what is wrong with it shows before a run and not in its middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from aipo.objectives.declaration import Declaration
from aipo.objectives.pair_logps import PairLogps, PairLoss


def probe(objective: Declaration) -> None:
    """ValueError where the loss lacks an input or a coefficient, reduces over the batch, is not finite, has no gradient
    to train by, or couples the pairs of a batch without saying so."""
    pairs = _made_up_pairs(objective)
    inputs = [tensor for name, tensor in vars(pairs).items() if name.startswith("policy_") and tensor is not None]
    with torch.enable_grad():
        for tensor in inputs:
            tensor.requires_grad_()
        try:
            result = objective.loss(pairs)
        except (TypeError, ValueError, RuntimeError) as error:  # torch raises the last for what it cannot compute
            raise ValueError(f"objective {objective.name}: {error}") from error
        _require_shape(objective, result, tuple(pairs.policy_chosen.shape))
        _require_gradient(objective, result.loss, inputs)
    alone = torch.cat([objective.loss(_row(pairs, number)).loss for number in range(len(pairs.policy_chosen))])
    coupled = not torch.allclose(alone, result.loss, rtol=1e-9, atol=1e-12)
    if coupled and not objective.batch_coupled:
        raise ValueError(
            f"objective {objective.name}: a pair's loss depends on the other pairs of its batch, which splitting the "
            f"batch would change silently; declare batch_coupled: true"
        )


def _require_shape(objective: Declaration, result: object, shape: tuple[int, ...]) -> None:
    if not isinstance(result, PairLoss):
        got = "None" if result is None else f"a {type(result).__name__}"
        raise ValueError(
            f"objective {objective.name}: expected a PairLoss({', '.join(PairLoss._fields)}), got {got}; return one"
        )
    for field, tensor in zip(PairLoss._fields, result, strict=True):
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"objective {objective.name}: {field} must have shape {shape}, one value per pair, got "
                f"{tuple(tensor.shape)}; do not reduce over the batch"
            )
        if not tensor.float().isfinite().all():  # training is float32
            raise ValueError(
                f"objective {objective.name}: {field} of three ordinary pairs is {tensor.tolist()}; choose "
                "coefficients that leave it finite"
            )


def _require_gradient(objective: Declaration, loss: Tensor, inputs: Sequence[Tensor]) -> None:
    """Of all pairs together: a hinge is flat for those that it has left behind."""
    if not loss.requires_grad:
        raise ValueError(
            f"objective {objective.name}: loss must have a gradient by the policy's log-probs, got none; leave out "
            ".detach() and torch.no_grad()"
        )
    gradients = [found for found in torch.autograd.grad(loss.sum(), inputs, allow_unused=True) if found is not None]
    if not all(bool(found.isfinite().all()) for found in gradients):
        raise ValueError(
            f"objective {objective.name}: loss must have a finite gradient, got "
            f"{[found.tolist() for found in gradients]} for three ordinary pairs; mend the loss or its coefficients"
        )
    if not any(bool(found.any()) for found in gradients):
        raise ValueError(
            f"objective {objective.name}: loss must change with the policy's log-probs, got a gradient of 0 for three "
            "ordinary pairs; mend the loss or its coefficients"
        )


def _made_up_pairs(objective: Declaration) -> PairLogps:
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
