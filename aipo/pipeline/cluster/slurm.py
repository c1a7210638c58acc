"""Submitting a sweep's jobs to Slurm, as arrays within the cluster's limit, through submitit."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from aipo.jobs import Submission, ask, submit
from aipo.pipeline import folders
from aipo.pipeline.cluster.job import SweepAnalysis, SweepJob
from aipo.pipeline.cluster.snapshot import CODE, JOBS, Asked, take
from aipo.pipeline.composer import Combination

if TYPE_CHECKING:
    from submitit import AutoExecutor

LAUNCHER = "SlurmLauncher"
"""The class that Hydra's plugin has for Slurm. Its settings are taken as they are."""
SWEEPER = "BasicSweeper"
COMMON = (
    *("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"),
    "stderr_to_stdout",
)
"""Settings that submitit has for every kind of cluster; the others are Slurm's."""
NO_ANSWER_ARRAY = 1001
"""Slurm's own default of MaxArraySize."""
DEAF = """trap '' USR2; exec "$0" "$@" """
"""Until a job can answer a warning, it ignores it: it would die of it, and Slurm take it for failed."""
ANALYSIS_MINUTES = 60
ALONE = ("partition", "account", "qos", "constraint", "comment", "exclude", "setup")
"""What the analysis, a small job, has in common with the others."""


def launches(config: DictConfig) -> bool:
    """Whether a composed sweep goes to Slurm. A sweeper that waits for results leaves that to Hydra's launcher."""
    launcher, sweeper = str(config.hydra.launcher._target_), str(config.hydra.sweeper._target_)
    return launcher.endswith(f".{LAUNCHER}") and sweeper.endswith(f".{SWEEPER}")


def launcher_settings(config: DictConfig) -> dict[str, Any]:
    """The launcher's settings, resolved, without what names its class."""
    found: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    return {str(key): value for key, value in found.items() if key not in ("_target_", "submitit_folder")}


def asked(sweep: Path, folder: str, combination: Combination, config: Mapping[str, Any]) -> Asked:
    """A job as its submission keeps it. `config`: resolved and checked."""
    place = sweep / "jobs" / folder
    hydra = combination.hydra
    with read_write(hydra), open_dict(hydra):
        hydra.runtime.output_dir = str(place)
    logging: Any = OmegaConf.to_container(hydra.job_logging, resolve=True) if hydra.job_logging else {}
    told = {str(key): value for key, value in logging.items()}
    overrides = folders.without_screen(combination.overrides)
    return Asked(str(place), config, overrides, combination.choices, told if told.get("root") else None)


def submit_jobs(sweep: Path, jobs: Sequence[Asked], launcher: Mapping[str, Any], *, analyse: bool) -> list[Submission]:
    """Keep code and configs, then submit: one array for as many jobs as the cluster takes in one.

    Every job's number is written into `submitted.json`. With `analyse` one more job waits for all of them and makes
    the tables. Returns what was submitted, that job last.
    """
    kept = take(sweep, jobs, launcher)
    limit = array_limit()
    found: list[Submission] = []
    chunks = [jobs[start : start + limit] for start in range(0, len(jobs), limit)]
    parallel = list(shares(int(launcher.get("array_parallelism") or 256), len(chunks)))
    for chunk, at_once in zip(chunks, parallel, strict=True):
        executor = _executor(kept, {**launcher, "array_parallelism": at_once})
        files = [kept / JOBS / f"{Path(job.folder).name}.json" for job in chunk]
        started = executor.map_array(SweepJob(), [file.absolute() for file in files])
        submitted = [
            Submission(Path(job.folder).name, tuple(job.overrides), task.job_id, str(task.paths.stdout))
            for job, task in zip(chunk, started, strict=True)
        ]
        submit(sweep, submitted)
        found += submitted
    if analyse:
        arrays = dict.fromkeys(str(job.slurm_id).partition("_")[0] for job in found)
        small = {key: launcher[key] for key in ALONE if launcher.get(key) is not None}
        small |= {"timeout_min": ANALYSIS_MINUTES, "name": "analysis", "stderr_to_stdout": True}
        executor = _executor(kept, {**small, "dependency": f"afterany:{':'.join(arrays)}"})
        task = executor.submit(SweepAnalysis(), sweep)
        found.append(Submission("", (), task.job_id, str(task.paths.stdout)))
    return found


def array_limit() -> int:
    """How many tasks one array may have on this cluster."""
    told = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config") or "", re.MULTILINE)
    return max(1, int(told.group(1)) if told else NO_ANSWER_ARRAY)


def shares(whole: int, parts: int) -> Iterator[int]:
    """`whole` in `parts` as equal as can be, and at least 1 each: jobs that may run at once, over several arrays."""
    for part in range(parts):
        yield max(1, whole // parts + (part < whole % parts))


def _executor(kept: Path, launcher: Mapping[str, Any]) -> AutoExecutor:
    """submitit's, with the launcher's settings, for jobs that import the code in `kept`."""
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
