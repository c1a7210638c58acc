"""The shape of a decoder with gated MLPs (Llama, Mistral, Qwen2, Gemma-2), from which sizes and costs follow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """Names follow Hugging Face's config.json."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "tie_word_embeddings" and value < 1:
                raise ValueError(f"model.shape.{name} must be at least 1, got {value}")

    @property
    def parameters(self) -> int:
        """All weights, norms included."""
        h, heads, kv, d = self.hidden_size, self.num_attention_heads, self.num_key_value_heads, self.head_dim
        attention = 2 * h * heads * d + 2 * h * kv * d
        layer = attention + 3 * h * self.intermediate_size + 2 * h
        return self.num_hidden_layers * layer + self.embeddings * (1 if self.tie_word_embeddings else 2) + h

    @property
    def embeddings(self) -> int:
        """Weights of one matrix of words: the input's, or the head's."""
        return self.vocab_size * self.hidden_size

    def forward_flops(self, context: float, *, head: bool = True) -> float:
        """FLOPs of one token in a forward pass over rows of `context` tokens: 2 a weight, and attention."""
        matrices = self.parameters - self.embeddings * ((0 if self.tie_word_embeddings else 1) + (not head))
        attention = 2 * context * self.num_hidden_layers * self.num_attention_heads * self.head_dim
        return 2 * matrices + attention

    @property
    def kv_bytes_per_token(self) -> int:
        """Key and value cache of one token in 16-bit floats."""
        return 2 * 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """The shape that a config.json describes. A missing field raises KeyError with its name."""
        heads = config["num_attention_heads"]
        return cls(
            config["num_hidden_layers"],
            config["hidden_size"],
            config["intermediate_size"],
            heads,
            config.get("num_key_value_heads") or heads,
            config.get("head_dim") or config["hidden_size"] // heads,
            config["vocab_size"],
            config.get("tie_word_embeddings", False),
        )


def shape_of_folder(folder: Path) -> ModelShape:
    """The shape of the model saved in `folder`."""
    return ModelShape.from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
