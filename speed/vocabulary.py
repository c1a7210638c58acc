"""The tiled projection onto the vocabulary against the plain one: `python speed/vocabulary.py`.

Speed: forward and backward of both, alternating in one run, medians. Memory: each measurement in a process of its own,
peak above the inputs, beside the size of the (tokens x vocabulary) matrix in float32 that the plain one holds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import torch

from aipo.models.vocabulary import CPU_TILING, LogitTransform, token_logps
from aipo.records import markdown_header, markdown_row
from aipo.training.memory import peak_memory_gib, reset_peak

SPEED = [(64, 64, 218), (256, 256, 2_000), (512, 256, 8_000), (512, 256, 32_000), (2048, 256, 32_000)]
MEMORY = [(2048, 32_000), (8192, 32_000), (8192, 128_000)]
WIDTH = 256


def inputs(tokens: int, width: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, head and targets."""
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=True)
    return hidden, weight, torch.randint(0, vocabulary, (tokens,))


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """All logits at once."""
    return (hidden @ weight.T).log_softmax(-1).gather(1, targets[:, None])[:, 0]


def ours(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Ours, as training calls it: tiled from a certain size on."""
    return token_logps(hidden, weight, None, targets, LogitTransform())


def tiled(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Ours, tiled however small."""
    return token_logps(hidden, weight, None, targets, LogitTransform(), CPU_TILING)


def seconds(function, tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> float:
    """One forward and backward pass."""
    start = time.perf_counter()
    function(*tensors).sum().backward()
    elapsed = time.perf_counter() - start
    for tensor in tensors[:2]:
        tensor.grad = None
    return elapsed


def peak_gib(tokens: int, vocabulary: int) -> float:
    """Peak memory of ours above its inputs, in this process."""
    tensors = inputs(tokens, WIDTH, vocabulary)
    device = torch.device("cpu")
    reset_peak(device)
    start = peak_memory_gib(device)
    ours(*tensors).sum().backward()
    return peak_memory_gib(device) - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="at least; small shapes: for ten seconds")
    parser.add_argument("--peak", type=int, nargs=2, metavar=("TOKENS", "VOCABULARY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        print(peak_gib(*arguments.peak))
        return
    names = ("tokens", "width", "vocabulary", "plain, ms", "ours / plain", "tiled / plain")
    print(markdown_header(names, text_columns=0))
    for tokens, width, vocabulary in SPEED:
        tensors = inputs(tokens, width, vocabulary)
        found: dict[str, list[float]] = {function.__name__: [] for function in (plain, ours, tiled)}
        end = time.perf_counter() + 10
        while len(found["tiled"]) <= arguments.repeats or time.perf_counter() < end:
            for function in (plain, ours, tiled):
                found[function.__name__].append(seconds(function, tensors))
        times = {name: 1000 * statistics.median(values[1:]) for name, values in found.items()}
        ratios = (f"{times[name] / times['plain']:.2f}" for name in ("ours", "tiled"))
        print(markdown_row((tokens, width, vocabulary, f"{times['plain']:.2f}", *ratios)), flush=True)
    names = ("tokens", "vocabulary", "the matrix, GiB", "ours above its inputs, GiB")
    print("\n" + markdown_header(names, text_columns=0))
    for tokens, vocabulary in MEMORY:
        command = [sys.executable, __file__, "--peak", str(tokens), str(vocabulary)]
        extra = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        matrix = 4 * tokens * vocabulary / 2**30
        print(markdown_row((tokens, vocabulary, f"{matrix:.2f}", f"{extra:.2f}")), flush=True)


if __name__ == "__main__":
    main()
