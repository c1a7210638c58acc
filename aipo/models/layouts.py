"""What a batch costs in each layout, and which is cheapest: nothing is laid out before it is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aipo.models.packing import PairLengths
from aipo.records import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Layout = Literal["shared", "separate", "packed"]
"""A padded row a pair, a padded row a completion, or one row of all pairs."""

CALL_FLOPS = {"cpu": 2.5e6, "cuda": 4e9, "mps": 4e9}
"""What a device computes in the time that one more call of attention takes to start, forward. All are
estimates: the CPU's as speed/RESULTS.md tells, the others 10 microseconds at 400 TFLOP/s."""


@dataclass(frozen=True)
class Work:
    """What a batch makes a layer do."""

    tokens: int
    """Padding included."""
    padding: int
    cells: float
    """Pairs of query and key, per head; what a causal kernel leaves out is not counted."""
    calls: int
    """Of attention."""


def work(layout: Layout, pairs: Sequence[PairLengths]) -> Work:
    """The work of a batch of these pairs in that layout."""
    used = sum(pair.tokens for pair in pairs)
    if layout == "packed":
        return Work(used, 0, sum(pair.cells for pair in pairs), sum(1 + (pair.rejected > 0) for pair in pairs))
    if layout == "shared":
        width = max(pair.tokens for pair in pairs)
        return Work(len(pairs) * width, len(pairs) * width - used, len(pairs) * width**2, 1)
    width = max(pair.prompt + max(pair.chosen, pair.rejected) for pair in pairs)
    both = used + sum(pair.prompt for pair in pairs)
    rows = 2 * len(pairs)
    return Work(rows * width, rows * width - both, rows * width**2 / 2, 1)


def least_work(pairs: Sequence[PairLengths]) -> Work:
    """Each prompt once, each completion once, each query with the keys it sees and no others."""
    cells = sum((p + c) ** 2 / 2 + p * r + r**2 / 2 for p, c, r in pairs)
    return Work(sum(pair.tokens for pair in pairs), 0, cells, 0)


@dataclass(frozen=True)
class LayerCosts:
    """FLOPs of a forward pass through a backbone."""

    token: float
    """Of one token in all matrices."""
    cell: float
    """Of one query with one key, in all heads and layers."""
    call: float
    """What one call of attention in every layer is worth."""

    def flops(self, work: Work) -> float:
        """Of a batch's work; time in the unit of a FLOP, calls included."""
        return work.tokens * self.token + work.cells * self.cell + work.calls * self.call

    def cheapest(self, pairs: Sequence[PairLengths]) -> Layout:
        """The layout with the least cost; of equals the one without padding."""
        layouts: tuple[Layout, ...] = ("packed", "shared", "separate")
        return min(layouts, key=lambda layout: self.flops(work(layout, pairs)))


def layer_costs(model: PreTrainedModel, device: str) -> LayerCosts:
    """From the model's own matrices, embeddings left out."""
    config = model.config.get_text_config()
    words = model.get_input_embeddings().weight.shape
    matrices = sum(w.numel() for w in model.base_model.parameters() if w.ndim == 2 and w.shape != words)
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return LayerCosts(2.0 * matrices, 4.0 * layers * width, layers * CALL_FLOPS.get(device, CALL_FLOPS["cuda"]))


def pair_lengths(pairs: Sequence[Pair]) -> list[PairLengths]:
    """Input tokens of each pair."""
    return [
        PairLengths(len(pair.prompt_token_ids), len(pair.chosen.token_ids) - 1, len(pair.rejected.token_ids) - 1)
        for pair in pairs
    ]
