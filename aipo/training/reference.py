"""Reference log-probs: computed once per (reference policy, pairs), shared by every objective of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from aipo.records import Pair, ReferenceLogps
from aipo.terminal import bar
from aipo.training.job import MissingReferenceError

if TYPE_CHECKING:
    from aipo.models.logps import PairScorer
    from aipo.models.policy import PolicyRef
    from aipo.training.processes.world import World


def compute_reference_logps(
    policy: PolicyRef,
    pairs: Sequence[Pair],
    *,
    tokens_per_batch: int | None = None,
    progress: bool = True,
    world: World | None = None,
    sharded: bool = False,
    dtype: Literal["float32"] | None = None,
    layout: Literal["cheapest"] | None = None,
) -> list[ReferenceLogps]:
    """One row per pair, in the order of `pairs`, on the accelerator where there is one.

    Computed from the weights, and in the dtype, with which training with the same `dtype` (`trainer.dtype`),
    `layout` and `sharded` begins, so that its first log-ratios are 0.

    `tokens_per_batch` bounds the padded input tokens of a batch; None: a default for the device. The processes of
    `world` (None: this one alone) share the batches, each with all weights or, with `sharded`, with its part of them;
    all get every row. A log-prob that is not finite raises ValueError: the reference would poison every loss.
    """
    import torch

    from aipo.models.batching import require_trainable, shared_row_tokens, token_batches, with_sample
    from aipo.training.memory import default_tokens_per_batch
    from aipo.training.processes.world import World

    require_trainable(pairs)
    world = world or World.join(1)
    scorer = _scorer(policy, world, sharded, dtype or policy.dtype, layout is not None)
    # Without a backward pass nothing is kept, so a batch may be larger than in training.
    budget = tokens_per_batch or (
        default_tokens_per_batch(world.device.type, layout) * (1 if world.device.type == "cpu" else 4)
    )
    batches = list(token_batches([shared_row_tokens(pair) for pair in pairs], budget))
    mine = batches[world.rank :: world.size]
    idle = len(mine) < len(batches[:: world.size])
    found: dict[int, list[float]] = {}
    hidden = not (progress and world.is_main)
    # Not inference mode: sharded weights are filled in place.
    with torch.no_grad(), bar(len(pairs), "reference", hidden=hidden) as shown:
        for indices in mine:
            these = [pairs[index] for index in indices]
            sides = scorer(with_sample(scorer.collate(these), these))
            columns = torch.stack([column for column in sides if column is not None]).double().cpu()
            if not bool(columns.isfinite().all()):
                bad = pairs[indices[int((~columns.isfinite()).any(0).nonzero()[0])]].pair_id
                raise ValueError(f"pair {bad}: the reference policy {policy.path} gives a log-prob that is not finite")
            found |= dict(zip(indices, columns.T.tolist(), strict=True))
            shown.update(min(len(indices) * world.size, shown.total - shown.n))
        if idle and sharded:  # every process must run a sharded model equally often
            scorer(scorer.collate(pairs[:1]))
    everyone = {index: values for part in world.gather(found) for index, values in part.items()}
    return [ReferenceLogps(pair.pair_id, *everyone[index]) for index, pair in enumerate(pairs)]


def _scorer(policy: PolicyRef, world: World, sharded: bool, dtype: str, cheapest: bool) -> PairScorer:
    import torch

    from aipo.models.logps import PairScorer

    if sharded and world.size > 1:
        from aipo.training.weights.sharded import sharded_scorer

        computed = getattr(torch, dtype)
        if policy.masters is None:
            return sharded_scorer(policy, world, dtype=computed, cheapest=cheapest)
        return sharded_scorer(policy, world, dtype=torch.float32, computed=computed, cheapest=cheapest)
    model = policy.load_masters() if dtype == "float32" else policy.load_model()
    return PairScorer(model.to(world.device), cheapest=cheapest)


def sampler_reference_logps(pairs: Sequence[Pair]) -> list[ReferenceLogps]:
    """One row per pair from what the sampler noted while drawing. Log-probs of prefixes are not known: NaN.

    MissingReferenceError where a completion has no log-prob.
    """
    without = [pair.pair_id for pair in pairs if pair.chosen.logp is None or pair.rejected.logp is None]
    if without:
        raise MissingReferenceError(
            f"{len(without)} of {len(pairs)} pairs have no log-probs of the sampler's, the first: {without[:3]}; use a "
            "sampler that returns them (hf, or vllm with sampler.logprobs=true), or iteration.reference_logps=model"
        )
    unknown = float("nan")
    return [
        ReferenceLogps(p.pair_id, float(p.chosen.logp or 0.0), float(p.rejected.logp or 0.0), unknown, unknown)
        for p in pairs
    ]
