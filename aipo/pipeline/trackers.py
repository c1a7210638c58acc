"""Where a run's numbers go while it runs. The JSONL record is always kept; others may fail without stopping a run."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from aipo.jobs import JobRecord
from aipo.records import to_row

logger = logging.getLogger("aipo")


class Tracker(Protocol):
    """Receives the metrics of one job."""

    def start(self, folder: Path, run: JobRecord) -> None:
        """The job begins; `folder` is its own."""
        ...

    def log(self, kind: Literal["train", "score"], metrics: Mapping[str, Any]) -> None:
        """One training step, or one benchmark's metrics; `metrics` carries its iteration."""
        ...

    def finish(self) -> None:
        """The job ends."""
        ...


class JsonlTracker:
    """Writes every event as one line of `metrics.jsonl` in the job's folder."""

    def start(self, folder: Path, run: JobRecord) -> None:
        self._file = (folder / "metrics.jsonl").open("w", encoding="utf-8", buffering=1)

    def log(self, kind: Literal["train", "score"], metrics: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({"kind": kind, **metrics}) + "\n")

    def finish(self) -> None:
        self._file.close()


class WandbTracker:
    """Weights & Biases, offline unless told otherwise. The API key comes from WANDB_API_KEY alone."""

    def __init__(self, project: str = "aipo", mode: Literal["offline", "online"] = "offline") -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f"mode must be offline or online, got {mode!r}")
        self.project = project
        self.mode = mode
        self._run: Any = None
        self._step = 0

    def start(self, folder: Path, run: JobRecord) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        if self.mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it resolves a host otherwise
        import wandb

        name = f"{run.objective}-seed{run.seed}"
        settings = wandb.Settings(console="off", x_disable_stats=self.mode == "offline", x_disable_meta=True)
        self._run = wandb.init(
            project=self.project, mode=self.mode, dir=folder, name=name, config=to_row(run), settings=settings
        )

    def log(self, kind: Literal["train", "score"], metrics: Mapping[str, Any]) -> None:
        if kind == "score":
            benchmark, name = metrics["benchmark"], metrics["name"]
            numbers = {f"score/{benchmark}/{name}": metrics["value"], "iteration": metrics["iteration"]}
        else:
            numbers = {f"train/{key}": value for key, value in metrics.items() if isinstance(value, int | float)}
        self._run.log(numbers, step=self._step)
        self._step += 1

    def finish(self) -> None:
        if self._run is not None:
            self._run.finish()


class Trackers:
    """All trackers of a job. One that raises is reported once and dropped; the run goes on."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._record = JsonlTracker()
        self._optional = list(trackers)

    def start(self, folder: Path, run: JobRecord) -> None:
        self._record.start(folder, run)
        self._each("start", folder, run)

    def log(self, kind: Literal["train", "score"], metrics: Mapping[str, Any]) -> None:
        self._record.log(kind, metrics)
        self._each("log", kind, metrics)

    def finish(self) -> None:
        self._record.finish()
        self._each("finish")

    def _each(self, method: str, *arguments: Any) -> None:
        for tracker in list(self._optional):
            try:
                getattr(tracker, method)(*arguments)
            except Exception as error:  # a tracker must never cost a run
                self._optional.remove(tracker)
                logger.warning("%s failed and is switched off: %s", type(tracker).__name__, error)
