"""Preference objectives: pure functions of `PairLogps`, one YAML each in `conf/objective`."""

from aipo.objectives.pair_logps import Objective, PairLogps, PairLoss, PairLossFunction

__all__ = ["Objective", "PairLogps", "PairLoss", "PairLossFunction"]
