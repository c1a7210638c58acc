"""Float32 weights as the bfloat16 copy that a model computes and samples with.

Rounding to nearest loses a round of training: at the paper's learning rate a weight's whole update is smaller than half
a bfloat16 step, so a copy made to nearest equals the copy before. A dithered copy does not: a weight is rounded up or
down with probabilities that make the copy's expectation the weight itself (stochastic rounding, arXiv 1502.02551), so
over the millions of weights of a layer the update arrives. The noise is a fixed function of a weight's name and place:
the same masters always give the same copy, on every device and in every round; a weight that moves changes its copy
once on its way from one bfloat16 value to the next; and a weight that is a bfloat16 value already is copied exactly.
"""

from __future__ import annotations

from zlib import crc32

import torch
from torch import Tensor

_CHUNK = {"cpu": 2**16}
"""Weights rounded at once: on a CPU as many as its cache holds, elsewhere `_LARGE_CHUNK`."""
_LARGE_CHUNK = 2**24
_MAGNITUDE, _INFINITY = 0x7FFFFFFF, 0x7F800000


def rounded(weight: Tensor, dtype: torch.dtype, dither: str | None) -> Tensor:
    """`weight` (any shape, float32) in `dtype`: to nearest, or dithered by the noise of the weight called `dither`.

    Only bfloat16 is dithered. Not finite stays not finite.
    """
    if dither is None or dtype != torch.bfloat16 or weight.dtype != torch.float32:
        return weight.to(dtype)
    flat = weight.detach().contiguous().view(-1)
    copy = torch.empty(len(flat), dtype=torch.bfloat16, device=flat.device)
    size = _CHUNK.get(flat.device.type, _LARGE_CHUNK)
    seed = crc32(dither.encode()) >> 1
    for start in range(0, len(flat), size):
        part = flat[start : start + size]
        # A float's bits grow with its magnitude: noise below the 16 bits that are kept carries into them in proportion.
        bits = part.view(torch.int32)
        noise = _noise(seed, start, len(part), flat.device).mul_((bits & _MAGNITUDE) < _INFINITY)
        copy[start : start + size] = ((bits + noise) >> 16).to(torch.int16).view(torch.bfloat16)
    return copy.view(weight.shape)


def _noise(seed: int, start: int, count: int, device: torch.device) -> Tensor:
    """16 random bits for each of `count` places from `start` on: the 32-bit finaliser of MurmurHash3 over seed + place.

    int32 products wrap around, which is what the hash wants.
    """
    bits = torch.arange(start, start + count, dtype=torch.int64, device=device).add_(seed).to(torch.int32)
    bits.bitwise_xor_((bits >> 16) & 0xFFFF).mul_(-2048144789)
    bits.bitwise_xor_((bits >> 13) & 0x7FFFF).mul_(-1028477387)
    bits.bitwise_xor_((bits >> 16) & 0xFFFF)
    return bits.bitwise_and_(0xFFFF)
