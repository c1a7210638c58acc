"""Parts of a sweep that stop at a gate, when there is one, until the test opens it. Copied into the test's own folder.

A gate is a file `gates/<place>` in the folder of the sweep. The first process that comes by takes it, writes its Slurm
job into `gates/<place>.at`, and waits until that is gone.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from aipo.jobs import slurm_id
from aipo.objectives import dpo as plain_dpo
from aipo.samplers import HFSampler


def gate(place: str) -> None:
    """Wait here if the test says so."""
    met = Path("gates") / f"{place}.at"
    try:
        os.rename(Path("gates") / place, met.with_suffix(".taken"))
    except FileNotFoundError:
        return
    met.write_text(slurm_id() or "nobody", encoding="utf-8")
    while met.exists():
        time.sleep(0.02)


@dataclass
class GatedSampler(HFSampler):
    """Stops after its third batch."""

    def _batch(self, *arguments):
        self.batches = getattr(self, "batches", 0) + 1
        if self.batches == 4:
            gate("sampling")
        return super()._batch(*arguments)


STEPS = [0]


def dpo(logps, /, *, beta: float, label_smoothing: float = 0.0):
    """DPO that stops in its fourth step; objectives are tried out when they are built, too."""
    STEPS[0] += any(Path("outputs/train").glob("*.partial"))
    if STEPS[0] == 4:
        gate("training")
    return plain_dpo(logps, beta=beta, label_smoothing=label_smoothing)
