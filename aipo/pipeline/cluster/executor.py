"""submitit's executor with a launcher's settings, for jobs that import the code that their submission keeps."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aipo.pipeline.cluster.snapshot import CODE

if TYPE_CHECKING:
    from submitit import AutoExecutor

COMMON = (
    *("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"),
    "stderr_to_stdout",
)
"""Settings that submitit has for every kind of cluster; the others are Slurm's."""
CONF = "SLURM_CONF"
"""Where Slurm's commands find the cluster: as SBATCH_ variables a site's or a user's, and the same for every job."""
DEAF = """trap '' USR2; exec "$0" "$@" """
"""Until a job can answer a warning, it ignores it: it would die of it, and Slurm take it for failed."""


def executor_of(kept: Path, launcher: Mapping[str, Any]) -> AutoExecutor:
    """submitit's, for jobs of the submission in `kept`."""
    from submitit import AutoExecutor

    code = shlex.quote(str((kept / CODE).absolute()))
    # `python -m` would put the folder of submission, an edited checkout, before PYTHONPATH.
    paths = [f"export PYTHONSAFEPATH=1 PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}"]
    settings = {key: value for key, value in launcher.items() if value is not None and key != "max_num_timeout"}
    settings["setup"] = [*paths, *(settings.get("setup") or [])]
    executor = AutoExecutor(
        cluster="slurm",
        folder=kept / "slurm",
        slurm_max_num_timeout=launcher.get("max_num_timeout") or 0,
        slurm_python=f"bash -c {shlex.quote(DEAF)} {shlex.quote(sys.executable)}",
    )
    names = {key: key if key in COMMON else f"slurm_{key}" for key in settings}
    executor.update_parameters(**{names[key]: value for key, value in settings.items()})
    return executor


def with_resources(launcher: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A launcher's settings with others on top: mappings are merged, lists are added to, the rest is replaced."""
    found = dict(launcher)
    for key, value in settings.items():
        here = found.get(key)
        if isinstance(value, Mapping) and isinstance(here, Mapping):
            found[key] = {**here, **value}
        elif isinstance(value, list) and isinstance(here, list):
            found[key] = [*here, *value]
        else:
            found[key] = value
    return found


def submit_one(
    kept: Path, launcher: Mapping[str, Any], function: Callable[..., Any], *arguments: Any
) -> tuple[str, str]:
    """Submit one job that calls the function; also from within a job, whose settings it does not take over.

    Returns its number and its log.
    """
    from submitit.helpers import clean_env

    of_the_user = {key: value for key, value in os.environ.items() if key == CONF or key.startswith("SBATCH_")}
    with clean_env():
        os.environ.update(of_the_user)
        task = executor_of(kept, launcher).submit(function, *arguments)
    return task.job_id, str(task.paths.stdout)


def is_refusal(error: Exception) -> bool:
    """Whether an error says that Slurm did not take a job, or is not there, and not that something here is wrong."""
    from submitit.core.utils import FailedJobError

    return isinstance(error, FailedJobError) or (isinstance(error, RuntimeError) and "srun" in str(error))
