"""Small random models with a word-level tokenizer, saved as ordinary folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from aipo.records import Chat, Message

BOS, END = 0, 1
CHAT_TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"


def word_tokenizer(words: int) -> PreTrainedTokenizerFast:
    """`<s>`, `</s>`, `<unk>`, then `a0 a1 ...`: words that are one token each, written without spaces."""
    ids = {"<s>": BOS, "</s>": END, "<unk>": 2} | {f"a{number}": 3 + number for number in range(words - 3)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"a\d+"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ("<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def tiny(kind: str, vocab: int, **settings: Any) -> PreTrainedModel:
    """A random two-layer causal model of a family, `kind` being the prefix of its classes in transformers.

    Its head is scaled up, so that the next token's distribution is far from uniform.
    """
    import transformers

    sizes = {
        "vocab_size": vocab, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 256,
        "bos_token_id": BOS, "eos_token_id": END, "pad_token_id": None, "tie_word_embeddings": False,
    }  # fmt: skip
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**(sizes | settings))
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(8)
    return model


def save(model: PreTrainedModel, folder: Path) -> str:
    """Write the model and its tokenizer; returns the folder as a policy's path."""
    model.save_pretrained(folder)
    word_tokenizer(model.config.vocab_size).save_pretrained(folder)
    return str(folder)


def chat(*numbers: int) -> Chat:
    """A one-turn chat of the words with these numbers."""
    return (Message("user", "".join(f"a{number}" for number in numbers)),)
