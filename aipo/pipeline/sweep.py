"""What happens around a sweep: every combination is checked before the first job, and the analysis runs at the end."""

from __future__ import annotations

import atexit
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from aipo.jobs import JobFileError, Submission, read_submitted, submit
from aipo.pipeline import beside, cluster, folders, keys
from aipo.pipeline.asked import asked
from aipo.pipeline.check import ConfigError, check
from aipo.pipeline.composer import Combination, Composer
from aipo.pipeline.console import Place, overrides_shown
from aipo.pipeline.missing import missing_needs
from aipo.pipeline.options import explain, replaced
from aipo.pipeline.run import Run, build_run
from aipo.remote import redact

_open: list[Path] = []
"""The sweep whose tables are still to be made when this process ends."""

NEEDY = (
    *("model", "data", "sampler", "ranker", "trainer", "judge", "diagnostic_judge", "benchmark", "store"),
    "resources",
)
"""Groups whose components may need something beyond this package."""

JOBS = "AIPO_SWEEP_JOBS"
"""Environment variable: how many jobs the sweep has that is being run."""

folders.register()  # launchers import this module in every process, for the callback


class SweepCallback(Callback):
    """Hydra's hooks, for `python run.py` and `python run.py -m` alike. Hydra makes a folder for every job before the
    job's own code runs; so what is refused, and what is only planned, ends here and leaves no folder behind."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """One job: check it, or plan it."""
        job = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        folder = Path(config.hydra.run.dir)
        problems = _torn(folder.parent.parent)
        problems |= dict.fromkeys(replaced(config.hydra.overrides.task, *_folders(config)))
        if config.get("detach"):
            problems["detach=true: one job runs here; sweep with -m and hydra/launcher=slurm"] = None
        for item in config.hydra.overrides.hydra:
            if item.startswith("hydra/launcher=") and item != "hydra/launcher=basic":
                problems[f"{item}: one job runs here; add -m, with which a single job, too, is a sweep"] = None
        _refuse([(job, "")], problems, hydra=config.hydra)
        if job.plan:
            _plan([(job, "")])
        if folder.parent.name == "jobs":
            _note(folder.parent.parent, [(folder.name, folders.without_screen(config.hydra.overrides.task))])

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check all combinations at once: a mistake in the last must not wait for the first to end."""
        combinations = _expanded(config)
        with beside.Workers.expected(config, len(combinations)) as workers:
            self._begin(config, combinations, workers)

    def _begin(self, config: DictConfig, combinations: Sequence[list[str]], workers: beside.Workers) -> None:
        composer = Composer(config.hydra.job.config_name)
        jobs: list[Combination] = []
        problems = _torn(Path(config.hydra.sweep.dir))
        problems |= dict.fromkeys(replaced(itertools.chain(*combinations), *_folders(config)))
        for combination in combinations:
            try:
                jobs.append(composer.compose(combination))
            except Exception as error:
                if (explained := explain(error, combination, *_folders(config))) is None:
                    raise
                problems |= dict.fromkeys(explained.problems)
        if config.get("detach") and not cluster.launches(config):
            problems["detach=true: only a sweep that goes to Slurm can be left alone; add hydra/launcher=slurm"] = None
        labelled = [(job.config, " ".join(job.overrides)) for job in jobs]
        launcher = cluster.launcher_settings(config) if cluster.launches(config) else None
        checked = _refuse(labelled, problems, launcher, config.hydra)
        if config.plan:
            _plan(labelled, launcher)
        sweep = Path(config.hydra.sweep.dir)
        if launcher is not None:
            asked = _asked(sweep, jobs, checked)
            sys.exit(cluster.run(sweep, asked, launcher, detach=bool(config.get("detach"))))
        known = str(config.hydra.sweeper._target_).endswith(f".{cluster.SWEEPER}")
        if known:  # another sweeper's jobs are not known yet
            _note(sweep, [(folders.job_folder(job.config), folders.without_screen(job.overrides)) for job in jobs])
            os.environ[JOBS] = str(len(jobs))  # for the jobs' lines, also in processes that launchers start
        # Hydra tells a callback of a sweep's end only when every job succeeded; the rest deserve their tables too.
        _open.append(sweep)
        atexit.register(close)
        if known and config.hydra.launcher._target_.endswith(f".{beside.BASIC}"):
            if (at_once := beside.jobs_at_once(jobs)) > 1:
                sys.exit(beside.run(_asked(sweep, jobs, checked), at_once, workers))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Hydra's launcher keeps what it gives back until the sweep ends: of each job its whole config, twice."""
        job_return.cfg = job_return.hydra_cfg = None

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """The tables and plots of the sweep this job belongs to. A job that failed ends with its own error."""
        if config.plan or _analyse(Path(config.hydra.run.dir).parent.parent):
            return
        job: JobReturn | None = kwargs.get("job_return")
        if job is None or job.status == JobStatus.COMPLETED:
            sys.exit(1)  # Hydra takes an exception for a warning


def place_in_sweep(hydra: Any) -> Place:
    """Where the job that Hydra runs here stands in its sweep."""
    shown = overrides_shown(list(hydra.overrides.task))
    if OmegaConf.is_missing(hydra.job, "num"):
        return Place(details=shown)
    jobs = os.environ.get(JOBS, "")
    alone = hydra.launcher["_target_"].endswith("BasicLauncher")
    return Place(hydra.job.num + 1, int(jobs) if jobs.isdigit() else None, not alone, shown)


def forget_analysis() -> None:
    """A sweep that a person stops ends at once; its tables can be made with `aipo analyse`."""
    _open.clear()


def close() -> bool:
    """Make the tables of the sweep that has ended; whether that went well. Nothing to do where there is none."""
    return all([_analyse(_open.pop()) for _ in tuple(_open)])


def submit_again(sweep: Path, overrides: Sequence[Sequence[str]], *, detach: bool) -> int:
    """Submit jobs of a sweep to Slurm as its last submission was, with the code and configs of now. The exit status.

    Hydra must be initialized with the configs' folder.
    """
    launcher = cluster.last_launcher(sweep)
    assert launcher is not None
    composer = Composer("config")
    jobs = [composer.compose(combination) for combination in overrides]
    checked = _refuse([(job.config, " ".join(job.overrides)) for job in jobs], launcher=launcher)
    return cluster.run(sweep, _asked(sweep, jobs, checked), launcher, detach=detach)


def _asked(sweep: Path, jobs: Sequence[Combination], checked: Sequence[Mapping[str, Any]]) -> list[cluster.Asked]:
    """The jobs as processes elsewhere get them."""
    named = zip(jobs, checked, strict=True)
    return [cluster.asked(sweep, folders.named(plain), job, plain) for job, plain in named]


def combinations(config: DictConfig) -> Iterator[list[str]]:
    """The override lists of a sweep's jobs, as Hydra's basic sweeper expands them."""
    given = list(config.hydra.overrides.task)
    if not str(config.hydra.sweeper._target_).endswith(f".{cluster.SWEEPER}"):
        # It chooses values by what jobs return; what it leaves alone can be checked beforehand.
        parsed = OverridesParser.create().parse_overrides(given)
        yield [str(item.input_line) for item in parsed if not item.is_sweep_override()]
        return
    parameters = config.hydra.sweeper.get("params") or {}
    named = {item.split("=", 1)[0] for item in given}
    given += [f"{key}={value}" for key, value in parameters.items() if key not in named]
    choices = []
    for override in OverridesParser.create().parse_overrides(given):
        if override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([str(override.input_line)])
    for combination in itertools.product(*choices):
        yield list(combination)


def _expanded(config: DictConfig) -> list[list[str]]:
    try:
        return list(combinations(config))
    except HydraException as error:  # a kind of sweep that has no list of values
        print(ConfigError([str(error)]), file=sys.stderr)
        sys.exit(2)


def _refuse(
    jobs: Sequence[tuple[DictConfig, str]],
    problems: Mapping[str, None] | None = None,
    launcher: Mapping[str, Any] | None = None,
    hydra: DictConfig | None = None,
) -> list[dict[str, Any]]:
    """The jobs as plain values; or exit with status 2 and a list of all that is wrong with them or missing for them.

    `launcher`: Slurm's settings, where the jobs go there. `hydra`: Hydra's own, which it writes down as well.
    """
    from aipo.pipeline.loop import loop

    found: dict[str, list[str]] = {problem: [] for problem in problems or ()}
    needs: dict[str, list[str]] = {}
    known: dict[str, list[str]] = {}
    judgings: dict[str, bool] = {}
    parts: dict[str, Any] = {}
    checked: list[dict[str, Any]] = []
    for job, label in jobs:
        told: list[str] = []
        try:
            plain = check(job, known)
            checked.append(plain)
            if not plain["plan"]:  # a plan lists what is missing itself
                built = build_run(plain, parts)
                whom = asked(built, loop, judgings)
                key = json.dumps([[plain[group] for group in NEEDY], sorted(whom)], sort_keys=True, default=str)
                if key not in needs:  # equal components are looked at once
                    nodes = None if launcher is None else cluster.nodes_of(plain, launcher)
                    needs[key] = [f"missing {line}" for line in missing_needs(built, whom, nodes)]
                    needs[key] += undivided(built) if launcher is None else cluster.launcher_problems(plain, launcher)
                told = needs[key]
        except ConfigError as error:
            told = error.problems
        for problem in told:
            found.setdefault(problem, []).append(label)
    for problem in keys.in_hydra(hydra) if hydra is not None else ():
        found.setdefault(problem, [])
    if found:
        print(ConfigError([_with_jobs(*item, len(jobs)) for item in found.items()]), file=sys.stderr)
        sys.exit(2)
    return checked


def undivided(job: Run) -> list[str]:
    """What is wrong with the resources of a job that goes to no cluster by itself."""
    if not (job.resources.differ or job.resources.common_first):
        return []
    return ["resources: only a sweep on Slurm has jobs of the cluster to divide; add -m and hydra/launcher=slurm"]


def _with_jobs(problem: str, labels: Sequence[str], n_jobs: int) -> str:
    """A problem, said once, with the jobs that have it: hundreds may have the same."""
    whose = list(dict.fromkeys(label for label in labels if label))
    if not whose:
        return problem
    if len(whose) == n_jobs > 2:
        return f"{problem} [all {n_jobs} jobs]"
    more = f", and {len(whose) - 1} more of {n_jobs} jobs" if len(whose) > 1 else ""
    return f"{problem} [{whose[0]}{more}]"


def _plan(jobs: Sequence[tuple[DictConfig, str]], launcher: Mapping[str, Any] | None = None) -> NoReturn:
    """Print the plan of each job, and of several what they need together. `launcher` as for `_refuse`."""
    from aipo.pipeline.loop import run, walk
    from aipo.planning.report import print_sweep
    from aipo.planning.seeds import print_seeds

    for number, (job, label) in enumerate(jobs, start=1):
        if label:
            print(f"\nJob {number} of {len(jobs)}: {label}")
        try:
            run(job, Path(), (), {}, nodes=None if launcher is None else cluster.nodes_of(check(job), launcher))
        except ConfigError as error:  # Hydra takes what a callback raises for a warning, and goes on
            print(error, file=sys.stderr)
            sys.exit(2)
    if jobs[0][1]:
        built = [build_run(check(job)) for job, _ in jobs]
        print_sweep([(job, walk(job)) for job in built])
    first = check(jobs[0][0])
    if first["pilot"]:
        replicates = {(plain["seed"], plain["model"].get("seed")) for plain in (check(job) for job, _ in jobs)}
        print_seeds(Path(first["pilot"]), first["iteration"]["iterations"], len(replicates))
    sys.exit(0)


def _folders(config: DictConfig) -> list[Path]:
    """Where the sweep's configs lie: its own folder of them first, then those that the command line names."""
    found = [source for source in config.hydra.runtime.config_sources if source.schema == "file"]
    return [Path(source.path) for source in sorted(found, key=lambda source: source.provider != "main")]


def _note(sweep: Path, jobs: Sequence[tuple[str, tuple[str, ...]]]) -> None:
    """Write down what is asked of a sweep; or exit with status 2 where nothing can be written: no job could, either."""
    try:
        submit(sweep, [Submission(*job) for job in jobs])
    except OSError as error:
        why = f"{sweep}: what becomes of its jobs cannot be written there ({error.strerror or error})"
        print(ConfigError([f"{why}; make room or mend the rights, or run in another folder"]), file=sys.stderr)
        sys.exit(2)


def _torn(sweep: Path) -> dict[str, None]:
    """What keeps a sweep from taking up more jobs."""
    try:
        read_submitted(sweep)
    except JobFileError as error:
        return {str(error): None}
    return {}


def _analyse(sweep: Path) -> bool:
    """Make the tables, plots and page, and show the verdict; or say in a line why not, and what to do. Whether."""
    if not any(sweep.glob("jobs/*/run.json")):
        return True
    from analysis import analyse, closing

    try:
        analyse(sweep)
        closing.show(sweep)
    except Exception as error:  # the jobs are done and kept, whatever is wrong with the tables
        told = " ".join(str(error).split())
        print(
            redact(
                f"error: {sweep} has no new tables: {type(error).__name__}: {told}; the jobs' results are kept: "
                f"with the cause mended, `aipo analyse {sweep}` makes them"
            ),
            file=sys.stderr,
        )
        return False
    return True
