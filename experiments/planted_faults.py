"""Objectives that are wrong on purpose: a comparison that does not put them last cannot be believed."""

from __future__ import annotations

from dataclasses import replace

from aipo.objectives import PairLogps, PairLoss
from aipo.objectives.length import r_dpo


def r_dpo_flipped(logps: PairLogps, /, *, beta: float, length_weight: float) -> PairLoss:
    """R-DPO (arXiv 2403.19159) with the sign of its length term flipped: a longer chosen completion pulls more.

    -log sigmoid(beta * h - length_weight * (|y_w| - |y_l|)), sums; made of `r_dpo` by counting the rejected tokens as
    the chosen ones and the other way round.
    """
    swapped = replace(logps, chosen_tokens=logps.rejected_tokens, rejected_tokens=logps.chosen_tokens)
    return r_dpo(swapped, beta=beta, length_weight=length_weight)
