"""What an objective declares: its loss, and what the pipeline has to compute for it."""

from __future__ import annotations

from dataclasses import dataclass

from aipo.objectives.pair_logps import PairLossFunction


@dataclass(frozen=True)
class Declaration:
    """The fields of an objective, not yet held against its loss."""

    name: str
    loss: PairLossFunction
    uses_reference: bool = True
    uses_win_probability: bool = False
    uses_win_shares: bool = False
    uses_prefix: bool = False
    uses_sample: bool = False
    uses_alignment: bool = False
    batch_coupled: bool = False
    """True: a pair's loss depends on the other pairs of its batch (a mean, a spread, a sort), so the sum over
    micro-batches is another objective than the batch. A trainer that splits the batch, over accumulation steps or over
    processes, must then collect the log-probs of the whole batch first and use `aipo.objectives.coupling`; one that
    cannot must refuse to split. False: any split gives the same gradient, once each pair is weighted 1 / batch."""
