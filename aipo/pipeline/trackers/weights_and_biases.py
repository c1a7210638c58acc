"""Weights & Biases: the full config, one run per job under the sweep's group, one row per round."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from aipo.jobs import JobRecord
from aipo.pipeline.trackers.tracker import Round, run_id, step_row, sweep_of
from aipo.records import to_row
from aipo.remote.redaction import redacted

COLUMNS: list[str | int] = ["round", "benchmark", "question", "answer", "tokens", "value"]


class WandbTracker:
    """Weights & Biases, offline unless told otherwise. The API key comes from WANDB_API_KEY alone.

    A job that goes on after a kill keeps its run's id. Offline its file is then written anew, whole, in place of the
    one cut short; online the rows that the server has are not sent again.
    """

    def __init__(self, project: str = "aipo", mode: Literal["offline", "online"] = "offline") -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f"mode must be offline or online, got {mode!r}")
        self.project = project
        self.mode = mode
        self._run: Any = None
        self._step = 0
        self._rounds: list[Round] = []
        self._axes: list[tuple[str, str, str]] = []

    def start(self, folder: Path, run: JobRecord) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        if self.mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it resolves a host otherwise
        import wandb

        name = run_id(folder)
        if self.mode == "offline":
            for former in (folder / "wandb").glob(f"offline-run-*-{name}"):
                shutil.rmtree(former)
        self._axes = [(one.name, one.length_metric, one.primary_metric) for one in run.benchmarks]
        self._run = wandb.init(
            project=self.project,
            mode=self.mode,
            dir=folder,
            id=name,
            resume="allow" if self.mode == "online" else None,
            name=f"{run.objective}-seed{run.seed}",
            group=sweep_of(folder),
            job_type=run.model,
            tags=[run.objective, run.data],
            config=redacted(to_row(run)),
            settings=wandb.Settings(console="off", x_disable_stats=self.mode == "offline", x_disable_meta=True),
        )
        for axis, names in (("round", ("score/*", "kl/*", "pairs/*")), ("train/total_step", ("train/*",))):
            self._run.define_metric(axis, hidden=True)
            for metric in names:
                self._run.define_metric(metric, step_metric=axis)

    def log(self, kind: Literal["train", "score"], metrics: Mapping[str, Any]) -> None:
        if kind == "train":
            self._send({**step_row(metrics), "train/total_step": self._step})

    def round(self, reached: Round) -> None:
        import wandb

        self._rounds.append(reached)
        rows = [
            [reached.number, one.benchmark, one.question_id, one.answer, one.n_tokens, one.value]
            for one in reached.samples
        ]
        self._send({**reached.row, "samples": wandb.Table(columns=COLUMNS, data=rows)})

    def finish(self) -> None:
        if self._run is not None:
            self._draw()
            self._run.finish()

    def _send(self, row: dict[str, Any]) -> None:
        if self._step >= self._run.starting_step:
            self._run.log(row, step=self._step)
        self._step += 1

    def _draw(self) -> None:
        """Length against score, a point per round, for each benchmark."""
        import wandb

        plots = {}
        for benchmark, length, score in self._axes:
            names = [f"score/{benchmark}/{metric}" for metric in (length, score)]
            rows = [[one.number, *(one.numbers[name] for name in names)] for one in self._rounds if _has(one, names)]
            table = wandb.Table(columns=["round", length, score], data=rows)
            plots[f"length_vs_score/{benchmark}"] = wandb.plot.scatter(table, length, score, title=benchmark)
        if plots:
            self._send(plots)


def _has(reached: Round, names: list[str]) -> bool:
    return all(name in reached.numbers for name in names)
