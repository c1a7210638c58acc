"""Jobs of a sweep beside each other on one machine: each a process of its own, as many at once as there are cores for.

The processes end with this one, however it ends, and each says in its `run.json` what became of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from aipo.pipeline.cluster.snapshot import Asked
from aipo.pipeline.composer import Combination
from aipo.pipeline.console import Place, overrides_shown
from aipo.pipeline.ends import EndsWhenTold, Terminated
from aipo.records import to_row

WORKER = "aipo.command.job"
"""The module that runs one of the jobs, which it reads from stdin."""
SMALL = "miniature"
"""How the models begin of which many fit into a machine: a job of theirs takes a thread and less than a GiB."""
JOB_GIB = 1.0
POLL_SECONDS = 0.05
BASIC = "BasicLauncher"


def jobs_at_once(jobs: Sequence[Combination]) -> int:
    """How many of a sweep's jobs run at once here: `jobs_at_once`, or what suits them where that is null.

    That is one for each core and GiB where every job's model is the miniature's and there is no GPU; else 1, as a job
    may need the whole GPU or most of the memory. The jobs' numbers do not depend on it.
    """
    return _at_once(len(jobs), [job.config for job in jobs], [job.choices for job in jobs])


def _at_once(count: int, configs: Sequence[DictConfig], choices: Sequence[Mapping[str, str]]) -> int:
    if (asked := configs[0].get("jobs_at_once")) is not None:
        return min(count, int(asked))
    small = (str(chosen.get("model")).startswith(SMALL) and chosen.get("sampler") == "hf" for chosen in choices)
    if not all(small) or _has_gpu():
        return 1
    threads = max(int(config.cpu_threads) * int(config.trainer.processes) for config in configs)
    return max(1, min(count, cores() // threads, int(_memory_gib() / JOB_GIB)))


class Workers:
    """Processes that load a job's code and wait for the job: that takes a second, in which the sweep is checked.

    A context manager: at its end those that wait in vain are sent home, which a killed parent does as well.
    """

    def __init__(self, count: int) -> None:
        self._waiting = [_start() for _ in range(count)]

    @classmethod
    def expected(cls, sweep: DictConfig, count: int) -> Workers:
        """As many as a sweep of so many jobs is going to start at once, by what it says before its jobs are composed.

        `sweep`: its config, not checked yet, with Hydra's own. None for one that runs elsewhere, one by one, or not.
        """
        try:
            here = not (sweep.plan or sweep.get("detach")) and sweep.hydra.launcher._target_.endswith(f".{BASIC}")
            at_once = _at_once(count, [sweep], [sweep.hydra.runtime.choices]) if here else 1
        except (OmegaConfBaseException, ValueError, TypeError, ArithmeticError):
            at_once = 1  # the check says what is wrong
        return cls(min(at_once, cores()) if at_once > 1 else 0)

    def give(self, job: Asked, place: Place) -> subprocess.Popen[bytes]:
        """Have one run a job, a fresh one where none waits."""
        _dismiss(died := [process for process in self._waiting if process.poll() is not None])
        self._waiting = [process for process in self._waiting if process not in died]
        process = self._waiting.pop(0) if self._waiting else _start()
        assert process.stdin is not None
        text = json.dumps({"job": to_row(job), "place": vars(place)})
        with suppress(BrokenPipeError), process.stdin:  # it has died: its status says that
            process.stdin.write(text.encode("utf-8", "surrogatepass"))
        return process

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _dismiss(self._waiting)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(jobs: Sequence[Asked], at_once: int, workers: Workers) -> int:
    """Run the jobs, at most so many at a time, in their order. Returns the exit status: 0 when all are done.

    A job that fails does not stop the others. Ctrl-C and what else ends this process ends the jobs first.
    """
    waiting = list(enumerate(jobs, start=1))
    running: list[subprocess.Popen[bytes]] = []
    statuses: list[int] = []
    try:
        with EndsWhenTold():
            while waiting or running:
                while waiting and len(running) < at_once:
                    number, job = waiting.pop(0)
                    place = Place(number, len(jobs), True, overrides_shown(list(job.overrides)))
                    running.append(workers.give(job, place))
                time.sleep(POLL_SECONDS)
                found = [(process, process.poll()) for process in running]  # asked once: it may end in between
                statuses += [status for _, status in found if status is not None]
                running = [process for process, status in found if status is None]
    except (KeyboardInterrupt, Terminated) as error:
        _end(running, signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.Signals[error.name])
        raise
    return 1 if any(statuses) else 0


def _start() -> subprocess.Popen[bytes]:
    # Modules are found where this process found them: `-m` alone would look into the current folder first.
    path = os.pathsep.join(dict.fromkeys(os.path.abspath(place) for place in sys.path))
    environment = os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": path}
    # A session of its own: Ctrl-C comes to this process alone, which passes it on once.
    return subprocess.Popen(
        [sys.executable, "-m", WORKER], stdin=subprocess.PIPE, env=environment, start_new_session=True
    )


def _dismiss(waiting: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in waiting:
        assert process.stdin is not None
        process.stdin.close()


def _end(running: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    """Tell the jobs to end, and wait until each has put its affairs in order. Told once more, end them by force."""
    for process in running:
        process.send_signal(number)
    try:
        for process in running:
            process.wait()
    except (KeyboardInterrupt, Terminated):
        for process in running:
            process.kill()
        raise


def read_job(text: bytes) -> tuple[Asked, Place]:
    """What a worker was given."""
    from aipo.records import from_row

    row: dict[str, Any] = json.loads(text.decode("utf-8", "surrogatepass"))
    place = Place(**{**row["place"], "details": tuple(row["place"]["details"])})
    return from_row(Asked, row["job"]), place


def _has_gpu() -> bool:
    """Told by the system's own files: to ask torch would take a second."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def _memory_gib() -> float:
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) / 2**30
