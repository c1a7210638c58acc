"""CPU seconds of the parts that every round repeats: sampling a small Llama, rows as Parquet, collation, a bootstrap.

It runs on any commit that has these modules, so a change is measured by running it on both, in turns:

    OMP_NUM_THREADS=1 python speed/parts.py --repeats 3
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from aipo.records import Candidates, Completion, Decoding, Message, Pair, Prompt, read_parquet, write_parquet

COMPLETIONS, TOKENS = 10_000, 392


def small_llama(folder: Path) -> str:
    """A random Llama of the miniature's shape with its tokenizer; returns its folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from aipo.miniature.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def candidates() -> list[Candidates]:
    """COMPLETIONS completions of about TOKENS tokens, five a prompt."""
    rng = random.Random(0)

    def completion() -> Completion:
        count = rng.randint(TOKENS - 100, TOKENS + 100)
        return Completion("word " * count, tuple(rng.choices(range(32000), k=count)), "stop", -rng.random())

    return [
        Candidates(Prompt(f"p{number}", (Message("user", "hello"),), "pool"), tuple(completion() for _ in range(5)))
        for number in range(COMPLETIONS // 5)
    ]


def main() -> None:
    """Print the median of each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats

    from aipo.models.batching import collate
    from aipo.models.policy import PolicyRef
    from aipo.samplers import HFSampler
    from aipo.stats import pooled_bootstrap

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sampler = HFSampler(PolicyRef(small_llama(folder / "model")))
        sampler.loaded()
        chats = [(Message("user", f"{number} and the pet?"),) for number in range(100)]
        rows = candidates()
        flat = [item for row in rows[:40] for item in row.completions]
        pairs = [
            Pair(str(number), "p", (1,) * 100, flat[2 * number], flat[2 * number + 1], 1.0, 0.0) for number in range(64)
        ]
        outcomes = random.Random(0).choices([0, 0, 0.5, 1], k=400)
        battles = [("base", "policy", outcome) for outcome in outcomes]
        parts: dict[str, Callable[[], object]] = {
            "sampling: 500 completions of 64 tokens": lambda: sampler.sample(
                chats, Decoding(1.0, 1.0, 0, 64), n=5, seed=0
            ),
            "writing 10,000 completions of 392 tokens": lambda: write_parquet(folder / "rows.parquet", rows),
            "reading them": lambda: read_parquet(folder / "rows.parquet", Candidates),
            "collating 64 pairs of 392 tokens a side": lambda: collate(pairs),
            "Arena-Hard's official bootstrap, 400 battles": lambda: pooled_bootstrap(battles, baseline="base"),
        }
        for name, part in parts.items():
            part()
            seconds = []
            for _ in range(repeats):
                started = time.process_time()
                part()
                seconds.append(time.process_time() - started)
            each = " / ".join(f"{value:.4f}" for value in seconds)
            print(f"{name:46} {statistics.median(seconds):8.4f} s of CPU ({each})", flush=True)


if __name__ == "__main__":
    main()
