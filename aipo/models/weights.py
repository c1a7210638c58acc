"""Weights that are what their folder says: every tensor there, none too many, all finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_SHOWN = 3
_SIZES = "mismatched_keys"
_REMEDY = "copy or train the model anew, or set model.path to another folder"


class ModelError(RuntimeError):
    """A model's folder does not hold what is needed to load it."""


def load_checked(path: str, **arguments: Any) -> PreTrainedModel:
    """The causal language model at `path`; `arguments` are those of transformers' `from_pretrained`.

    ModelError where a tensor is missing, unexpected, of another shape, unreadable or not finite: transformers itself
    fills what is missing with random numbers. A head that is tied to the embeddings may be left out, as usual.
    """
    model = _load(path, arguments)
    if name := first_not_finite(model.named_parameters()):
        raise ModelError(
            f"{path}: the weights {name} hold values that are not finite (NaN or infinite) in {arguments['dtype']}; "
            f"{_REMEDY}"
        )
    return model


def check_names(path: str, **arguments: Any) -> None:
    """The same check of names and shapes from the files' headers alone: no weight is read."""
    _load(path, {**arguments, "device_map": "meta"})


def _load(path: str, arguments: Mapping[str, Any]) -> PreTrainedModel:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers only warns of what is refused here, in a table of many lines
    logging.disable_progress_bar()
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            path, output_loading_info=True, ignore_mismatched_sizes=True, use_safetensors=True, **arguments
        )
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: its weights cannot be loaded ({reason[:300]}); {_REMEDY}") from error
    finally:
        logging.set_verbosity(level)
    problems = [
        f"{what} {len(names)} tensor(s) ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for what, key in (("missing", "missing_keys"), ("unexpected", "unexpected_keys"), ("other sizes in", _SIZES))
        if (names := sorted(name if isinstance(name, str) else name[0] for name in found.get(key, ())))
    ]
    if problems:
        raise ModelError(f"{path}: its safetensors do not fit its config.json: {'; '.join(problems)}; {_REMEDY}")
    return model


def first_not_finite(weights: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The name of the first tensor with a value that is not finite; None where all are. One pass, no copy."""
    for name, weight in weights:
        if weight.numel() and weight.is_floating_point():
            smallest, largest = weight.detach().aminmax()  # NaN passes through both
            if not bool(smallest.isfinite() & largest.isfinite()):
                return name
    return None
