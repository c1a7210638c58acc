"""More than one process: torchrun as a child of this one, for as long as one stage lasts."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aipo.models import PolicyRef
from aipo.records import Pair, read_parquet, write_parquet
from aipo.reference import ReferenceLogps
from aipo.training.nodes import on_every_node
from aipo.training.preemption import Preemption, ignore_signal

if TYPE_CHECKING:
    from aipo.train import Trainer
    from aipo.training.loop import Job

RESULTS = {"train": "summary.json", "reference": "rows.parquet"}
"""What the main process of a task leaves in the job's folder."""
STOP = "stop"
"""The file there that asks the processes to save and stop."""

_POLL_SECONDS = 0.2


class WorkerError(RuntimeError):
    """A process failed."""


def train_in_processes(
    settings: Trainer, job: Job, log: Callable[[Mapping[str, float]], None]
) -> dict[str, float | int]:
    """Run `job` under torchrun with `settings.processes` processes and pass its rows to `log` as they appear."""
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
    settings: Trainer, policy: PolicyRef, pairs: Sequence[Pair], out: Path
) -> list[ReferenceLogps]:
    """The log-probs of `pairs` under `policy`, by `settings.processes` processes under torchrun."""
    from aipo.training.loop import Job

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
    folder: Path, settings: Trainer, task: Literal["train", "reference"], poll: Callable[[], None]
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
            f"{task} with {settings.processes} processes failed (exit status {child.returncode})"
            + (f":\n{errors}" if errors else "; see its output above")
        )
    return result


def _command(folder: Path, settings: Trainer, task: str) -> list[str]:
    torchrun = [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--nproc-per-node", str(settings.processes // settings.nodes)),
    ]
    worker = ["-m", "aipo.training.worker", task, str(folder)]
    if settings.nodes == 1:
        return [*torchrun, "--standalone", *worker]
    return on_every_node([*torchrun, *worker], settings.nodes)


def write_job(folder: Path, settings: Trainer, job: Job) -> None:
    """Everything a worker needs, as files."""
    spec = {
        "settings": dataclasses.asdict(settings),
        "policy": dataclasses.asdict(job.policy),
        "objective": dict(job.objective_config),
        "out": str(job.out.resolve()),  # every node sees the same folder
        "seed": job.seed,
    }
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    for name, rows in (
        ("pairs", job.pairs),
        ("reference", job.reference),
        ("evaluation_pairs", job.evaluation_pairs),
        ("evaluation_reference", job.evaluation_reference),
    ):
        if rows:
            write_parquet(folder / f"{name}.parquet", rows)


def read_job(folder: Path) -> tuple[Trainer, Job]:
    """What `write_job` wrote."""
    from aipo.train import Trainer
    from aipo.training.loop import Job
    from aipo.training.lora import Lora

    spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    if spec["settings"]["lora"] is not None:
        spec["settings"]["lora"] = Lora(**spec["settings"]["lora"])

    def rows(name: str, kind: Any) -> list[Any] | None:
        path = folder / f"{name}.parquet"
        return read_parquet(path, kind) if path.exists() else None

    job = Job(
        policy=PolicyRef(**spec["policy"]),
        pairs=rows("pairs", Pair) or [],
        reference=rows("reference", ReferenceLogps),
        objective_config=spec["objective"],
        out=Path(spec["out"]),
        seed=spec["seed"],
        evaluation_pairs=rows("evaluation_pairs", Pair) or [],
        evaluation_reference=rows("evaluation_reference", ReferenceLogps),
    )
    return Trainer(**spec["settings"]), job


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
