"""Statistics of benchmarks and judges: arrays in, numbers out. No file, model or network."""

from aipo.stats.bradley_terry import bradley_terry, pooled_bootstrap, win_rate_against
from aipo.stats.curves import (
    OveroptimizationFit,
    Range,
    common_lengths,
    common_scores,
    distance_travelled,
    fit_overoptimization,
    mean_log_length_over,
    mean_score_over,
    score_at_length,
)
from aipo.stats.hierarchical import (
    Estimate,
    detectable_difference,
    estimate,
    holm,
    question_draws,
    seeds_needed,
    sign_flip_p,
)
from aipo.stats.length_control import LengthControl, length_controlled
from aipo.stats.win_rates import WinRate, bootstrap_interval, bootstrap_mean_interval, win_rate

__all__ = [
    "Estimate",
    "LengthControl",
    "OveroptimizationFit",
    "Range",
    "WinRate",
    "bootstrap_interval",
    "bootstrap_mean_interval",
    "bradley_terry",
    "common_lengths",
    "common_scores",
    "detectable_difference",
    "distance_travelled",
    "estimate",
    "fit_overoptimization",
    "holm",
    "length_controlled",
    "mean_log_length_over",
    "mean_score_over",
    "pooled_bootstrap",
    "question_draws",
    "score_at_length",
    "seeds_needed",
    "sign_flip_p",
    "win_rate",
    "win_rate_against",
]
