"""The loop's own settings."""

from __future__ import annotations

from dataclasses import dataclass

from aipo.components import require_range
from aipo.records import Decoding

KL_COMPLETIONS = 2
"""Completions a prompt from which a policy's KL is estimated: the fewest that show their own spread."""


@dataclass(frozen=True)
class Iteration:
    """The loop's own settings (Algorithm 1): T iterations, P prompts each, N candidates per prompt."""

    iterations: int
    prompts: int | None
    """None: every prompt of the pool, in every round."""
    candidates: int
    decoding: Decoding
    reference: str = "previous"
    """`previous`: the policy that sampled the data (Algorithm 1). `initial`: the base model, in every iteration. `ema`:
    an exponential moving average of the policies over the iterations, which begins at the base model."""
    reference_logps: str = "model"
    """`model`: scored by the reference policy. `sampler`: those the sampler noted while drawing, without a pass; equal
    to 1e-4 nats in float32, half a nat apart in bfloat16 (`speed/sampler_logps.py`)."""

    ema_decay: float = 0.4
    """Share of the old average in the new one after every iteration, in (0, 1); for `reference=ema` alone. Towards 0
    it is `previous`, towards 1 `initial`."""

    def __post_init__(self) -> None:
        require_range("iteration", self, iterations=(1, 1000), prompts=(1, 10**7), candidates=(1, 1000))
        if self.reference not in ("previous", "initial", "ema"):
            raise ValueError(f"iteration.reference must be previous, initial or ema, got {self.reference!r}")
        if not 0 < self.ema_decay < 1:
            raise ValueError(f"iteration.ema_decay must be above 0 and below 1, got {self.ema_decay}")
        if self.reference_logps not in ("model", "sampler"):
            raise ValueError(f"iteration.reference_logps must be model or sampler, got {self.reference_logps!r}")
        if self.reference_logps == "sampler" and self.reference != "previous":
            raise ValueError("iteration.reference_logps=sampler needs iteration.reference=previous: who drew, is asked")
