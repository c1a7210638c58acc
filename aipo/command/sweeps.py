"""What became of a sweep: how each of its jobs stands, and which of them to run again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aipo.jobs import FILE, SUBMITTED, UNFINISHED, JobFileError, JobState, read_submitted, states

COLOURS = {
    **{"done": "green", "running": "cyan", "pending": "cyan", "requeued": "cyan"},
    **{"failed": "red", "lost": "red", "unreadable": "red", "timed out": "red"},
}
AGAIN = ("failed", "lost", "interrupted", "unreadable", "timed out", "cancelled")
"""States of jobs that did not come to their end, and will not by themselves."""
NEVER = ("not started", "cancelled")
"""States of jobs that never began."""
HYDRAS = ".hydra/overrides.yaml"
"""Where Hydra writes a job's overrides, in the folder of a job that it runs itself."""


def status_table(jobs: Sequence[JobState]) -> Table:
    """A row per job: where it stands, how far it came, and the last line of its error."""
    table = Table(box=None, pad_edge=False)
    for name in ("job", "state", "round", "of", "host", "started", "why"):
        table.add_column(name, overflow="fold" if name in ("job", "why") else "ellipsis", no_wrap=name == "job")
    for job in jobs:
        record = job.record
        rounds = total = host = started = ""
        if record is not None:
            rounds = str(record.rounds)
            total = str(record.settings.get("iteration", {}).get("iterations", ""))
            host, started = f"{record.host}:{record.pid}", record.started
        colour = COLOURS.get(job.state, "yellow")
        table.add_row(job.folder, f"[{colour}]{job.state}[/]", rounds, total, host, started, _plain(job.why))
    return table


def summary(jobs: Sequence[JobState]) -> str:
    """One line: how many jobs are in each state."""
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.state] = counts.get(job.state, 0) + 1
    return f"{len(jobs)} jobs: " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def show_status(sweep: Path, watch_seconds: float | None = None) -> None:
    """Print the table, once or again and again until no job runs."""
    console = Console()
    while True:
        jobs = states(sweep)
        console.print(status_table(jobs))
        console.print(summary(jobs), highlight=False)
        if watch_seconds is None or not any(job.state in (*UNFINISHED, "not started") for job in jobs):
            return
        time.sleep(watch_seconds)


def to_run_again(jobs: Iterable[JobState], *, failed: bool, missing: bool) -> list[JobState]:
    """The jobs that `rerun` starts: those that did not come to their end, and those that never began."""

    def wanted(job: JobState) -> bool:
        began = job.record is not None or job.state in ("failed", "lost", "unreadable", "timed out")
        return (failed and began and job.state in AGAIN) or (missing and not began and job.state in NEVER)

    return [job for job in jobs if wanted(job)]


def submitted_before(sweep: Path) -> bool:
    """Whether the sweep was ever submitted to Slurm."""
    from aipo.pipeline.cluster import last_launcher

    return last_launcher(sweep) is not None


def resubmit(sweep: Path, jobs: Sequence[JobState], *, detach: bool) -> int:
    """Submit exactly these jobs to Slurm as the sweep was, with the code and configs of now. Gives the exit status."""
    from hydra import initialize_config_dir

    from aipo.command.run import CONF
    from aipo.pipeline.sweep import submit_again

    with initialize_config_dir(str(CONF), version_base="1.3", job_name="run"):
        return submit_again(sweep, [_overrides(job, sweep) for job in jobs], detach=detach)


def _overrides(job: JobState, sweep: Path) -> list[str]:
    return [
        item for item in _asked_for(job, sweep) if not item.startswith(("sweep=", "detach=", "judge_later=", "hydra/"))
    ] + [setting("sweep", _name(sweep))]


def setting(key: str, text: str) -> str:
    """`key=text` as Hydra reads it: in quotes where it would read anything but this text, or nothing at all."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException

    plain = f"{key}={text}"
    try:
        override = OverridesParser.create().parse_override(plain)
        is_read = not override.is_sweep_override() and override.value() == text
    except HydraException:
        is_read = False
    return plain if is_read else f"{key}={QuotedString(text, Quote.double).with_quotes()}"


def _name(sweep: Path) -> str:
    """What `sweep=` calls it: its folder below results/, or the folder's own name where it lies elsewhere."""
    from aipo.pipeline.folders import RESULTS

    folder, results = sweep.resolve(), Path(RESULTS).resolve()
    return folder.relative_to(results).as_posix() if results in folder.parents else folder.name


def _asked_for(job: JobState, sweep: Path) -> Sequence[str]:
    """The job's overrides. Where the sweep and the job's record do not tell them, those that Hydra wrote into its
    folder; JobFileError where there are none: no overrides at all would be another job.
    """
    if job.overrides or job.record is not None or any(item.folder == job.folder for item in read_submitted(sweep)):
        return job.overrides
    from omegaconf import OmegaConf
    from yaml import YAMLError

    path = sweep / "jobs" / job.folder / HYDRAS
    try:
        found: Any = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError) as error:
        found = error
    if isinstance(found, list):
        return [str(item) for item in found]
    raise JobFileError(
        f"{path}: expected the overrides of job {job.folder}, which neither {sweep / SUBMITTED} nor its {FILE} tells; "
        f"found {' '.join(str(found).split())}. Run it by its own command, with {setting('sweep', _name(sweep))}"
    )


def rerun(sweep: Path, jobs: Sequence[JobState]) -> int:
    """Run exactly these jobs here, one after the other, into the same folders. Returns how many failed again.

    JobFileError before the first one where it is not known what a job was asked for.
    """
    failures = 0
    asked = [_overrides(job, sweep) for job in jobs]
    for number, (job, given) in enumerate(zip(jobs, asked, strict=True), start=1):
        print(f"job {number} of {len(jobs)}: {job.folder}", flush=True)
        # No cluster divides what runs here.
        overrides = [item for item in given if not item.lstrip("+").startswith("resources")]
        where = [*overrides, "resources=whole_job", setting("hydra.run.dir", f"{sweep}/jobs/${{job_folder:}}")]
        done = subprocess.run([sys.executable, "-m", "aipo.command", "run", *where], check=False)
        failures += done.returncode != 0
    return failures


def _plain(text: str) -> str:
    return text.replace("[", "\\[")[:200]
