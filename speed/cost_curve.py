"""The cost curve of our training step: `python speed/cost_curve.py`, some minutes on one core.

From one shape (a Llama of four layers, hidden size 256, float32) on, one quantity is varied at a time: completion
length, vocabulary, pairs, tokens of a micro-batch. Each point is a process of its own. Beside its peak memory stand
two sizes that explain it: weights, gradients and AdamW's moments (16 bytes a parameter), and the float32 matrix of a
full micro-batch's tokens x vocabulary, which is never held.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

from tqdm import tqdm
from train_step import alternate
from workplace import SHAPES, Shape, make_workplace

from aipo.records import markdown_header, markdown_row

START = dataclasses.replace(
    SHAPES["cpu"], vocabulary=8_000, pairs=32, completion_mean=110, longest=300, epochs=1, tokens_per_batch=2048
)
POINTS: list[dict[str, int]] = [
    {},
    {"completion_mean": 220, "longest": 600},
    {"completion_mean": 440, "longest": 1200},
    {"vocabulary": 32_000},
    {"vocabulary": 128_000},
    {"pairs": 64},
    {"pairs": 128},
    {"tokens_per_batch": 8192, "pairs_per_step": 16},
    {"tokens_per_batch": 8192, "pairs_per_step": 16, "vocabulary": 128_000},
]


def parameters(shape: Shape) -> int:
    """Weights of the model."""
    width = shape.hidden
    key_values = width * shape.key_value_heads // shape.heads
    block = 2 * width * (width + key_values) + 3 * width * shape.intermediate + 2 * width
    return shape.layers * block + width + 2 * shape.vocabulary * width


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    names = ("completion tokens", "vocabulary", "pairs", "micro-batch tokens", "pairs/s", "peak GiB", "states GiB")
    print(markdown_header((*names, "matrix GiB"), text_columns=0))
    for change in tqdm(POINTS):
        shape = dataclasses.replace(START, **change)
        with tempfile.TemporaryDirectory() as name:
            make_workplace(Path(name), shape, seed=0)
            ((_, result),) = alternate(Path(name), ["ours"], 1)
        states, matrix = 16 * parameters(shape), 4 * (shape.tokens_per_batch or 0) * shape.vocabulary
        measured = (result["pairs_per_s"], result["peak_memory_gib"], states / 2**30, matrix / 2**30)
        sizes = (shape.completion_mean, shape.vocabulary, shape.pairs, shape.tokens_per_batch)
        tqdm.write(markdown_row((*sizes, *(f"{value:.2f}" for value in measured))))


if __name__ == "__main__":
    main()
