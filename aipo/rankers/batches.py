"""Rows of token ids, batched by length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def length_batches(lengths: Sequence[int], rows_for: Callable[[int], int]) -> Iterator[list[int]]:
    """Places of rows of like length, longest first, so that the peak of memory comes at the start.

    `rows_for`: how many rows may go together when the longest has so many tokens; at least one does.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    start = 0
    while start < len(order):
        size = max(1, rows_for(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def padded(rows: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Tensor, Tensor]:
    """(rows, length) ids padded on the right, and their mask: 1 for a token."""
    import torch

    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids.to(device), mask.to(device)
