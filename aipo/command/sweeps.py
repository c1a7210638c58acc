"""What became of a sweep: how each of its jobs stands, and which of them to run again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from aipo.jobs import JobState, states

COLOURS = {"done": "green", "running": "cyan", "failed": "red", "lost": "red", "unreadable": "red"}
AGAIN = ("failed", "lost", "interrupted", "unreadable")
"""States of jobs that began and did not come to their end."""


def status_table(jobs: Sequence[JobState]) -> Table:
    """A row per job: where it stands, how far it came, and the last line of its error."""
    table = Table(box=None, pad_edge=False)
    for name in ("job", "state", "round", "of", "host", "started", "why"):
        table.add_column(name, overflow="fold" if name in ("job", "why") else "ellipsis")
    for job in jobs:
        record = job.record
        rounds = total = host = started = ""
        why = job.problem or ""
        if record is not None:
            rounds = str(sum(point.iteration >= 0 for point in record.points))
            total = str(record.settings.get("iteration", {}).get("iterations", ""))
            host, started = f"{record.host}:{record.pid}", record.started
            why = (record.error or "").strip().splitlines()[-1] if record.error else ""
        colour = COLOURS.get(job.state, "yellow")
        table.add_row(job.folder, f"[{colour}]{job.state}[/]", rounds, total, host, started, _plain(why))
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
        if watch_seconds is None or not any(job.state in ("running", "not started") for job in jobs):
            return
        time.sleep(watch_seconds)


def to_run_again(jobs: Iterable[JobState], *, failed: bool, missing: bool) -> list[JobState]:
    """The jobs that `rerun` starts: those that did not come to their end, and those that never began."""
    return [job for job in jobs if (failed and job.state in AGAIN) or (missing and job.state == "not started")]


def rerun(sweep: Path, jobs: Sequence[JobState]) -> int:
    """Run exactly these jobs, one after the other, into the same folders. Returns how many failed again."""
    failures = 0
    for number, job in enumerate(jobs, start=1):
        print(f"job {number} of {len(jobs)}: {job.folder}", flush=True)
        overrides = [item for item in job.overrides if not item.startswith(("sweep=", "hydra/launcher="))]
        where = [f"sweep={sweep.name}", f"hydra.run.dir={sweep}/jobs/${{job_folder:}}"]
        done = subprocess.run([sys.executable, "-m", "aipo.command", "run", *overrides, *where], check=False)
        failures += done.returncode != 0
    return failures


def _plain(text: str) -> str:
    return text.replace("[", "\\[")[:200]
