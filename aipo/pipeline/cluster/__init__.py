"""Sweeps on Slurm: code and configs as they were submitted, the jobs themselves, and the one who waits for them."""

from aipo.pipeline.cluster.driver import run
from aipo.pipeline.cluster.job import run_asked
from aipo.pipeline.cluster.slurm import SWEEPER, asked, launcher_problems, launcher_settings, launches, nodes_of
from aipo.pipeline.cluster.snapshot import Asked, last_launcher

__all__ = [
    "SWEEPER",
    "Asked",
    "asked",
    "last_launcher",
    "launcher_settings",
    "launches",
    "nodes_of",
    "launcher_problems",
    "run",
    "run_asked",
]
