"""Comparisons as rows of token ids, and the logits that PairRM's network gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch

from aipo.rankers.batches import length_batches, padded

if TYPE_CHECKING:
    from aipo.rankers.pairrm_model import PairRMModel


class Comparison(NamedTuple):
    """One row for the model: its ids, and where the markers of prompt, first and second candidate are."""

    ids: tuple[int, ...]
    markers: tuple[int, int, int]


def join(source: Sequence[int], first: Sequence[int], second: Sequence[int], second_marker: int) -> Comparison:
    """`[CLS] <|source|> s [SEP] [CLS] <|candidate1|> a [SEP] [CLS] <|candidate2|> b [SEP]`.

    `second` comes with the marker of a first candidate.
    """
    ids = (*source, *first, second[0], second_marker, *second[2:])
    return Comparison(ids, (1, len(source) + 1, len(source) + len(first) + 1))


def comparison_batches(rows: Sequence[Comparison], cells: int) -> list[list[int]]:
    """Places of the rows that share a batch: at most `cells` of rows x length x length, at least one row."""
    return list(length_batches([len(row.ids) for row in rows], lambda length: cells // length**2))


def comparison_logits(
    model: PairRMModel, pad: int, rows: Sequence[Comparison], batches: Sequence[Sequence[int]], dtype: str
) -> Iterator[tuple[Sequence[int], list[float]]]:
    """The places of each batch and the logits of their rows. `dtype` is a name of `DTYPES`."""
    with torch.inference_mode(), _products_in(dtype):
        for batch in batches:
            ids, mask = padded([rows[place].ids for place in batch], pad, model.device)
            markers = torch.tensor([rows[place].markers for place in batch], device=model.device)
            yield batch, model(ids, mask, markers).tolist()


def weight_dtype(name: str) -> torch.dtype:
    """What the weights are kept in: tfloat32 is a way to multiply float32 numbers."""
    return torch.float32 if name == "tfloat32" else getattr(torch, name)


@contextmanager
def _products_in(dtype: str) -> Iterator[None]:
    """While open, float32 products are rounded to TF32 where that was asked for and the device has it, else never."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tfloat32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
