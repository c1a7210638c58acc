"""Preference objectives: pure functions of `PairLogps`, one YAML each in `conf/objective`.

`docs/objectives.md` has a table of them all. What to do when a batch is split: `aipo.objectives.coupling`.
"""

from aipo.objectives.aipo import aipo, alpha_dpo, dpo_nll
from aipo.objectives.batch_coupled import alpha_dpo_2410, aot, bco, kto
from aipo.objectives.direct import discopop, dpo, exo, hinge, identity_po, robust_dpo
from aipo.objectives.length import dpo_norm, ilr_dpo, ld_dpo, r_dpo
from aipo.objectives.pair_logps import Objective, PairLogps, PairLoss, PairLossFunction
from aipo.objectives.pointwise import apo_down, apo_zero, nca, sppo, sppo_hard
from aipo.objectives.reference_free import cpo, cpo_simpo, orpo, simpo

__all__ = [
    "Objective",
    "PairLogps",
    "PairLoss",
    "PairLossFunction",
    "aipo",
    "alpha_dpo",
    "alpha_dpo_2410",
    "aot",
    "apo_down",
    "apo_zero",
    "bco",
    "cpo",
    "cpo_simpo",
    "discopop",
    "dpo",
    "dpo_nll",
    "dpo_norm",
    "exo",
    "hinge",
    "identity_po",
    "ilr_dpo",
    "kto",
    "ld_dpo",
    "nca",
    "orpo",
    "r_dpo",
    "robust_dpo",
    "simpo",
    "sppo",
    "sppo_hard",
]
