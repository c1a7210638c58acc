"""A key-value cache that grows in blocks: a decoding step writes one position instead of copying the whole cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    """`keys` and `values` are views of buffers with room to spare."""

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < end or self._buffers[0].shape[0] != len(self.keys):
            self._buffers = tuple(_with_room(old, end + BLOCK) for old in (self.keys, self.values))
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = new
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._buffers = None


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


def _with_room(old: Tensor, length: int) -> Tensor:
    new = old.new_empty((*old.shape[:-2], length, old.shape[-1]))
    new[..., : old.shape[-2], :] = old
    return new
