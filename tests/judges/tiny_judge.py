"""A small random model with a chat template, saved as an ordinary folder."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def save_tiny_judge(folder: Path) -> Path:
    """Write model and tokenizer into `folder`, which is returned."""
    words = ["<pad>", "<end>", "<user>", "<model>", "m", "M", "which", "is", "better", "?"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")
    fast.add_special_tokens({"additional_special_tokens": ["<user>", "<model>"]})
    fast.chat_template = (
        "{% for m in messages %}{{ ('<user> ' if m['role'] == 'user' else '<model> ') + m['content'] + ' <end> ' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<model> ' }}{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        eos_token_id=1,
        bos_token_id=None,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(8)  # so that different prompts get different replies
        model.lm_head.weight[:4] = 0  # and consist of words, never special tokens
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
