"""The one place where token ids and a model become log-probs, and the only shift by one in the project.

`PairScorer` wraps a causal language model. For a `PairBatch` it returns summed completion log-probs, the input of
every objective. A pair shares one row where the model allows it, which is tested on the model itself, not assumed:
`aipo.models.capabilities` compares both layouts on a few tokens when the scorer is built.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from aipo.models.batching import PairBatch, attention_mask, collate
from aipo.models.capabilities import Capabilities, inspect_model
from aipo.models.layouts import LayerCosts, Layout, layer_costs, pair_lengths
from aipo.models.packing import pack, packed_arguments, take_packed_rows
from aipo.models.vocabulary import log_collisions, token_logps
from aipo.records import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SideLogps(NamedTuple):
    """Log-probs of a batch of pairs in nats, summed over completion tokens. Every tensor has shape (pairs,).

    Tokens are summed in float64; the sums are float32, or float64 for a float64 model.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_prefix: Tensor
    """Over the first min(chosen, rejected) tokens only; so is `rejected_prefix`."""
    rejected_prefix: Tensor
    chosen_sample: Tensor | None = None
    """Over the tokens of `PairBatch.sample`; None where there is none. So is `rejected_sample`."""
    rejected_sample: Tensor | None = None
    chosen_alignment: Tensor | None = None
    """Mean over tokens of log p(token) - log sum_v p(v)^2, detached; None unless `PairBatch.alignment`. So is
    `rejected_alignment`."""
    rejected_alignment: Tensor | None = None


class PairScorer(nn.Module):
    """A causal language model as a function from a `PairBatch` to `SideLogps`.

    Building one runs the model on a few tokens: a head that does something unknown to the logits raises
    UnsupportedModelError, a model that cannot share rows is given separate ones, with a warning.

    `cheapest`: each batch gets the layout that costs least, packed pairs among them, where the model allows it. Else,
    with a warning, it gets a padded row a pair. Results differ by rounding.
    """

    def __init__(
        self, model: PreTrainedModel, capabilities: Capabilities | None = None, *, cheapest: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.capabilities = inspect_model(model, packed=cheapest) if capabilities is None else capabilities
        self.packs = cheapest and self.capabilities.packs
        self.costs: LayerCosts | None = None
        """Of this model on its device; found at the first batch."""
        if self.packs:
            take_packed_rows(model)
        self._warned: set[str] = set()
        if not self.capabilities.shares_rows:
            self._warn_once(
                "layout",
                f"{type(model).__name__}: {self.capabilities.reason}; each completion gets a row of its own",
            )
        elif cheapest and not self.packs:
            attention = model.config.get_text_config()._attn_implementation
            self._warn_once(
                "packing",
                f"{type(model).__name__} with {attention} attention: its pairs cannot be packed, so layout=cheapest is "
                "without effect; each pair gets a padded row",
            )

    def collate(self, pairs: Sequence[Pair]) -> PairBatch:
        """Lay pairs out as this model needs them, on its device."""
        device = next(self.model.parameters()).device
        multiple = 1 if device.type == "cpu" else 8  # fused attention kernels want rows aligned to 16 bytes
        layout = self._layout(pairs)
        batch = collate(pairs, shared=layout != "separate", pad_to_multiple_of=multiple)
        window = self.capabilities.window
        if batch.shared and window is not None and batch.span > window:
            self._warn_once(
                "window",
                f"pairs span {batch.span} tokens, more than the attention window of {window}: such batches use a row "
                "per completion, where the model applies its window itself",
            )
            batch = collate(pairs, shared=False, pad_to_multiple_of=multiple)
        limit = self.capabilities.max_positions
        if limit is not None and batch.span > limit:
            raise ValueError(
                f"a pair spans {batch.span} tokens, but the model has position embeddings for {limit}; "
                "filter pairs by length (max_length)"
            )
        return (pack(batch) if layout == "packed" and batch.shared else batch).to(device)

    def _layout(self, pairs: Sequence[Pair]) -> Layout:
        if not self.capabilities.shares_rows:
            return "separate"
        if not self.packs:
            return "shared"
        if self.costs is None:
            self.costs = layer_costs(self.model, next(self.model.parameters()).device.type)
        return self.costs.cheapest(pair_lengths(pairs))

    def forward(self, batch: PairBatch) -> SideLogps:
        """Log-probs of both sides. `batch` comes from `collate` of the same scorer."""
        backbone, head = self.model.base_model, self.model.get_output_embeddings()
        # A row per completion needs no mask: it is padded on the right, where a causal model never looks.
        arguments: dict[str, Any] = {}
        if batch.packed is not None:
            arguments = packed_arguments(batch, head.weight.dtype)
        elif batch.shared:
            arguments["attention_mask"] = attention_mask(batch.branch, head.weight.dtype)
            arguments["position_ids"] = batch.position_ids
        hidden = backbone(input_ids=batch.input_ids, use_cache=False, **arguments).last_hidden_state
        states = hidden.flatten(0, 1).index_select(0, batch.predictors)
        bias, transform = getattr(head, "bias", None), self.capabilities.transform
        logps = token_logps(states, head.weight, bias, batch.targets, transform)
        sides = sum_sides(logps, batch)
        if not batch.alignment:
            return sides
        aligned = logps.detach() - log_collisions(states, head.weight, bias, transform)
        sums = aligned.double().new_zeros(2 * batch.pairs).index_add(0, batch.sides, aligned.double()).to(logps.dtype)
        chosen, rejected = sums.chunk(2)
        return sides._replace(
            chosen_alignment=chosen / batch.chosen_tokens, rejected_alignment=rejected / batch.rejected_tokens
        )

    def _warn_once(self, topic: str, message: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            warnings.warn(message, stacklevel=3)


def sum_sides(logps: Tensor, batch: PairBatch) -> SideLogps:
    """Sum per-token log-probs (targets,) to one number per side of every pair."""
    exact = logps.double()
    zeros = exact.new_zeros(2 * batch.pairs)
    full = zeros.index_add(0, batch.sides, exact).to(logps.dtype)
    prefix = zeros.index_add(0, batch.sides, torch.where(batch.prefix, exact, 0.0)).to(logps.dtype)
    parts = [full, prefix]
    if batch.sample is not None:
        parts.append(zeros.index_add(0, batch.sides, torch.where(batch.sample, exact, 0.0)).to(logps.dtype))
    # Copies, not views: sharded weights are gathered for the backward pass by a hook on these tensors.
    return SideLogps(*(half.clone() for sums in parts for half in sums.chunk(2)))
