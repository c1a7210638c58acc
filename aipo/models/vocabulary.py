"""Log-probs of given tokens from hidden states, without ever holding a (tokens x vocabulary) matrix.

The projection onto the vocabulary runs tile by tile; only the log-normaliser of each token is kept, and the backward
pass computes each tile again. Peak extra memory is one tile and the gradient of the head, whatever the batch.
A problem of few entries (`PLAIN_ENTRIES`) is left to PyTorch's own cross entropy, which is faster there and bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class LogitTransform:
    """What a model does to `hidden @ weight.T + bias` before the softmax: `z -> cap * tanh(scale * z / cap)`."""

    scale: float = 1.0
    softcap: float | None = None
    """None: no capping. Gemma-2's `final_logit_softcapping`."""

    def __call__(self, logits: Tensor) -> Tensor:
        """The transformed `logits`, which autograd can follow."""
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def apply_(self, logits: Tensor) -> Tensor:
        """Transform `logits` in place and return them."""
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def chain_(self, gradient: Tensor, logits: Tensor) -> Tensor:
        """Turn the gradient by the transformed `logits` into that by the raw ones, in place. Overwrites `logits`."""
        if self.softcap is not None:
            gradient.mul_(logits.div_(self.softcap).square_().neg_().add_(1.0))
        if self.scale != 1.0:
            gradient.mul_(self.scale)
        return gradient


@dataclass(frozen=True)
class Tiling:
    """Tile size: tokens x vocabulary entries."""

    tokens: int
    vocabulary: int


# Small enough for the second-level cache of one core; measured as fast as any larger tile, and 4 MiB.
CPU_TILING = Tiling(tokens=512, vocabulary=2048)
# Large enough to fill a data-centre GPU; 256 MiB in float32.
GPU_TILING = Tiling(tokens=4096, vocabulary=16384)

# Entries of the matrix up to which holding it costs less time than tiling it; 64 MiB in float32.
PLAIN_ENTRIES = 2**24


def token_logps(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    transform: LogitTransform,
    tiling: Tiling | None = None,
) -> Tensor:
    """log softmax(transform(hidden @ weight.T + bias))[targets], in nats.

    `hidden` (tokens, width), `weight` (vocabulary, width), `bias` (vocabulary,) or None, `targets` (tokens,) int64.
    Returns (tokens,), float32, or float64 for float64 inputs: products in the inputs' dtype, softmax in float32.
    With a `tiling` given, the problem is tiled by it however small.
    """
    if tiling is None and hidden.shape[0] * weight.shape[0] <= PLAIN_ENTRIES:
        logits = torch.nn.functional.linear(hidden, weight, bias).to(_accumulation_dtype(hidden.dtype))
        return -torch.nn.functional.cross_entropy(transform(logits), targets, reduction="none")
    if tiling is None:
        tiling = CPU_TILING if hidden.device.type == "cpu" else GPU_TILING
    return _TokenLogps.apply(hidden, weight, bias, targets, transform, tiling)


@torch.no_grad()
def log_collisions(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, transform: LogitTransform, tiling: Tiling | None = None
) -> Tensor:
    """log sum_v p(v)^2 of each token's distribution: how likely two draws agree. (tokens,), without a gradient.

    Arguments and dtypes as in `token_logps`; tile by tile, so that no (tokens x vocabulary) matrix is held.
    """
    if tiling is None:
        tiling = CPU_TILING if hidden.device.type == "cpu" else GPU_TILING
    found = []
    for rows in hidden.split(tiling.tokens):
        ones, twos = [], []
        for start in range(0, weight.shape[0], tiling.vocabulary):
            columns = slice(start, start + tiling.vocabulary)
            logits = _logits(rows, weight[columns], None if bias is None else bias[columns], transform)
            ones.append(logits.logsumexp(1))
            twos.append(logits.mul_(2).logsumexp(1))
        found.append(torch.stack(twos).logsumexp(0) - 2 * torch.stack(ones).logsumexp(0))
    return torch.cat(found)


def _accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, transform: LogitTransform) -> Tensor:
    logits = torch.mm(hidden, weight.t()).to(_accumulation_dtype(hidden.dtype))
    if bias is not None:
        logits.add_(bias)
    return transform.apply_(logits)


def _at_targets(targets: Tensor, start: int, size: int) -> tuple[Tensor, Tensor]:
    """Column of each target inside the tile (clamped), and whether it lies in there. No device synchronisation."""
    column = targets - start
    return column.clamp(0, size - 1).unsqueeze(1), (column >= 0) & (column < size)


def _add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, summed in the dtype of `total`."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif total.is_cuda:
        total.add_(torch.mm(left, right, out_dtype=total.dtype))
    else:
        total.addmm_(left.to(total.dtype), right.to(total.dtype))


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # torch declares neither what a Function keeps in its context nor that it saves None
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        transform: LogitTransform,
        tiling: Tiling,
    ) -> Tensor:
        tokens, vocabulary = hidden.shape[0], weight.shape[0]
        dtype = _accumulation_dtype(hidden.dtype)
        ctx.transform, ctx.tiling = transform, tiling
        normaliser = torch.empty(tokens, dtype=dtype, device=hidden.device)
        target_logits = torch.zeros(tokens, dtype=dtype, device=hidden.device)
        for low in range(0, tokens, tiling.tokens):
            rows = slice(low, min(low + tiling.tokens, tokens))
            parts = []
            for start in range(0, vocabulary, tiling.vocabulary):
                columns = slice(start, min(start + tiling.vocabulary, vocabulary))
                logits = _logits(hidden[rows], weight[columns], None if bias is None else bias[columns], transform)
                column, inside = _at_targets(targets[rows], start, logits.shape[1])
                target_logits[rows] = torch.where(inside, logits.gather(1, column).squeeze(1), target_logits[rows])
                highest = logits.amax(1, keepdim=True)
                parts.append(logits.sub_(highest).exp_().sum(1).log_().add_(highest.squeeze(1)))
            normaliser[rows] = torch.logsumexp(torch.stack(parts), 0)
        ctx.save_for_backward(hidden, weight, bias, targets, normaliser)
        return target_logits - normaliser

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, normaliser = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        dtype, transform, tiling = normaliser.dtype, ctx.transform, ctx.tiling
        tokens, vocabulary = hidden.shape[0], weight.shape[0]
        grad = grad.to(dtype)
        grad_hidden = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device) if needs_hidden else None
        grad_weight = torch.empty_like(weight) if needs_weight else None
        grad_bias = torch.zeros(vocabulary, dtype=dtype, device=hidden.device) if needs_bias else None
        # Vocabulary outside, tokens inside: a strip of the head's gradient is finished before the next one is begun.
        for start in range(0, vocabulary, tiling.vocabulary):
            columns = slice(start, min(start + tiling.vocabulary, vocabulary))
            strip = weight[columns]
            strip_bias = None if bias is None else bias[columns]
            strip_grad = torch.zeros(strip.shape, dtype=dtype, device=strip.device) if needs_weight else None
            for low in range(0, tokens, tiling.tokens):
                rows = slice(low, min(low + tiling.tokens, tokens))
                logits = _logits(hidden[rows], strip, strip_bias, transform)
                kept = logits.clone() if transform.softcap is not None else logits
                # d logp / d logits = onehot(target) - probabilities
                tile = logits.sub_(normaliser[rows, None]).exp_().mul_(grad[rows, None].neg())
                column, inside = _at_targets(targets[rows], start, tile.shape[1])
                tile.scatter_add_(1, column, torch.where(inside, grad[rows], 0.0).unsqueeze(1))
                tile = transform.chain_(tile, kept)
                if grad_bias is not None:
                    grad_bias[columns] += tile.sum(0)
                tile = tile.to(hidden.dtype)
                if grad_hidden is not None:
                    _add_product_(grad_hidden[rows], tile, strip)
                if strip_grad is not None:
                    _add_product_(strip_grad, tile.t(), hidden[rows])
            if grad_weight is not None and strip_grad is not None:
                grad_weight[columns] = strip_grad
        return (
            None if grad_hidden is None else grad_hidden.to(hidden.dtype),
            grad_weight,
            None if grad_bias is None else grad_bias.to(bias.dtype),
            None,
            None,
            None,
        )
