"""The gradient of one global batch, the same however it is split into micro-batches and over processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from aipo.models.batching import PairBatch, shared_row_tokens, token_batches, with_sample
from aipo.models.logps import SideLogps
from aipo.objectives import Objective, PairLogps, PairLoss
from aipo.objectives.coupling import concatenate, linear_surrogate, policy_gradients
from aipo.records import Pair
from aipo.training.job import LossInputs
from aipo.training.processes.world import World

METRICS = (
    "loss",
    "chosen_reward",
    "rejected_reward",
    "reward_accuracy",
    "chosen_tokens",
    "rejected_tokens",
    "reference_margin",
    "reference_agreement",
)


@dataclass(frozen=True)
class BatchResult:
    """Sums over the pairs of one process."""

    sums: dict[str, float]
    """By the names in METRICS; the reference's are 0 where there is none."""
    pairs: int
    tokens: int
    """Prompt tokens once per pair, and both completions."""


class BatchGradient:
    """Losses and gradients of global batches.

    `scorer` is called with what `collate` returns; both belong to one PairScorer (`scorer` may be a sharded one).
    `spare` is set where weights are sharded and so every process must run the model equally often: a process that is
    done early runs it on this pair, with weight zero.
    """

    def __init__(
        self,
        scorer: Callable[[PairBatch], SideLogps],
        collate: Callable[[Sequence[Pair]], PairBatch],
        objective: Objective,
        world: World,
        tokens_per_batch: int,
        spare: Pair | None = None,
    ) -> None:
        self.scorer = scorer
        self.collate = collate
        self.objective = objective
        self.world = world
        self.tokens_per_batch = tokens_per_batch
        self.spare = spare

    def accumulate(self, inputs: LossInputs, global_pairs: int) -> BatchResult:
        """Add the gradient of sum(loss) / `global_pairs` over this process's `inputs` to every trained weight."""
        return self._run(inputs, global_pairs)

    def evaluate(self, inputs: LossInputs) -> BatchResult:
        """The same sums without a gradient."""
        with torch.no_grad():
            return self._run(inputs, None)

    def _run(self, inputs: LossInputs, global_pairs: int | None) -> BatchResult:
        parts = _micro_batches(inputs, self.tokens_per_batch)
        # Agreed before the first pass: with sharded weights every pass is itself a conversation of all processes.
        idle = 0 if self.spare is None else self.world.largest(len(parts)) - len(parts)
        if self.objective.batch_coupled and (self.world.size > 1 or len(parts) > 1):
            losses = self._coupled(parts, global_pairs, idle)
        else:
            losses = []
            for part in parts:
                batch = self._batch(part.pairs)
                loss = self.objective.loss(self._logps(part, batch))
                if global_pairs is not None:
                    (loss.loss.sum() / global_pairs).backward()
                losses.append(loss)
            self._idle(idle, backward=global_pairs is not None)
        return _result(parts, losses)

    def _coupled(self, parts: list[LossInputs], global_pairs: int | None, idle: int) -> list[PairLoss]:
        """Two passes, exact for a loss that mixes the pairs of a batch; see `aipo.objectives.coupling`.

        Every process finds the derivatives of the whole batch's mean loss for itself, so they need no further sum.
        """
        batches = [self._batch(part.pairs) for part in parts]
        with torch.no_grad():
            found = [self._logps(part, batch) for part, batch in zip(parts, batches, strict=True)]
            self._idle(idle, backward=False)
        everyone = self.world.gather(concatenate(found) if found else None)
        loss, slopes = policy_gradients(
            self.objective.loss, _on(self.world, concatenate([logps for logps in everyone if logps is not None]))
        )
        start = sum(len(logps.policy_chosen) for logps in everyone[: self.world.rank] if logps is not None)
        rows = []
        for part in parts:
            rows.append(slice(start, start + len(part.pairs)))
            start = rows[-1].stop
        if global_pairs is not None:
            for part, batch, part_rows in zip(parts, batches, rows, strict=True):
                derivatives = {name: slope[part_rows] for name, slope in slopes.items()}
                linear_surrogate(self._logps(part, batch), derivatives).backward()
            self._idle(idle, backward=True)
        return [PairLoss(*(value[part_rows] for value in loss)) for part_rows in rows]

    def _batch(self, pairs: Sequence[Pair]) -> PairBatch:
        """The pairs laid out, with what the objective needs beyond whole log-probs."""
        batch = self.collate(pairs)
        if self.objective.uses_sample:
            batch = with_sample(batch, pairs)
        return replace(batch, alignment=True) if self.objective.uses_alignment else batch

    def _logps(self, part: LossInputs, batch: PairBatch) -> PairLogps:
        return part.pair_logps(self.objective, self.scorer(batch), batch)

    def _idle(self, passes: int, *, backward: bool) -> None:
        """Take part in passes of the others, adding nothing."""
        for _ in range(passes):
            assert self.spare is not None
            sides = self.scorer(self._batch([self.spare]))
            if backward:
                (sides.chosen.sum() * 0.0).backward()


def _micro_batches(inputs: LossInputs, tokens_per_batch: int) -> list[LossInputs]:
    lengths = [shared_row_tokens(pair) for pair in inputs.pairs]
    return [inputs.take(indices) for indices in token_batches(lengths, tokens_per_batch)]


def _on(world: World, logps: PairLogps) -> PairLogps:
    """The same log-probs on this process's device: another process's arrive on its own."""
    columns = {name: value for name, value in vars(logps).items() if value is not None}
    return replace(logps, **{name: value.to(world.device) for name, value in columns.items()})


def _result(parts: Sequence[LossInputs], losses: Sequence[PairLoss]) -> BatchResult:
    sums = dict.fromkeys(METRICS, 0.0)
    pairs = [pair for part in parts for pair in part.pairs]
    if losses:
        loss, chosen, rejected = (torch.cat([item[i].detach() for item in losses]).double() for i in range(3))
        values = torch.stack([loss.sum(), chosen.sum(), rejected.sum(), (chosen > rejected).sum()])
        sums |= dict(zip(METRICS, values.tolist(), strict=False))
    sums["chosen_tokens"] = float(sum(len(pair.chosen.token_ids) for pair in pairs))
    sums["rejected_tokens"] = float(sum(len(pair.rejected.token_ids) for pair in pairs))
    margins = [row.chosen - row.rejected for part in parts for row in part.reference or ()]
    sums["reference_margin"] = sum(margins)
    sums["reference_agreement"] = float(sum(margin > 0 for margin in margins))
    return BatchResult(sums, len(pairs), sum(shared_row_tokens(pair) + 2 for pair in pairs))
