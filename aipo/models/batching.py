"""From preference pairs to token batches: who shares a batch, and how a batch is laid out.

Two layouts here, and a third in `aipo.models.packing`, give the same log-probs. In the shared layout a pair is one row,
`prompt + chosen + rejected`, so the prompt is encoded once; a mask keeps the two completions apart and the position ids
of the rejected one start again after the prompt. In the separate layout every completion is a row of its own behind
its own copy of the prompt. The last token of a completion is predicted but predicts nothing, so it is never fed to the
model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aipo.records import Pair

PROMPT, CHOSEN, REJECTED, PADDING = 0, 1, 2, -1


@dataclass(frozen=True)
class PairBatch:
    """Some pairs as tensors. `n` pairs, `rows` x `width` input tokens, `targets` completion tokens of both sides."""

    pairs: int
    shared: bool
    """True: one row per pair. False: rows 0..n-1 hold the chosen side, rows n..2n-1 the rejected one."""
    input_ids: Tensor
    """(rows, width) int64, padded on the right with 0."""
    position_ids: Tensor
    """(rows, width) int64."""
    branch: Tensor
    """(rows, width) int64: PROMPT, CHOSEN, REJECTED or PADDING."""
    predictors: Tensor
    """(targets,) int64: for every completion token, the flat index of the input token whose output predicts it."""
    targets: Tensor
    """(targets,) int64: the completion tokens, chosen side first."""
    sides: Tensor
    """(targets,) int64: i for the chosen side of pair i, n + i for its rejected side."""
    prefix: Tensor
    """(targets,) bool: among the first min(chosen, rejected) tokens of its completion."""
    chosen_tokens: Tensor
    """(n,) int64, and so `rejected_tokens`: completion tokens, the end-of-turn token included."""
    rejected_tokens: Tensor
    span: int
    """The largest position id plus one: what a sliding attention window is compared with."""
    sample: Tensor | None = None
    """(targets,) bool: as many tokens of each side as the shorter has, drawn at random; None unless needed."""
    packed: tuple[tuple[int, int, int], ...] | None = None
    """Input tokens of each pair's prompt, chosen and rejected side where all pairs are one row, behind one another."""
    alignment: bool = False
    """True: how likely the tokens are beside what the policy would draw is computed too."""

    def to(self, device: torch.device) -> PairBatch:
        """The same batch on another device."""
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            moved[field.name] = value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        return PairBatch(**moved)


def shared_row_tokens(pair: Pair) -> int:
    """Input tokens of a pair in the shared layout."""
    return len(pair.prompt_token_ids) + len(pair.chosen.token_ids) + len(pair.rejected.token_ids) - 2


def longest_side_tokens(pair: Pair) -> int:
    """Tokens of the prompt and the longer completion: what a model's context has to hold."""
    return len(pair.prompt_token_ids) + max(len(pair.chosen.token_ids), len(pair.rejected.token_ids))


def require_trainable(pairs: Sequence[Pair], max_length: int | None = None) -> None:
    """Raise ValueError when a pair has an empty prompt or completion, or is longer than `max_length` tokens.

    Nothing is ever truncated: a cut completion has no end-of-turn token and would teach the policy to ramble.
    """
    for pair in pairs:
        for name, ids in (
            ("prompt", pair.prompt_token_ids),
            ("chosen completion", pair.chosen.token_ids),
            ("rejected completion", pair.rejected.token_ids),
        ):
            if not ids:
                raise ValueError(f"pair {pair.pair_id}: the {name} has no tokens; drop such pairs when pairs are built")
    if max_length is None:
        return
    long = [pair for pair in pairs if longest_side_tokens(pair) > max_length]
    if long:
        worst = max(long, key=longest_side_tokens)
        raise ValueError(
            f"{len(long)} of {len(pairs)} pairs exceed max_length={max_length} tokens; the longest, {worst.pair_id}, "
            f"has {longest_side_tokens(worst)} (prompt plus longer completion). Filter pairs or raise max_length."
        )


def token_batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Indices of `lengths` grouped so that rows times longest row stays within `tokens_per_batch`.

    Neighbours in length share a batch, so little is padded. Longest first, so the peak of memory comes at the start.
    A row longer than the budget gets a batch of its own. Every index appears exactly once; the result depends on
    nothing but the arguments.
    """
    if tokens_per_batch < 1:
        raise ValueError(f"tokens_per_batch must be at least 1, got {tokens_per_batch}")
    batches: list[list[int]] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if batches and (len(batches[-1]) + 1) * width <= tokens_per_batch:
            batches[-1].append(index)
        else:
            batches.append([index])
            width = lengths[index]
    return batches


def collate(pairs: Sequence[Pair], *, shared: bool = True, pad_to_multiple_of: int = 1) -> PairBatch:
    """Lay pairs out as one batch, in the order given. Completions must not be empty."""
    n = len(pairs)
    prompt, chosen, rejected = (
        np.array([len(ids) for ids in side], dtype=np.int64)
        for side in (
            [pair.prompt_token_ids for pair in pairs],
            [pair.chosen.token_ids for pair in pairs],
            [pair.rejected.token_ids for pair in pairs],
        )
    )
    sides = [*(pair.chosen.token_ids for pair in pairs), *(pair.rejected.token_ids for pair in pairs)]
    counts = np.concatenate([chosen, rejected])
    # Fed tokens of each side: all but the last, which predicts nothing.
    fed, both_prompts = counts - 1, np.tile(prompt, 2)
    used = prompt + fed[:n] + fed[n:] if shared else both_prompts + fed
    width = -(-int(used.max()) // pad_to_multiple_of) * pad_to_multiple_of
    column = np.arange(width)
    inside = column < used[:, None]
    input_ids = np.zeros(inside.shape, dtype=np.int64)
    input_ids[inside] = np.fromiter(
        chain.from_iterable(_shared_rows(pairs) if shared else _separate_rows(pairs)), np.int64, int(used.sum())
    )
    rank = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    if shared:
        middle = (prompt + fed[:n])[:, None]
        is_rejected = column >= middle
        position_ids = np.where(inside, column - np.where(is_rejected, fed[:n, None], 0), 0)
        branch = np.where(column < prompt[:, None], PROMPT, np.where(is_rejected, REJECTED, CHOSEN))
        # The last prompt token predicts the first token of both sides; the rejected side goes on behind the chosen one.
        skipped = np.concatenate([np.zeros_like(chosen), fed[:n]])
        first = np.tile(np.arange(n) * width, 2) + both_prompts - 1
        predictors = np.repeat(first, counts) + rank + np.where(rank > 0, np.repeat(skipped, counts), 0)
    else:
        position_ids = np.where(inside, column, 0)
        own = np.repeat([CHOSEN, REJECTED], n)[:, None]
        branch = np.where(column < both_prompts[:, None], PROMPT, own)
        predictors = np.repeat(np.arange(2 * n) * width + both_prompts - 1, counts) + rank
    return PairBatch(
        pairs=n,
        shared=shared,
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(position_ids),
        branch=torch.from_numpy(np.where(inside, branch, PADDING)),
        predictors=torch.from_numpy(predictors),
        targets=torch.from_numpy(np.fromiter(chain.from_iterable(sides), np.int64, int(counts.sum()))),
        sides=torch.from_numpy(np.repeat(np.arange(2 * n), counts)),
        prefix=torch.from_numpy(rank < np.repeat(np.tile(np.minimum(chosen, rejected), 2), counts)),
        chosen_tokens=torch.from_numpy(chosen),
        rejected_tokens=torch.from_numpy(rejected),
        span=int(position_ids.max()) + 1,
    )


def _shared_rows(pairs: Sequence[Pair]) -> Iterator[Sequence[int]]:
    """The parts of each row's input, in order."""
    for pair in pairs:
        yield pair.prompt_token_ids
        yield pair.chosen.token_ids[:-1]
        yield pair.rejected.token_ids[:-1]


def _separate_rows(pairs: Sequence[Pair]) -> Iterator[Sequence[int]]:
    for side in (CHOSEN, REJECTED):
        for pair in pairs:
            yield pair.prompt_token_ids
            yield (pair.chosen if side == CHOSEN else pair.rejected).token_ids[:-1]


def with_sample(batch: PairBatch, pairs: Sequence[Pair]) -> PairBatch:
    """The batch with `sample`: all tokens of a pair's shorter side, as many of the longer's, without replacement.

    The draw depends on the pair's id alone, so policy and reference see the same tokens, in whatever layout or batch.
    """
    places: list[bool] = []
    counts = [(len(pair.chosen.token_ids), len(pair.rejected.token_ids)) for pair in pairs]
    for side in (0, 1):
        for pair, both in zip(pairs, counts, strict=True):
            kept = [both[side] <= min(both)] * both[side]
            if not kept[0]:
                for place in random.Random(pair.pair_id).sample(range(both[side]), min(both)):
                    kept[place] = True
            places += kept
    return replace(batch, sample=torch.tensor(places, device=batch.prefix.device))


def attention_mask(branch: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive mask of shared rows, (rows, 1, width, width): 0 where a query may look at a key, else -inf.

    A token sees the prompt and its own branch up to itself. Floats with -inf mean the same to every attention
    implementation; a boolean 4-D mask does not. Padding sees earlier padding and itself, so no row is empty, which
    would be NaN; nothing else sees padding.
    """
    query, key = branch.unsqueeze(2), branch.unsqueeze(1)
    visible = ((key == query) | ((key == PROMPT) & (query != PADDING))).tril_()
    mask = torch.zeros(visible.shape, dtype=dtype, device=branch.device)
    return mask.masked_fill_(~visible, float("-inf")).unsqueeze(1)
