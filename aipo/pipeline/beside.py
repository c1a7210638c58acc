"""Jobs of a sweep beside each other on one machine, as many as it has cores for, where nothing speaks against it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from aipo.pipeline.composer import Combination

BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
LAUNCHER = "processes"
"""The option in conf/hydra/launcher that the jobs get, so that they know of each other."""
SMALL = "miniature"
"""The model of which many fit into a machine's memory."""


def side_by_side(config: DictConfig, jobs: Sequence[Combination]) -> int:
    """Make `config`, of a sweep of these jobs, run so many of them at once, and return the number.

    1, and nothing is changed, where somebody chose a launcher, where there is a GPU, which one job has to itself, or
    where a job's model may be too large to have beside another. The jobs' numbers do not depend on it.
    """
    hydra = config.hydra
    if hydra.launcher._target_ != BASIC or any(item.startswith("hydra/launcher=") for item in hydra.overrides.hydra):
        return 1
    if any(job.choices.get("model") != SMALL or job.choices.get("sampler") != "hf" for job in jobs) or _has_gpu():
        return 1
    busy = max((int(job.config.cpu_threads) * int(job.config.trainer.processes) for job in jobs), default=1)
    at_once = min(len(jobs), cores() // max(1, busy))
    if at_once < 2:
        return 1
    with read_write(hydra), open_dict(hydra):
        hydra.launcher = OmegaConf.structured(JobLibLauncherConf(n_jobs=at_once))
        hydra.overrides.hydra += [f"hydra/launcher={LAUNCHER}", f"hydra.launcher.n_jobs={at_once}"]
    return at_once


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _has_gpu() -> bool:
    """Told by the system's own files: to ask torch would take a second."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()
