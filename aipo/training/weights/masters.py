"""What the optimizer updates: the model's own float32 weights, or a float32 copy of bfloat16 ones.

A bfloat16 weight has 8 bits of precision: at the paper's learning rate of 5e-7 almost every update would round to
nothing. So a bfloat16 model keeps a float32 master of every trained weight, gradients of all micro-batches are summed
in float32 there, and after each step the model gets the rounded master (`aipo.training.weights.rounding`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from aipo.training.weights.rounding import rounded


class TrainedWeights:
    """The trained parameters of a model. `parameters` is what the optimizer sees: float32 (or float64), by name.

    `masters` are the float32 weights that a bfloat16 model is a copy of, by name; None: its own weights are exact.
    `dithered` says how a master is rounded.
    """

    def __init__(self, model: nn.Module, masters: Mapping[str, Tensor] | None = None, *, dithered: bool = True) -> None:
        self.dithered = dithered
        self._compute = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self._compute:
            raise ValueError("the model has no trainable parameter")
        if half := sorted({str(p.dtype) for p in self._compute.values() if p.dtype == torch.float16}):
            raise ValueError(f"training in {half[0]} is not supported (its range needs loss scaling); use bfloat16")
        self.parameters: dict[str, Tensor] = {}
        for name, weight in self._compute.items():
            if weight.dtype == torch.bfloat16:
                exact = (weight if masters is None else masters[name]).detach()
                master = exact.to(weight.device, torch.float32, copy=True).requires_grad_()
                self.parameters[name] = master
                weight.register_post_accumulate_grad_hook(_move_gradient_to(master))
            else:
                self.parameters[name] = weight
        self.publish()

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for weight in self.parameters.values():
            weight.grad = None

    def gradients(self) -> list[Tensor]:
        """Every trained weight's gradient; zeros where none has arrived."""
        for weight in self.parameters.values():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        return [weight.grad for weight in self.parameters.values() if weight.grad is not None]

    def publish(self) -> None:
        """Give the model the updated weights. Nothing to do where it shares them with the optimizer."""
        with torch.no_grad():
            for name, weight in self._compute.items():
                if self.parameters[name] is not weight:
                    weight.copy_(rounded(self.parameters[name], weight.dtype, name if self.dithered else None))

    def uncover(self) -> None:
        """Put the exact weights into the model, in place of their copies. Nothing can be trained afterwards."""
        for name, weight in self._compute.items():
            weight.data = self.parameters[name].data


def _move_gradient_to(master: Tensor) -> Callable[[Tensor], None]:
    def move(weight: Tensor) -> None:
        gradient = weight.grad
        if gradient is None:
            return
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad.add_(gradient)
        weight.grad = None

    return move
