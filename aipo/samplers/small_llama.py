"""One decoding step of a small Llama in few operations: for such a model their number, not their size, is the time.

transformers runs some hundred operations and module calls per layer and step. Here projections of the same input are
one product and the rotary tables are made once; every number is that of transformers up to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, rms_norm, scaled_dot_product_attention, silu

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.cache_utils import DynamicCache

LARGEST = 2**25
"""Parameters up to which a model counts as small: its projections are held twice."""


class SmallLlama:
    """Decodes one token per row. Built by `small_llama`, which knows what is supported."""

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config
        self.heads, self.eps = config.num_attention_heads, config.rms_norm_eps
        self.table = model.model.embed_tokens.weight
        self.head = model.lm_head.weight
        self.last_norm = model.model.norm.weight
        self.layers = [
            (
                layer.input_layernorm.weight,
                torch.cat([getattr(layer.self_attn, f"{name}_proj").weight for name in "qkv"]),
                layer.self_attn.o_proj.weight,
                layer.post_attention_layernorm.weight,
                torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight]),
                layer.mlp.down_proj.weight,
            )
            for layer in model.model.layers
        ]
        positions = torch.arange(config.max_position_embeddings, device=self.table.device)
        cosines, sines = (part[0] for part in model.model.rotary_emb(self.table, positions[None]))
        half = cosines.shape[-1] // 2
        # The minus of the rotated half goes into the table.
        self.rotary = torch.stack([cosines, torch.cat([-sines[:, :half], sines[:, half:]], dim=-1)])

    def __call__(self, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: DynamicCache) -> Tensor:
        """Next-token logits (rows, vocabulary). `tokens` and `positions` (rows,) int64.

        `mask` (rows, keys), true where a key may be seen; None: everywhere. Appends to `cache`.
        """
        rows, width = len(tokens), self.table.shape[1]
        seen = None if mask is None else mask[:, None, None, :]
        cosines, sines = self.rotary[:, positions, None, None, :]
        hidden = embedding(tokens, self.table)
        for index, (norm, qkv, out, after_norm, gate_up, down) in enumerate(self.layers):
            parts = linear(rms_norm(hidden, norm.shape, norm, self.eps), qkv)
            queries_keys, values = parts.view(rows, 3, self.heads, -1).split([2, 1], dim=1)
            first, second = queries_keys.chunk(2, dim=-1)
            swapped = torch.cat([second, first], dim=-1)
            turned = queries_keys * cosines + swapped * sines
            keys, values = cache.update(turned[:, 1].unsqueeze(2), values[:, 0].unsqueeze(2), index)
            read = scaled_dot_product_attention(turned[:, 0].unsqueeze(2), keys, values, attn_mask=seen)
            hidden = hidden + linear(read.view(rows, width), out)
            gate, up = linear(rms_norm(hidden, after_norm.shape, after_norm, self.eps), gate_up).chunk(2, dim=-1)
            hidden = hidden + linear(silu(gate) * up, down)
        return linear(rms_norm(hidden, self.last_norm.shape, self.last_norm, self.eps), self.head)


def small_llama(model: PreTrainedModel) -> SmallLlama | None:
    """The short way through `model`, or None where it is no small Llama of the plain kind."""
    from transformers import LlamaForCausalLM

    if type(model) is not LlamaForCausalLM or model.training:
        return None
    config = model.config
    plain = (
        model.dtype == torch.float32
        and config._attn_implementation == "sdpa"
        and config.num_key_value_heads == config.num_attention_heads
        and config.hidden_size == config.num_attention_heads * config.head_dim
        and not (config.attention_bias or config.mlp_bias)
        and config.hidden_act == "silu"
        and config.rope_parameters["rope_type"] == "default"
        and model.num_parameters() <= LARGEST
        and all(type(module) is torch.nn.Linear for name, module in model.named_modules() if name.endswith("proj"))
    )
    return SmallLlama(model) if plain else None
