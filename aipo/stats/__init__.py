"""Statistics of benchmarks and judges: arrays in, numbers out. No file, model or network."""

from aipo.stats.bradley_terry import bradley_terry, pooled_bootstrap, win_rate_against
from aipo.stats.length_control import LengthControl, length_controlled
from aipo.stats.win_rates import WinRate, bootstrap_interval, bootstrap_mean_interval, win_rate

__all__ = [
    "LengthControl",
    "WinRate",
    "bootstrap_interval",
    "bootstrap_mean_interval",
    "bradley_terry",
    "length_controlled",
    "pooled_bootstrap",
    "win_rate",
    "win_rate_against",
]
