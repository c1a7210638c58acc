"""Submitting a sweep's jobs to Slurm, as arrays within the cluster's limit, through submitit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from aipo.components import build_component
from aipo.jobs import Submission, ask, submit
from aipo.pipeline import folders
from aipo.pipeline.check import did_you_mean
from aipo.pipeline.cluster.executor import executor_of, with_resources
from aipo.pipeline.cluster.job import SweepJob, submit_analysis
from aipo.pipeline.cluster.parts import Common, common_first, name_of
from aipo.pipeline.cluster.snapshot import JOBS, Asked, take
from aipo.pipeline.composer import Combination
from aipo.planning.resources import Kind, Resources

LAUNCHER = "SlurmLauncher"
"""The class that Hydra's plugin has for Slurm. Its settings are taken as they are."""
SWEEPER = "BasicSweeper"
Item = TypeVar("Item")
NO_ANSWER_ARRAY = 1001
"""Slurm's own default of MaxArraySize."""


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


@dataclass(frozen=True)
class Sent:
    """What was given to Slurm."""

    what: str
    slurm_id: str
    log: str


def submit_jobs(sweep: Path, jobs: Sequence[Asked], launcher: Mapping[str, Any], *, analyse: bool) -> list[Sent]:
    """Keep code and configs, then submit: one array for as many jobs as the cluster takes in one.

    Where jobs ask for it, what several of them begin with is made by jobs of its own, and they wait for those. Every
    job's number is written into `submitted.json`. With `analyse` one more job waits for all of them and makes the
    tables. Returns what was submitted, that job last.
    """
    common = common_first(jobs)
    kept = take(sweep, jobs, launcher)
    files = {job.folder: (kept / JOBS / f"{name_of(job)}.json").absolute() for job in jobs}
    limit, at_once = array_limit(), int(launcher.get("array_parallelism") or 256)
    sent: list[Sent] = []
    first: dict[str, str] = {}
    makers = batched(list(common.parts), limit)
    for some, share in zip(makers, shares(at_once, len(makers)), strict=True):
        executor = executor_of(kept, {**launcher, "array_parallelism": share})
        arguments = [files[one] for one in some], [common.parts[one] for one in some]
        for folder, task in zip(some, executor.map_array(SweepJob(), *arguments), strict=True):
            first[folder] = task.job_id
            sent.append(Sent(f"{Path(folder).name}: what others need, too", task.job_id, str(task.paths.stdout)))
    chunks: list[tuple[str, Sequence[Asked]]] = []
    for after, alike in _waiting(jobs, common, at_once):
        waits = ":".join(["afterany", *(first[folder] for folder in after)]) if after else ""
        chunks += [(waits, chunk) for chunk in batched(alike, limit)]
    numbers: list[str] = []
    for (waits, chunk), share in zip(chunks, shares(at_once, len(chunks)), strict=True):
        settings = {**launcher, "array_parallelism": share, **({"dependency": waits} if waits else {})}
        started = executor_of(kept, settings).map_array(SweepJob(), [files[job.folder] for job in chunk])
        submitted = [
            Submission(name_of(job), tuple(job.overrides), task.job_id, str(task.paths.stdout))
            for job, task in zip(chunk, started, strict=True)
        ]
        submit(sweep, submitted)
        sent += [Sent(job.folder, str(job.slurm_id), str(job.log)) for job in submitted]
        numbers += [str(job.slurm_id) for job in submitted]
    if analyse:
        sent.append(Sent("the tables, when they are done", *submit_analysis(sweep, kept, numbers)))
    return sent


def _waiting(jobs: Sequence[Asked], common: Common, at_once: int) -> list[tuple[Sequence[str], Sequence[Asked]]]:
    """Jobs that wait for the same, with what they wait for: together, each an array, they run no more at once than may.

    Where those would be more arrays, all wait for everything.
    """
    found: dict[tuple[str, ...], list[Asked]] = {}
    for job in jobs:
        found.setdefault(common.awaited.get(job.folder, ()), []).append(job)
    return list(found.items()) if len(found) <= at_once else [(list(common.parts), jobs)]


def batched(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in their order, at most so many together."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def launcher_problems(config: Mapping[str, Any], launcher: Mapping[str, Any]) -> list[str]:
    """Settings that a job's resources ask for and the launcher does not have, and limits that leave no time to work."""
    resources: Resources = build_component(config["resources"])
    asked = {f"resources.{kind}.{key}": key for kind in get_args(Kind) for key in resources.settings(kind)}
    limits = {"hydra.launcher": launcher} | {
        f"resources.{kind}": with_resources(launcher, settings)
        for kind in get_args(Kind)
        if (settings := resources.settings(kind))
    }
    return [*_limit_problems(limits)] + [
        f"{path}: no setting of hydra.launcher{did_you_mean(key, launcher)}; expected one of "
        f"{', '.join(sorted(launcher))}"
        for path, key in asked.items()
        if key not in launcher
    ]


def _limit_problems(limits: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for path, settings in limits.items():
        minutes, delay = settings.get("timeout_min"), settings.get("signal_delay_s")
        wrong = [value for value in (minutes, delay) if type(value) not in (int, float, type(None))]
        if wrong:
            yield f"{path}: expected numbers for timeout_min and signal_delay_s, got {wrong[0]!r}"
        elif 60 * (minutes or math.inf) <= (delay or 0):
            yield (
                f"{path}: a limit of {minutes} minutes and a warning {delay} s before it would stop every start at "
                "once; raise timeout_min, or lower signal_delay_s"
            )


def nodes_of(config: Mapping[str, Any], launcher: Mapping[str, Any]) -> int:
    """How many machines a job has where it trains."""
    resources: Resources = build_component(config["resources"])
    settings = with_resources(launcher, resources.settings("training"))
    more = settings.get("additional_parameters") or {}
    return int(more.get("nodes") or settings.get("nodes") or 1)


def array_limit() -> int:
    """How many tasks one array may have on this cluster."""
    told = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config") or "", re.MULTILINE)
    return max(1, int(told.group(1)) if told else NO_ANSWER_ARRAY)


def shares(whole: int, parts: int) -> Iterator[int]:
    """`whole` in `parts` as equal as can be, and at least 1 each: jobs that may run at once, over several arrays."""
    for part in range(parts):
        yield max(1, whole // parts + (part < whole % parts))
