"""Preference objectives: pure functions of `PairLogps`, one YAML each in `conf/objective`.

An objective is a function that its module names in `__all__`; this face passes on whatever stands there.
`docs/objectives.md` describes them all. What to do when a batch is split: `aipo.objectives.coupling`.
"""

# ruff: noqa: F403 (each module says in `__all__` what it gives)

from aipo.objectives.aipo import *
from aipo.objectives.batch_coupled import *
from aipo.objectives.direct import *
from aipo.objectives.length import *
from aipo.objectives.objective import Objective as Objective
from aipo.objectives.pair_logps import PairLogps as PairLogps
from aipo.objectives.pair_logps import PairLoss as PairLoss
from aipo.objectives.pair_logps import PairLossFunction as PairLossFunction
from aipo.objectives.pointwise import *
from aipo.objectives.reference_free import *
