"""Sweeps on Slurm: code and configs as they were submitted, the jobs themselves, and the one who waits for them."""

from aipo.pipeline.cluster.driver import run
from aipo.pipeline.cluster.slurm import asked, launcher_settings, launches
from aipo.pipeline.cluster.snapshot import last_launcher

__all__ = ["asked", "last_launcher", "launcher_settings", "launches", "run"]
