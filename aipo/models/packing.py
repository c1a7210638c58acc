"""Pairs behind one another in a single row without padding, and the attention that keeps them apart.

Everything but attention treats tokens one by one, so such a row costs what its tokens cost: each prompt once, each
completion once. Attention runs pair by pair: prompt and chosen completion are a causal sequence; the rejected one's
queries see the prompt and themselves. No mask of the whole row exists, so causal kernels stay usable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from aipo.models.batching import PADDING, PairBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "aipo_pairs"
"""What transformers calls this attention. Rows that are not packed it hands on to `sdpa`."""


class PairLengths(NamedTuple):
    """Input tokens of a pair: without the last of each completion, which predicts nothing."""

    prompt: int
    chosen: int
    rejected: int

    @property
    def tokens(self) -> int:
        """Of the pair in all."""
        return sum(self)

    @property
    def masked(self) -> bool:
        """True when the rejected side's queries alone, behind a mask, are less work than a causal pass that computes
        the prompt's again and drops them."""
        return 2 * self.rejected <= self.prompt + self.rejected

    @property
    def cells(self) -> float:
        """Pairs of query and key that are computed; of a causal sequence half its square."""
        last = self.prompt + self.rejected
        rejected = self.rejected * last if self.masked else last**2 / 2
        return (self.prompt + self.chosen) ** 2 / 2 + (rejected if self.rejected else 0)


@dataclass(frozen=True)
class PackedPairs:
    """What attention has to know about a packed row."""

    lengths: tuple[PairLengths, ...]
    masks: tuple[Tensor | None, ...]
    """(rejected, prompt + rejected) to be added to the scores, where the rejected side is masked."""


def pack(batch: PairBatch) -> PairBatch:
    """The batch, one pair a row, as a single row without padding."""
    inside = (batch.branch != PADDING).flatten()
    place = inside.cumsum(0) - 1
    counts = zip(
        inside.view(batch.branch.shape).sum(1).tolist(),
        batch.chosen_tokens.tolist(),
        batch.rejected_tokens.tolist(),
        strict=True,
    )
    rows = (tensor.flatten()[inside].unsqueeze(0) for tensor in (batch.input_ids, batch.position_ids, batch.branch))
    input_ids, position_ids, branch = rows
    return replace(
        batch,
        input_ids=input_ids,
        position_ids=position_ids,
        branch=branch,
        predictors=place[batch.predictors],
        packed=tuple((used - chosen - rejected + 2, chosen - 1, rejected - 1) for used, chosen, rejected in counts),
    )


def packed_arguments(batch: PairBatch, dtype: torch.dtype) -> dict[str, Any]:
    """What a backbone is called with besides the ids of a packed row."""
    device = batch.input_ids.device
    lengths = tuple(PairLengths(*each) for each in batch.packed or ())
    masks = tuple(_mask(each, dtype, device) if each.masked and each.rejected else None for each in lengths)
    # A mask of four dimensions is taken as it is: none of the row's size is made. The attention below reads no mask.
    unread = torch.zeros(1, 1, 1, 1, dtype=dtype, device=device)
    return {
        "attention_mask": unread,
        "position_ids": batch.position_ids,
        "packed_pairs": PackedPairs(lengths, masks),
    }


def _mask(lengths: PairLengths, dtype: torch.dtype, device: torch.device) -> Tensor:
    width = lengths.prompt + lengths.rejected
    hidden = torch.full((lengths.rejected, width), float("-inf"), dtype=dtype, device=device)
    return hidden.triu_(lengths.prompt + 1)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed_pairs: PackedPairs | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Attention by transformers' conventions: (1, heads, tokens, width) to (1, tokens, heads, width)."""
    if packed_pairs is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **arguments)
    if arguments.get("softcap") is not None:
        raise ValueError("packed pairs: this attention caps no scores")
    groups = getattr(module, "num_key_value_groups", 1)
    sizes = [size for each in packed_pairs.lengths for size in (each.prompt + each.chosen, each.rejected)]
    parts = (tensor.split(sizes, dim=2) for tensor in (query, repeat_kv(key, groups), repeat_kv(value, groups)))
    found: list[Tensor] = []
    given = {"dropout_p": arguments.get("dropout", 0.0), "scale": arguments.get("scaling")}
    queries, keys, values = parts
    for number, (lengths, mask) in enumerate(zip(packed_pairs.lengths, packed_pairs.masks, strict=True)):
        first, second = 2 * number, 2 * number + 1
        found.append(scaled_dot_product_attention(queries[first], keys[first], values[first], is_causal=True, **given))
        if not lengths.rejected:
            continue
        k, v = (torch.cat([side[first][:, :, : lengths.prompt], side[second]], dim=2) for side in (keys, values))
        if lengths.masked:
            found.append(scaled_dot_product_attention(queries[second], k, v, attn_mask=mask, **given))
        else:
            q = torch.cat([queries[first][:, :, : lengths.prompt], queries[second]], dim=2)
            whole = scaled_dot_product_attention(q, k, v, is_causal=True, **given)
            found.append(whole[:, :, lengths.prompt :])
    return torch.cat(found, dim=2).transpose(1, 2).contiguous(), None


def take_packed_rows(model: PreTrainedModel) -> None:
    """Let the model's layers attend as above. Its weights and its results for other rows are the same."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.config.get_text_config()._attn_implementation = NAME


@contextmanager
def packed_rows(model: PreTrainedModel) -> Iterator[None]:
    """While open, as after `take_packed_rows`."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    take_packed_rows(model)
    try:
        yield
    finally:
        config._attn_implementation = before
