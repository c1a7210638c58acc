"""An objective: its loss, held against what it declares."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from aipo.objectives import passed
from aipo.objectives.declaration import Declaration

LONGEST_NAME = 100
"""In bytes: a folder's name has 255 on most file systems, and a job's adds its seed and a hash."""


@dataclass(frozen=True)
class Objective(Declaration):
    """A loss and what it needs. Built from `conf/objective/<name>.yaml`.

    Construction runs the loss once on three made-up pairs that carry the declared inputs and no others. So a missing
    or impossible coefficient, a forgotten `uses_reference`, a wrong `batch_coupled` and a loss without a gradient are
    ValueErrors before a run.
    What passed once on this machine, from the same code, is not run again: that would import torch for a job whose
    stages are all done.
    """

    def __post_init__(self) -> None:
        if not self.name.strip(" .") or "/" in self.name or len(self.name.encode(errors="replace")) > LONGEST_NAME:
            raise ValueError(
                f"objective.name: it names the folders of jobs, so expected at most {LONGEST_NAME} bytes without '/', "
                f"got {self.name[:LONGEST_NAME]!r}"
            )
        coefficients = self.loss.keywords if isinstance(self.loss, functools.partial) else {}
        for key, value in coefficients.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"objective {self.name}: {key} must be a finite number, got {value}")
        receipt = passed.receipt(self)
        if passed.is_there(receipt):
            return
        from aipo.objectives.probe import probe

        probe(self)
        passed.leave(receipt)
