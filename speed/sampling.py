"""Our Hugging Face sampler against transformers' own `generate`: same model, prompts, decoding and token count.

    OMP_NUM_THREADS=1 python speed/sampling.py             # about ten minutes on one core
    OMP_NUM_THREADS=1 python speed/sampling.py --repeats 1 # a quick look

Two comparisons, the sides alternating in one process: a plain loop over `generate(num_return_sequences=1)` on prompts
of mixed lengths, and `generate(num_return_sequences=5)` on left-padded batches of long prompts, as many rows as ours.
The model is random and its EOS is switched off, so every completion has the same length on both sides: ours would gain
more from answers that end early. Figures are medians of tokens/s. `--write` appends them to `speed/RESULTS.md`.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from aipo.models.policy import PolicyRef
from aipo.records import Decoding, markdown_header, markdown_row
from aipo.samplers.hf import HFSampler

RESULTS = Path(__file__).parent / "RESULTS.md"
VOCABULARY = 32_000
CANDIDATES = 5
NEW_TOKENS = 64
CACHE_TOKENS = 32_768
DECODING = Decoding(temperature=0.4, top_p=1.0, top_k=50, max_new_tokens=NEW_TOKENS)  # the paper's, but for the length
Prompts = list[tuple[int, ...]]
Side = Callable[[Prompts], None]


def save_model(folder: Path) -> None:
    """A random Llama of 19.5 M parameters with a tokenizer whose end-of-turn token the model cannot draw."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>")),
        eos_token="<|end|>",
        pad_token="<pad>",
        chat_template="{% for m in messages %}{{ m.content }}<|end|>{% endfor %}",
    )
    tokenizer.add_special_tokens({"eos_token": "<|end|>"})
    tokenizer.save_pretrained(folder)


def make_prompts(count: int, shortest: int, longest: int, seed: int) -> Prompts:
    """Random ids, lengths uniform between two bounds."""
    numbers = random.Random(seed)
    lengths = [numbers.randint(shortest, longest) for _ in range(count)]
    return [tuple(numbers.randrange(3, VOCABULARY) for _ in range(length)) for length in lengths]


def ours(sampler: HFSampler) -> Side:
    """The sampler, fed with ids."""

    def run(prompts: Prompts) -> None:
        rows = sampler._run(prompts, DECODING, CANDIDATES, 0, ())
        assert all(len(completion.token_ids) == NEW_TOKENS for row in rows for completion in row)

    return run


def generate(model: PreTrainedModel, rows: int, sequences: int) -> Side:
    """`generate` on batches of `rows` prompts, `sequences` for each; called again until all candidates are there."""
    settings = dict(
        do_sample=True, temperature=DECODING.temperature, top_k=DECODING.top_k, top_p=DECODING.top_p,
        max_new_tokens=NEW_TOKENS, num_return_sequences=sequences, pad_token_id=0,
    )  # fmt: skip

    def run(prompts: Prompts) -> None:
        for _ in range(CANDIDATES // sequences):
            ordered = sorted(prompts, key=len)
            for start in range(0, len(ordered), rows):
                batch = ordered[start : start + rows]
                width = max(map(len, batch))
                ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in batch])
                mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
                with torch.inference_mode():
                    out = model.generate(ids, attention_mask=mask, **settings)
                assert out.shape == (len(batch) * sequences, width + NEW_TOKENS)

    return run


def compare(name: str, sides: dict[str, Side], prompts: Prompts, repeats: int) -> list[str]:
    """Rows of the table of results; the sides alternate."""
    tokens = len(prompts) * CANDIDATES * NEW_TOKENS
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, run in sides.items():
            started = time.perf_counter()
            run(prompts)
            rates[side].append(tokens / (time.perf_counter() - started))
            print(f"{name}: {side}: {rates[side][-1]:.0f} tokens/s", flush=True)
    medians = {side: statistics.median(rate) for side, rate in rates.items()}
    (mine, us), (other, them) = medians.items()
    each = " / ".join(f"{a / b:.2f}" for a, b in zip(rates[mine], rates[other], strict=True))
    return [markdown_row((name, f"{us:,.0f}", f"{them:,.0f} ({other})", f"{us / them:.2f}", each))]


def main() -> None:
    """Measure and print, and append to RESULTS.md when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="append to speed/RESULTS.md")
    parser.add_argument("--machine", default=f"{platform.machine()}, {os.cpu_count()} cores")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        sampler = HFSampler(PolicyRef(folder), cache_tokens=CACHE_TOKENS)
        model, _ = sampler.loaded()
        mixed, long = make_prompts(12, 32, 256, seed=1), make_prompts(12, 480, 512, seed=2)
        rows = CACHE_TOKENS // (CANDIDATES * (512 + NEW_TOKENS))
        lines = compare(
            "12 prompts of 32-256 tokens",
            {"ours": ours(sampler), "loop of generate": generate(model, 1, 1)},
            mixed,
            arguments.repeats,
        )
        lines += compare(
            "12 prompts of 480-512 tokens",
            {"ours": ours(sampler), f"generate, {rows} prompts a batch": generate(model, rows, CANDIDATES)},
            long,
            arguments.repeats,
        )
    table = "\n".join([
        f"\n## Sampling with transformers ({datetime.now(UTC):%Y-%m-%d}, {arguments.machine})\n",
        f"`OMP_NUM_THREADS={torch.get_num_threads()} python speed/sampling.py --repeats {arguments.repeats}`, "
        f"torch {torch.__version__}. {CANDIDATES} candidates of {NEW_TOKENS} tokens for each prompt, T 0.4, top_k 50, "
        "Llama of 19.5 M parameters, float32. Medians of tokens/s.\n",
        markdown_header(("prompts", "ours", "transformers", "ratio", "ratio of each round")),
        *lines,
    ])  # fmt: skip
    print(table)
    if arguments.write:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(table + "\n")


if __name__ == "__main__":
    main()
