"""A key-value cache that grows in blocks: a decoding step writes one position instead of copying the whole cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import DummyLayer, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

BLOCK = 32
REPEATABLE = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
"""Kinds of layers whose content belongs to tokens: it can be repeated for candidates, and padding masked."""


class UnsupportedCacheError(ValueError):
    """A model keeps a state that padding would change."""


class GrowingLayer(DynamicLayer):
    """`keys` and `values` are views of buffers with room to spare: positions at the end, rows that have ended."""

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        rows, start = len(self.keys), self.keys.shape[-2]
        end = start + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < end:
            self._buffers = (_with_room(self.keys, end + BLOCK), _with_room(self.values, end + BLOCK))
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, start:end] = new
        self._show(rows, end)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        length = self.keys.shape[-2]
        room = length + BLOCK
        self._buffers = (_with_room(self.keys, room, repeats), _with_room(self.values, room, repeats))
        self._show(len(self._buffers[0]), length)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Rows that stay in their place are not copied."""
        length = self.keys.shape[-2]
        if self._buffers is None:
            self._buffers = (_with_room(self.keys, length + BLOCK), _with_room(self.values, length + BLOCK))
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero()[:, 0]
        for buffer in self._buffers:
            buffer[moved, :, :length] = buffer[indices[moved], :, :length]
        self._show(len(indices), length)

    def _show(self, rows: int, length: int) -> None:
        assert self._buffers is not None
        self.keys, self.values = (buffer[:rows, :, :length] for buffer in self._buffers)


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """A cache for a model: growing layers where transformers would use plain dynamic ones, its own kinds elsewhere."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def require_repeatable_cache(model: PreTrainedModel) -> None:
    """Raise UnsupportedCacheError for a state-space model, or any other whose cache is not keys and values."""
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    if model._is_stateful or not kinds <= set(REPEATABLE):
        names = ", ".join(sorted(kind.__name__ for kind in kinds - set(REPEATABLE))) or "a recurrent state"
        raise UnsupportedCacheError(
            f"{type(model).__name__} keeps {names}: batches of different prompt lengths would change its answers. "
            "Sample it through a server: sampler=vllm or sampler=server"
        )


def _with_room(old: Tensor, length: int, repeats: int = 1) -> Tensor:
    """A copy of `old` (rows, heads, positions, width), each row `repeats` times, with room for `length` positions."""
    rows, heads, used, width = old.shape
    new = old.new_empty((rows, repeats, heads, length, width))
    new[..., :used, :] = old[:, None]
    return new.flatten(0, 1)
