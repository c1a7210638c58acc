"""Weights that are what their folder says: every tensor there, none too many, all finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_SHOWN = 3


class ModelError(RuntimeError):
    """A model's folder does not hold what is needed to load it."""


def load_checked(path: str, **arguments: Any) -> PreTrainedModel:
    """The causal language model at `path`; `arguments` are those of transformers' `from_pretrained`.

    ModelError where a tensor is missing, unexpected, of another shape, unreadable or not finite: transformers itself
    fills what is missing with random numbers. A head that is tied to the embeddings may be left out, as usual.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, found = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True, **arguments)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: its weights cannot be loaded ({reason[:300]}); {_REMEDY}") from error
    refuse_incomplete(path, found)
    refuse_not_finite(path, model.named_parameters())
    return model


_REMEDY = "copy or train the model anew, or set model.path to another folder"


def refuse_incomplete(path: str, found: Mapping[str, Iterable[Any]]) -> None:
    """ModelError when transformers' report of a load names tensors that are missing, or of no use to the model."""
    problems = [
        f"{kind} {len(names)} tensor(s) ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for kind, key in (("missing", "missing_keys"), ("unexpected", "unexpected_keys"))
        if (names := sorted(str(name) for name in found.get(key, ())))
    ]
    if problems:
        raise ModelError(f"{path}: its safetensors do not fit its config.json: {'; '.join(problems)}; {_REMEDY}")


def refuse_not_finite(path: str, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """ModelError that names the first tensor with a value that is not finite."""
    if name := first_not_finite(weights):
        raise ModelError(f"{path}: the weights {name} hold values that are not finite (NaN or infinite); {_REMEDY}")


def first_not_finite(weights: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The name of the first tensor with a value that is not finite; None where all are. One pass, no copy."""
    for name, weight in weights:
        if weight.numel() and weight.is_floating_point():
            smallest, largest = weight.detach().aminmax()  # NaN passes through both
            if not bool(smallest.isfinite() & largest.isfinite()):
                return name
    return None
