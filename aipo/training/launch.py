"""More than one process: torchrun as a child of this one, for as long as one training run lasts."""

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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aipo.models import PolicyRef
from aipo.records import Pair, read_parquet, write_parquet
from aipo.reference import ReferenceLogps

if TYPE_CHECKING:
    from aipo.train import Trainer
    from aipo.training.loop import Job

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 5.0  # a cluster signals every process; only a parent that was signalled alone has to tell its children


class WorkerError(RuntimeError):
    """A training process failed."""


def train_in_processes(
    settings: Trainer, job: Job, log: Callable[[Mapping[str, float]], None]
) -> dict[str, float | int]:
    """Run `job` under torchrun with `settings.processes` processes and pass its rows to `log` as they appear."""
    from aipo.training.preemption import Preemption

    folder = job.out / "launch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_job(folder, settings, job)
    metrics = job.out / "metrics.jsonl"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(settings.processes)),
        *("--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2"),
        *("-m", "aipo.training.worker", str(folder)),
    ]
    with Preemption() as preemption:
        child = subprocess.Popen(command, preexec_fn=_die_with_parent)
        tail = _Tail(metrics, folder / "started", log)
        told_at: float | None = None
        try:
            while child.poll() is None:
                tail.forward()
                if preemption.requested and told_at is None:
                    told_at = time.monotonic() + _GRACE_SECONDS
                if told_at is not None and time.monotonic() >= told_at:
                    child.send_signal(signal.SIGUSR2)
                    told_at = float("inf")
                time.sleep(_POLL_SECONDS)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
        tail.forward()
        if preemption.requested:
            preemption.pass_on()
    summary = folder / "summary.json"
    if child.returncode != 0 or not summary.exists():
        errors = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("error-*.txt")))
        raise WorkerError(
            f"training with {settings.processes} processes failed (torchrun exit status {child.returncode})"
            + (f":\n{errors}" if errors else "; see its output above")
        )
    result = json.loads(summary.read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    return result


def write_job(folder: Path, settings: Trainer, job: Job) -> None:
    """Everything a worker needs, as files."""
    spec = {
        "settings": dataclasses.asdict(settings),
        "policy": dataclasses.asdict(job.policy),
        "objective": dict(job.objective_config),
        "out": str(job.out.resolve()),
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


def _die_with_parent() -> None:
    """On Linux, have torchrun terminated when this process is killed: an orphan would go on writing into `out`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() == 1:
        os._exit(1)
