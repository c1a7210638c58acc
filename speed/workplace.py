"""What trainers are measured on: a random Llama of a given shape, a tokenizer for it, and pairs of random tokens."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

from aipo.records import Completion, Pair, write_parquet

EOS = "</s>"


@dataclass(frozen=True)
class Shape:
    """What is trained on what. Lengths are log-normal with the given means, in tokens."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    dtype: str
    pairs: int
    pairs_per_step: int
    prompt_mean: int
    completion_mean: int
    longest: int
    sigma: float
    epochs: int
    gradient_checkpointing: bool
    tokens_per_batch: int | None
    learning_rate: float = 1e-5


SHAPES = {
    "cpu": Shape(256, 688, 4, 4, 4, 32_000, "float32", 64, 8, 128, 220, 600, 0.5, 2, False, 2048),
    # 1.2 B parameters; lengths as in UltraFeedback.
    "gpu": Shape(2048, 8192, 16, 32, 8, 128_256, "bfloat16", 512, 32, 200, 330, 2048, 0.8, 1, False, None),
}


def make_pairs(shape: Shape, seed: int) -> list[Pair]:
    """Random tokens with random lengths; every completion ends with the end-of-turn token, id 1."""
    numbers = random.Random(seed)

    def ids(mean: int) -> tuple[int, ...]:
        length = numbers.lognormvariate(math.log(mean) - shape.sigma**2 / 2, shape.sigma)
        return tuple(numbers.randrange(2, shape.vocabulary) for _ in range(max(2, min(shape.longest, round(length)))))

    def completion() -> Completion:
        return Completion("", (*ids(shape.completion_mean)[:-1], 1), "stop")

    return [
        Pair(f"p{index}", f"p{index}", ids(shape.prompt_mean), completion(), completion(), 1.0, 0.0)
        for index in range(shape.pairs)
    ]


def make_workplace(folder: Path, shape: Shape, seed: int) -> None:
    """A model, a tokenizer that maps the word `wN` to id N, and the pairs."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=4 * shape.longest,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).to(getattr(torch, shape.dtype)).save_pretrained(folder / "model")
    words = {"<pad>": 0, EOS: 1} | {f"w{index}": index for index in range(2, shape.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token="<pad>").save_pretrained(
        folder / "model"
    )
    write_parquet(folder / "pairs.parquet", make_pairs(shape, seed))
    (folder / "shape.json").write_text(json.dumps(dataclasses.asdict(shape)), encoding="utf-8")


def words(ids: tuple[int, ...]) -> str:
    """Text that the tokenizer of the workplace turns into these ids."""
    return "".join(f" {EOS if token == 1 else f'w{token}'}" for token in ids)
