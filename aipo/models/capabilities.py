"""What a causal language model can do, found by running it on a few tokens rather than by a list of names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aipo.models.vocabulary import LogitTransform

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class UnsupportedModelError(ValueError):
    """A model whose log-probs this engine cannot compute exactly."""


@dataclass(frozen=True)
class Capabilities:
    """What `PairScorer` has to know about a model."""

    transform: LogitTransform
    shares_rows: bool
    """True when 4-D masks and restarting position ids give the same hidden states as separate rows."""
    window: int | None
    """The smallest sliding or chunked attention window of any layer; shared rows are right up to this span."""
    max_positions: int | None
    """The number of learned absolute positions; None where positions are rotary or relative."""
    reason: str = ""
    """Why rows are not shared."""
    packs: bool = False
    """True when several pairs in one row have the hidden states they have apart; False as well where nobody asked."""


# Relative to the size of the compared values. Wrong layouts differ by far more than rounding does.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}


def inspect_model(model: PreTrainedModel, *, packed: bool = False) -> Capabilities:
    """Run `model` on a few made-up tokens. Raises UnsupportedModelError when its head is not understood.

    `packed`: find out, too, whether pairs can be packed.
    """
    head = model.get_output_embeddings()
    if head is None or model.base_model is model or getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{type(model).__name__}: expected a decoder-only causal language model with a backbone and an output layer"
        )
    config = model.config.get_text_config()
    transform = _logit_transform(config)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            _require_known_head(model, transform)
            reason = _why_rows_differ(model)
            packs = packed and not reason and _packs(model)
    finally:
        model.train(was_training)
    return Capabilities(transform, not reason, _window(config), _learned_positions(model), reason, packs)


def _logit_transform(config: Any) -> LogitTransform:
    """Scale and cap by the names Cohere, Granite, Falcon-H1 and Gemma give them; verified by `_require_known_head`."""
    scale = 1.0
    if getattr(config, "logits_scaling", None):
        scale = 1.0 / config.logits_scaling
    for name in ("logit_scale", "lm_head_multiplier", "output_multiplier"):
        if getattr(config, name, None) is not None:
            scale = float(getattr(config, name))
    return LogitTransform(scale, getattr(config, "final_logit_softcapping", None))


def _window(config: Any) -> int | None:
    windows = []
    if getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None):
        windows.append(int(config.sliding_window))
    if getattr(config, "attention_chunk_size", None):
        windows.append(int(config.attention_chunk_size))
    return min(windows, default=None)


def _learned_positions(model: PreTrainedModel) -> int | None:
    """Rows of a position embedding table (GPT-2's `wpe`, OPT's `embed_positions`), where there is one."""
    for name, module in model.base_model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.rsplit(".", 1)[-1] in ("wpe", "embed_positions"):
            return module.num_embeddings - int(getattr(module, "offset", 0))
    return None


def _probe_tokens(model: PreTrainedModel) -> tuple[list[int], list[int], list[int]]:
    size = model.get_input_embeddings().weight.shape[0]
    ids = [(7 * index + 3) % size for index in range(13)]
    return ids[:5], ids[5:9], ids[9:13]


def _hidden(model: PreTrainedModel, ids: list[int], **arguments: Any) -> Tensor:
    device = next(model.parameters()).device
    output = model.base_model(input_ids=torch.tensor([ids], device=device), use_cache=False, **arguments)
    return output.last_hidden_state[0]


def _difference(left: Tensor, right: Tensor) -> float:
    """Largest difference, relative to the largest entry of `right`."""
    return float((left.double() - right.double()).abs().max() / right.double().abs().max().clamp_min(1e-12))


def _require_known_head(model: PreTrainedModel, transform: LogitTransform) -> None:
    head = model.get_output_embeddings()
    prompt, chosen, _ = _probe_tokens(model)
    ids = torch.tensor([prompt + chosen], device=next(model.parameters()).device)
    expected = model(input_ids=ids, use_cache=False).logits[0]
    logits = torch.nn.functional.linear(_hidden(model, prompt + chosen), head.weight, getattr(head, "bias", None))
    difference = _difference(transform.apply_(logits.to(torch.promote_types(logits.dtype, torch.float32))), expected)
    if not difference <= _TOLERANCE[head.weight.dtype]:
        raise UnsupportedModelError(
            f"{type(model).__name__}: the head's logits differ from {transform} of hidden @ weight by {difference:.1e} "
            "(relative). It does something this engine does not know; teach aipo/models/capabilities.py about it."
        )


def _why_rows_differ(model: PreTrainedModel) -> str:
    """Empty when one shared row gives every branch the hidden states it has in a row of its own."""
    from aipo.models.batching import CHOSEN, PROMPT, REJECTED, attention_mask

    prompt, chosen, rejected = _probe_tokens(model)
    head = model.get_output_embeddings()
    device = head.weight.device
    start, middle = len(prompt), len(prompt) + len(chosen)
    branch = torch.tensor([[PROMPT] * start + [CHOSEN] * len(chosen) + [REJECTED] * len(rejected)], device=device)
    positions = torch.tensor([[*range(middle), *range(start, start + len(rejected))]], device=device)
    arguments = {"attention_mask": attention_mask(branch, head.weight.dtype), "position_ids": positions}
    try:
        shared = _hidden(model, prompt + chosen + rejected, **arguments)
        changed = _hidden(model, prompt + chosen[::-1] + rejected, **arguments)
    except Exception as error:  # any failure means the same: this model takes no such mask
        return f"it does not take a 4-D attention mask ({type(error).__name__})"
    if not torch.equal(shared[middle:], changed[middle:]):
        return "its rejected branch sees the chosen one in spite of the mask"
    for start_row, expected in (
        (0, _hidden(model, prompt + chosen)),
        (middle, _hidden(model, prompt + rejected)[start:]),
    ):
        difference = _difference(shared[start_row : start_row + len(expected)], expected)
        if not difference <= _TOLERANCE[head.weight.dtype]:
            return f"a shared row changes its hidden states by {difference:.1e} (relative)"
    return ""


def _packs(model: PreTrainedModel) -> bool:
    """True when two pairs in one packed row get the hidden states of a row each."""
    from aipo.models.batching import collate
    from aipo.models.packing import NAME, pack, packed_arguments, packed_rows
    from aipo.records import Completion, Pair

    head = model.get_output_embeddings()
    if model.config.get_text_config()._attn_implementation not in ("sdpa", NAME):
        return False
    prompt, chosen, rejected = _probe_tokens(model)

    def pair(first: list[int], second: list[int], third: list[int]) -> Pair:
        one, other = (Completion("", tuple(ids), "stop") for ids in (second, third))
        return Pair("", "", tuple(first), one, other, 0.0, 0.0)

    # In the second pair the rejected side is longer than the prompt, which attention treats in another way.
    pairs = [pair(prompt, chosen, rejected), pair(prompt[:2], rejected, chosen)]
    batch = pack(collate(pairs)).to(head.weight.device)
    try:
        with packed_rows(model):
            arguments = packed_arguments(batch, head.weight.dtype)
            found = _hidden(model, batch.input_ids[0].tolist(), **arguments)
    except Exception:  # any failure means the same: this model does not hand on what its attention has to know
        return False
    rows = [(start, completion) for start, one, other in ((prompt, chosen, rejected), (prompt[:2], rejected, chosen))
            for completion in (one, other)]  # fmt: skip
    expected = []
    for number, (start, completion) in enumerate(rows):
        hidden = _hidden(model, start + completion[:-1])
        expected.append(hidden if number % 2 == 0 else hidden[len(start) :])
    return _difference(found, torch.cat(expected)) <= _TOLERANCE[head.weight.dtype]
