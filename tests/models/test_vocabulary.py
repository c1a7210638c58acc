"""The tiled projection onto the vocabulary: value, gradient and memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from aipo.models.vocabulary import LogitTransform, Tiling, token_logps


def direct(hidden, weight, bias, targets, transform):
    logits = torch.nn.functional.linear(hidden, weight, bias) * transform.scale
    if transform.softcap is not None:
        logits = transform.softcap * torch.tanh(logits / transform.softcap)
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]


@pytest.mark.parametrize(
    "tiling", [Tiling(1, 1), Tiling(5, 7), Tiling(17, 7), Tiling(5, 23), Tiling(10**6, 10**6), None]
)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("transform", [LogitTransform(), LogitTransform(0.5, None), LogitTransform(2.0, 3.0)])
def test_value_and_gradient(tiling: Tiling | None, with_bias: bool, transform: LogitTransform) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(17, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(23, 8, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(23, dtype=torch.float64, requires_grad=True) if with_bias else None
    targets = torch.randint(0, 23, (17,))
    inputs = [hidden, weight] + ([bias] if with_bias else [])
    found = token_logps(hidden, weight, bias, targets, transform, tiling)
    wanted = direct(hidden, weight, bias, targets, transform)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)
    slopes = torch.randn(17, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad(found @ slopes, inputs), torch.autograd.grad(wanted @ slopes, inputs), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-11)


def test_log_softmax_is_float32_under_bfloat16() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(12, 16).bfloat16()
    weight = torch.randn(40, 16).bfloat16()
    targets = torch.randint(0, 40, (12,))
    found = token_logps(hidden, weight, None, targets, LogitTransform())
    assert found.dtype == torch.float32
    logits = hidden.float() @ weight.float().T
    # Logits themselves are rounded to bfloat16 by the matrix product; the softmax over them is not.
    rounded = logits.bfloat16().float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found, rounded, atol=0.02, rtol=0)


PEAK = """
import sys, torch
from aipo.training.memory import peak_memory_gib, reset_peak
from aipo.models.vocabulary import LogitTransform, token_logps
tokens, vocabulary = int(sys.argv[1]), int(sys.argv[2])
hidden = torch.randn(tokens, 64, requires_grad=True)
weight = torch.randn(vocabulary, 64, requires_grad=True)
targets = torch.randint(0, vocabulary, (tokens,))
device = torch.device("cpu")
reset_peak(device)
start = peak_memory_gib(device)
token_logps(hidden, weight, None, targets, LogitTransform()).sum().backward()
print(peak_memory_gib(device) - start)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_tokens_times_vocabulary() -> None:
    def extra_gib(tokens: int, size: int) -> float:
        command = [sys.executable, "-c", PEAK, str(tokens), str(size)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    small, large = extra_gib(4096, 32000), extra_gib(16384, 128000)
    full_matrix = 16384 * 128000 * 4 / 2**30  # 7.8 GiB, where the matrix itself would be held
    assert large < 0.15 * full_matrix
    assert large - small < 0.1 * full_matrix
