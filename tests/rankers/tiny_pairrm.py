"""Small random PairRM checkpoints in the published layout, written key by key without the ranker's own classes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import DebertaV2Config, DebertaV2Model, DebertaV2Tokenizer

MARKERS = ["<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"]
WIDTH = 32


def write_pairrm(folder: Path, seed: int = 0) -> None:
    """config.json, model.safetensors and tokenizer files of a PairRM with two layers."""
    characters = sorted({*"abcdefghijklmnopqrstuvwxyz ABC.,!?:'<>|[]0123456789\n"} - {" "})
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    pieces = [*special, "▁", *characters, "▁the", "▁red", "▁blue", "and"]
    tokenizer = DebertaV2Tokenizer(vocab=[(piece, -float(rank)) for rank, piece in enumerate(pieces)], unk_id=3)
    tokenizer.add_tokens(MARKERS)
    tokenizer.save_pretrained(folder)
    ids = tokenizer.convert_tokens_to_ids(MARKERS)
    config = DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        relative_attention=True, position_buckets=16, pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm",
        share_att_key=True, position_biased_input=False, max_position_embeddings=64, type_vocab_size=0,
        initializer_range=0.4,
    )  # fmt: skip
    torch.manual_seed(seed)
    backbone = DebertaV2Model(config)
    weights = {f"pretrained_model.{key}": value.contiguous() for key, value in backbone.state_dict().items()}
    weights |= {
        "head_layer.1.weight": torch.randn(WIDTH, 2 * WIDTH) / 8, "head_layer.1.bias": torch.randn(WIDTH),
        "head_layer.4.weight": torch.randn(1, WIDTH) / 8, "head_layer.4.bias": torch.randn(1),
    }  # fmt: skip
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    published = config.to_dict() | {
        "architectures": ["DebertaV2PairRM"], "n_tasks": 1, "drop_out": 0.05, "source_prefix_id": ids[0],
        "cand1_prefix_id": ids[1], "cand2_prefix_id": ids[2], "cand_prefix_id": ids[3],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(published, default=str), encoding="utf-8")
