"""The policy as it is trained: which weights move, without dropout, with or without gradient checkpointing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from aipo.training.lora import Lora


def prepare(model: PreTrainedModel, *, lora: Lora | None, gradient_checkpointing: bool, seed: int) -> Any:
    """Set `model` up for training, in place. Returns the PEFT model around it, or None without `lora`.

    Dropout stays off: the reference log-probs come from a forward pass without it, so with it the first loss would
    compare a noisy policy with an exact reference.
    """
    model.eval()
    model.requires_grad_(lora is None)
    adapted = None if lora is None else lora.wrap(model, seed)
    model.eval()
    if gradient_checkpointing:
        _checkpoint_layers(model)
    return adapted


def _checkpoint_layers(model: PreTrainedModel) -> None:
    from transformers.modeling_layers import GradientCheckpointingLayer

    model.activation_checkpointing_enable({"use_reentrant": False})
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no layer that supports gradient checkpointing; turn it off")
    for layer in layers:
        # Checkpointing looks at the layer's own flag. Its children stay in evaluation mode, and probabilities that
        # the layer itself would use are set to zero.
        layer.training = True
        _switch_off_dropout(layer)


def _switch_off_dropout(module: nn.Module) -> None:
    for name, value in vars(module).items():
        if "drop" in name and isinstance(value, float):
            setattr(module, name, 0.0)
