"""Small random models of several families, made-up pairs, and a plain implementation of completion log-probs."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import AutoConfig

from aipo.models.policy import PolicyRef
from aipo.records import Completion, Pair

VOCABULARY = 61
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES: dict[str, dict] = {
    "llama": {"model_type": "llama"},
    "llama_tied": {"model_type": "llama", "tie_word_embeddings": True},
    "mistral_wide_window": {"model_type": "mistral", "sliding_window": 128},
    "mistral_narrow_window": {"model_type": "mistral", "sliding_window": 16},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "gemma2": {
        "model_type": "gemma2",
        "sliding_window": 128,
        "final_logit_softcapping": 3.0,
        "attn_logit_softcapping": 5.0,
        "query_pre_attn_scalar": 8,
        "_attn_implementation": "eager",
    },
    "gemma2_narrow_window": {
        "model_type": "gemma2",
        "sliding_window": 16,
        "final_logit_softcapping": 3.0,
        "attn_logit_softcapping": 5.0,
        "query_pre_attn_scalar": 8,
        "_attn_implementation": "eager",
    },
    "cohere": {"model_type": "cohere", "logit_scale": 0.25},
    "granite": {"model_type": "granite", "logits_scaling": 4.0},
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": VOCABULARY,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 128,
        "resid_pdrop": 0.3,
        "embd_pdrop": 0.3,
        "attn_pdrop": 0.3,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "phi_head_bias": {"model_type": "phi", "resid_pdrop": 0.3, "embd_pdrop": 0.3},
}


def build(family: str, folder: Path, seed: int = 0) -> PolicyRef:
    """A model of the family with a word-level tokenizer, saved as a Hugging Face folder. Weights are well spread."""
    settings = dict(FAMILIES[family])
    attention = settings.pop("_attn_implementation", "sdpa")
    kind = settings.pop("model_type")
    merged = settings if kind == "gpt2" else {**SMALL, **settings}
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **merged), attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    words = {f"w{index}": index for index in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="w1", eos_token="w2", pad_token="w0")
    fast.save_pretrained(folder)
    return PolicyRef(str(folder), attn_implementation=attention)


def pairs(count: int, seed: int = 0, longest: int = 18) -> list[Pair]:
    """Pairs of uneven lengths, one-token completions among them."""
    rng = random.Random(seed)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, VOCABULARY) for _ in range(length))

    def completion() -> Completion:
        return Completion("", (*ids(rng.choice([0, 1, 2, 5, 9, longest])), 2), "stop")

    return [
        Pair(
            pair_id=f"p{number}",
            prompt_id=f"p{number}",
            prompt_token_ids=ids(rng.randint(1, 12)),
            chosen=completion(),
            rejected=completion(),
            chosen_score=1.0,
            rejected_score=0.0,
            win_probability=rng.uniform(0.5, 1.0),
            chosen_win_share=0.75,
            rejected_win_share=0.375,
        )
        for number in range(count)
    ]


def plain_logps(model: torch.nn.Module, prompt: tuple[int, ...], completion: tuple[int, ...]) -> torch.Tensor:
    """Log-prob of each completion token: one sequence, the model's own logits, log-softmax in float64."""
    ids = torch.tensor([[*prompt, *completion]])
    logits = model(input_ids=ids, use_cache=False).logits[0].double()
    logps = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return logps.gather(1, torch.tensor(completion)[:, None])[:, 0]
