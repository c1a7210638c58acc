"""Sampling from a Hugging Face model in this process.

Prompts are batched by length, prefilled once, and their cache repeated for the candidates. Each completion draws its
noise from its own counter-based stream, keyed by (seed, prompt ids, candidate number): which rows share a batch, and in
which order prompts come, does not change a draw. (It changes the last bits of the logits, so a draw that falls within
rounding of a boundary between two tokens may differ.) Nothing is inherited from the model's generation config but its
EOS.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aipo.components import require_range
from aipo.models.policy import PolicyRef
from aipo.models.tokens import plain_token_ids, prompt_token_ids, room_for_answers, stop_token_ids
from aipo.records import Chat, Completion, Decoding
from aipo.samplers.drawn import Drawn, batch_key
from aipo.terminal import bar

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.cache_utils import DynamicCache

STOP_STRING_STRIDE = 4
"""Decoding steps between two looks for a stop string."""
SHRINK_AT = 0.9
"""A batch is closed up when at most this share of its rows still runs."""


@dataclass
class HFSampler:
    """Samples on the accelerator where there is one. `cache_tokens` bounds a batch: rows x (prompt + new tokens)."""

    policy: PolicyRef
    cache_tokens: int = 65536

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("cache_tokens",)
    notes_logps: ClassVar[bool] = True
    takes_top_k: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_range("sampler", self, cache_tokens=(1, 10**9))
        self._loaded: tuple[Any, Any] | None = None
        self._drawn: Drawn | None = None

    def keeping(self, folder: Path) -> HFSampler:
        """The same sampler, which keeps every finished batch in `folder`: what was stopped goes on with the next."""
        self._drawn = Drawn(folder)
        return self

    def sample(self, chats: Sequence[Chat], decoding: Decoding, *, n: int, seed: int) -> list[list[Completion]]:
        """`n` completions per chat, in order."""
        _, tokenizer = self.loaded()
        return self._run([prompt_token_ids(tokenizer, chat) for chat in chats], decoding, n, seed, ())

    def complete(
        self, texts: Sequence[str], decoding: Decoding, *, n: int, seed: int, stop: Sequence[str] = ()
    ) -> list[list[Completion]]:
        """`n` continuations of each text, in order, cut before the first of `stop`."""
        _, tokenizer = self.loaded()
        return self._run([plain_token_ids(tokenizer, text) for text in texts], decoding, n, seed, tuple(stop))

    def loaded(self) -> tuple[Any, Any]:
        """The model, on its device, and the tokenizer; loaded at the first call."""
        if self._loaded is None:
            import torch

            from aipo.samplers.cache import require_repeatable_cache

            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            model = self.policy.load_model()
            require_repeatable_cache(model)
            self._loaded = model.to(device), self.policy.load_tokenizer()
        return self._loaded

    def _run(
        self, prompts: Sequence[tuple[int, ...]], decoding: Decoding, n: int, seed: int, stop: tuple[str, ...]
    ) -> list[list[Completion]]:
        seen: Counter[tuple[int, ...]] = Counter()
        keys = []
        for prompt in prompts:
            keys.append([_row_key(seed, prompt, seen[prompt] * n + candidate) for candidate in range(n)])
            seen[prompt] += 1
        results: list[list[Completion]] = [[] for _ in prompts]
        order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        with bar(len(prompts) * n, "sampling") as shown:
            for batch in self._batches(order, prompts, decoding, n):
                rows = self._batch(
                    [prompts[index] for index in batch], [keys[index] for index in batch], decoding, stop
                )
                for index, completions in zip(batch, rows, strict=True):
                    results[index] = completions
                shown.update(len(batch) * n)
        if self._drawn is not None:
            self._drawn.close()
        return results

    def _batch(
        self, prompts: list[tuple[int, ...]], keys: list[list[int]], decoding: Decoding, stop: tuple[str, ...]
    ) -> list[list[Completion]]:
        """The completions of a batch: drawn now, or found where they were kept."""
        if self._drawn is None:
            return _Decoder(self.loaded(), decoding, stop).run(prompts, keys)
        key = batch_key(prompts, keys, decoding, stop)
        if (found := self._drawn.get(key)) is None:
            found = _Decoder(self.loaded(), decoding, stop).run(prompts, keys)
            self._drawn.keep(key, found)
        return found

    def _batches(
        self, order: Sequence[int], prompts: Sequence[tuple[int, ...]], decoding: Decoding, n: int
    ) -> list[list[int]]:
        """Longest prompts first, so that the peak of memory comes at the start."""
        batches: list[list[int]] = []
        cost = 0
        for index in order:
            if batches and (len(batches[-1]) + 1) * cost <= self.cache_tokens:
                batches[-1].append(index)
            else:
                batches.append([index])
                cost = n * (len(prompts[index]) + decoding.max_new_tokens)
        return batches


def _row_key(seed: int, prompt: tuple[int, ...], candidate: int) -> int:
    content = f"{seed}/{candidate}/{','.join(map(str, prompt))}".encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big", signed=True)


class _Decoder:
    """Decodes one batch of prompts."""

    def __init__(self, loaded: tuple[Any, Any], decoding: Decoding, stop: tuple[str, ...]) -> None:
        import torch

        from aipo.samplers.small_llama import small_llama

        self.model, self.tokenizer = loaded
        self.device = self.model.device
        self.decoding = decoding
        self.stop = stop
        stops = stop_token_ids(self.tokenizer, self.model.generation_config)
        self.stop_ids = torch.tensor(sorted(stops), device=self.device)
        self.stop_set = stops
        self.short_way = small_llama(self.model)

    def run(self, prompts: Sequence[tuple[int, ...]], keys: Sequence[Sequence[int]]) -> list[list[Completion]]:
        import torch

        with torch.inference_mode():
            tokens, logps = self._decode(prompts, keys)
        n = len(keys[0])
        completions = [self._completion(row, logp) for row, logp in zip(tokens, logps, strict=True)]
        return [completions[start : start + n] for start in range(0, len(completions), n)]

    def _decode(
        self, prompts: Sequence[tuple[int, ...]], keys: Sequence[Sequence[int]]
    ) -> tuple[list[list[int]], list[float]]:
        import torch

        n = len(keys[0])
        mask: Any
        cache, mask, logits = self._prefill(prompts, n)
        noise_keys = torch.tensor([key for group in keys for key in group], dtype=torch.int64, device=self.device)
        rows = len(noise_keys)
        room = self._room(prompts).repeat_interleave(n)
        tokens = torch.full((rows, self.decoding.max_new_tokens), -1, dtype=torch.int64, device=self.device)
        logps = torch.zeros(rows, dtype=torch.float64, device=self.device)
        alive = torch.arange(rows, device=self.device)
        """Row numbers of the completions still in the batch."""
        running = torch.ones(rows, dtype=torch.bool, device=self.device)
        """Of those in the batch, the ones that have not ended."""
        positions = mask.sum(1)
        width = mask.shape[1]
        whole = bool(mask.all())
        mask = None if whole else torch.nn.functional.pad(mask, (0, self.decoding.max_new_tokens), value=1)
        for step in range(self.decoding.max_new_tokens):
            logits = logits.float()
            chosen = self._draw(logits, noise_keys[alive], step)
            scores = logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
            at = alive[running]
            tokens[at, step] = chosen[running]
            logps[at] += scores[running].double()
            running &= ~torch.isin(chosen, self.stop_ids) & (step + 1 < room[alive])
            if self.stop and step % STOP_STRING_STRIDE == STOP_STRING_STRIDE - 1:
                running &= ~self._has_stop_string(tokens[alive, : step + 1])
            left = int(running.sum())
            if left == 0 or step + 1 == self.decoding.max_new_tokens:
                break
            if left <= SHRINK_AT * len(alive):
                kept = _closed_up(running, left)
                cache.batch_select_indices(kept)
                alive, positions, chosen = alive[kept], positions[kept], chosen[kept]
                mask = None if mask is None else mask[kept]
                running = torch.ones(left, dtype=torch.bool, device=self.device)
            seen = None if mask is None else mask[:, : width + step + 1]
            logits = self._next_logits(chosen, positions, seen, cache)
            positions = positions + 1
        return [[token for token in row if token >= 0] for row in tokens.tolist()], logps.tolist()

    def _next_logits(self, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: DynamicCache) -> Tensor:
        """(rows, vocabulary) after one more token per row. `mask` None: nothing is padded."""
        if self.short_way is not None:
            return self.short_way(tokens, positions, None if mask is None else mask.bool(), cache)
        if mask is None:
            mask = tokens.new_ones(len(tokens), cache.get_seq_length() + 1)
        output = self.model(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=positions[:, None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _room(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """How many new tokens each prompt has room for."""
        import torch

        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        lengths = [len(prompt) for prompt in prompts]
        room = room_for_answers(lengths, limit, self.decoding.max_new_tokens, self.model.name_or_path)
        return torch.tensor(room, device=self.device)

    def _prefill(self, prompts: Sequence[tuple[int, ...]], n: int) -> tuple[Any, Tensor, Tensor]:
        """Encode each prompt once; its cache, mask and next-token logits, repeated for `n` candidates."""
        import torch

        from aipo.samplers.cache import growing_cache

        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=self.device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=self.device)
        cache = growing_cache(self.model.config)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        if n > 1:
            cache.batch_repeat_interleave(n)
        return cache, mask.repeat_interleave(n, 0), output.logits[:, -1].repeat_interleave(n, 0)

    def _draw(self, logits: Tensor, keys: Tensor, step: int) -> Tensor:
        """One token per row by inverting the cumulative distribution at the row's own uniform number."""
        import torch

        if self.decoding.temperature == 0:
            return logits.argmax(-1)
        logits = logits / self.decoding.temperature
        tokens = None
        if 0 < self.decoding.top_k < logits.shape[-1]:
            # In the vocabulary's order: near-equal tokens must not change places with the last bits of their logits.
            tokens = logits.topk(self.decoding.top_k, dim=-1).indices.sort(-1).values
            logits = logits.gather(-1, tokens)
        if self.decoding.top_p < 1:
            logits = _nucleus(logits, self.decoding.top_p)
        cumulative = logits.double().softmax(-1).cumsum(-1)
        uniform = _uniform(keys, step)[:, None] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, uniform, right=True).clamp(max=logits.shape[-1] - 1)
        return (chosen if tokens is None else tokens.gather(-1, chosen))[:, 0]

    def _has_stop_string(self, tokens: Tensor) -> Tensor:
        import torch

        rows = [[token for token in row if token >= 0] for row in tokens.tolist()]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return torch.tensor([any(stop in text for stop in self.stop) for text in texts], device=self.device)

    def _completion(self, tokens: list[int], logp: float) -> Completion:
        ended = bool(tokens) and tokens[-1] in self.stop_set
        visible = tokens[:-1] if ended else tokens
        text = self.tokenizer.decode(visible, skip_special_tokens=True)
        cuts = [text.index(stop) for stop in self.stop if stop in text]
        if not cuts:
            return Completion(text, tuple(tokens), "stop" if ended else "length", logp)
        kept = 1
        while not any(s in self.tokenizer.decode(tokens[:kept], skip_special_tokens=True) for s in self.stop):
            kept += 1
        return Completion(text[: min(cuts)], tuple(tokens[:kept]), "stop", None)


def _closed_up(running: Tensor, left: int) -> Tensor:
    """The `left` running rows in an order that moves few: those behind `left` fill the gaps before it."""
    import torch

    order = torch.arange(left, device=running.device)
    order[~running[:left]] = running[left:].nonzero()[:, 0] + left
    return order


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Keep the fewest most likely tokens whose probabilities reach `top_p`."""
    ordered, order = logits.sort(-1, descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    dropped = (before >= top_p).scatter(-1, order, before >= top_p)
    return logits.masked_fill(dropped, float("-inf"))


def _uniform(keys: Tensor, step: int) -> Tensor:
    """A number in [0, 1) per key and step: the SplitMix64 finalizer over a Weyl sequence, 53 bits of it."""
    import torch

    state = keys + _signed64((step + 1) * 0x9E3779B97F4A7C15)
    state = (state ^ _shift_right(state, 30)) * _signed64(0xBF58476D1CE4E5B9)
    state = (state ^ _shift_right(state, 27)) * _signed64(0x94D049BB133111EB)
    state = state ^ _shift_right(state, 31)
    return _shift_right(state, 11).to(torch.float64) * 2.0**-53


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """A logical shift: torch's own keeps the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _signed64(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
