"""More than one process: torchrun as a child of this one, for as long as one stage lasts."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aipo.models.policy import PolicyRef
from aipo.records import Pair, ReferenceLogps, read_parquet
from aipo.training.job import write_job
from aipo.training.processes.nodes import on_every_node
from aipo.training.processes.preemption import Preemption, ignore_signal

if TYPE_CHECKING:
    from aipo.training.job import Job
    from aipo.training.settings import TrainingSettings

RESULTS = {"train": "summary.json", "reference": "rows.parquet"}
"""What the main process of a task leaves in the job's folder."""
STOP = "stop"
"""The file there that asks the processes to save and stop."""

_POLL_SECONDS = 0.2


class WorkerError(RuntimeError):
    """A process failed."""


def train_in_processes(
    settings: TrainingSettings, job: Job, log: Callable[[Mapping[str, float]], None]
) -> dict[str, float | int]:
    """Run `job` under torchrun with `settings.world_size` processes and pass its rows to `log` as they appear."""
    folder = _new_folder(job.out)
    write_job(folder, settings, job)
    tail = _Tail(job.out / "metrics.jsonl", folder / "started", log)

    with Preemption() as preemption:

        def poll() -> None:
            tail.forward()
            if preemption.requested:
                (folder / STOP).touch()

        try:
            result = _run_workers(folder, settings, "train", poll)
        finally:
            if preemption.requested:
                preemption.pass_on()
    summary = json.loads(result.read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    return summary


def reference_in_processes(
    settings: TrainingSettings, policy: PolicyRef, pairs: Sequence[Pair], out: Path
) -> list[ReferenceLogps]:
    """The log-probs of `pairs` under `policy`, by `settings.world_size` processes under torchrun."""
    from aipo.training.job import Job

    folder = _new_folder(out)
    write_job(folder, settings, Job(policy, pairs, None, {}, out, 0))
    rows = read_parquet(_run_workers(folder, settings, "reference", lambda: None), ReferenceLogps)
    shutil.rmtree(folder)
    return rows


def _new_folder(out: Path) -> Path:
    folder = out / "launch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _run_workers(
    folder: Path, settings: TrainingSettings, task: Literal["train", "reference"], poll: Callable[[], None]
) -> Path:
    """Start the processes and wait for them, calling `poll` meanwhile. Returns the file the main one left."""
    child = subprocess.Popen(_command(folder, settings, task), preexec_fn=_prepare_child)
    try:
        while child.poll() is None:
            poll()
            time.sleep(_POLL_SECONDS)
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    poll()
    result = folder / RESULTS[task]
    if child.returncode != 0 or not result.exists():
        errors = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("error-*.txt")))
        raise WorkerError(
            f"{task} with {settings.world_size} processes failed (exit status {child.returncode})"
            + (f":\n{errors}" if errors else "; see its output above")
        )
    return result


def _command(folder: Path, settings: TrainingSettings, task: str) -> list[str]:
    torchrun = [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--nproc-per-node", str(settings.world_size // settings.nodes)),
    ]
    worker = ["-m", "aipo.training.worker", task, str(folder)]
    if settings.nodes == 1:
        return [*torchrun, "--standalone", *worker]
    return on_every_node([*torchrun, *worker], settings.nodes)


class _Tail:
    """Passes on complete lines of a file that another process writes, once that process has begun to."""

    def __init__(self, path: Path, started: Path, log: Callable[[Mapping[str, float]], None]) -> None:
        self.path, self.started, self.log = path, started, log
        self.offset = 0

    def forward(self) -> None:
        if not self.started.exists():  # until then the file holds what a killed run left
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        complete = text[: text.rfind(b"\n") + 1]
        self.offset += len(complete)
        for line in complete.splitlines():
            self.log(json.loads(line))


def _prepare_child() -> None:
    """On Linux, have torchrun terminated when this process is killed: an orphan would go on writing into `out`."""
    ignore_signal()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() == 1:
        os._exit(1)
