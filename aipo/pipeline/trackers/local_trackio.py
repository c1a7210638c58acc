"""trackio: W&B's calls into an SQLite file on this machine, without an account; `trackio show` opens it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from aipo.jobs import JobRecord
from aipo.pipeline.trackers.tracker import Round, run_id, step_row, sweep_of
from aipo.records import to_row
from aipo.remote.redaction import redacted


class TrackioTracker:
    """Rows go where trackio keeps them, which the environment variable TRACKIO_DIR may change.

    A job that goes on after a kill is the same run; rows that are there already are not written again.
    """

    def __init__(self, project: str = "aipo") -> None:
        self.project = project
        self._run: Any = None
        self._step = 0
        self._there = -1

    def missing(self) -> list[str]:
        """What is not installed."""
        from importlib.util import find_spec

        return [] if find_spec("trackio") else ["the package trackio: pip install 'aipo[trackio]'"]

    def start(self, folder: Path, run: JobRecord) -> None:
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        name = run_id(folder)
        there = SQLiteStorage.get_max_step_for_run(self.project, name)
        self._there = -1 if there is None else int(there)
        quiet: dict[str, Any] = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        config = redacted(to_row(run))
        self._run = trackio.init(
            self.project, name=name, group=sweep_of(folder), config=config, resume="allow", **quiet
        )

    def log(self, kind: Literal["train", "score"], metrics: Mapping[str, Any]) -> None:
        if kind == "train":
            self._write(step_row(metrics))

    def round(self, reached: Round) -> None:
        import trackio
        from pandas import DataFrame

        rows = [{"round": reached.number, **to_row(one)} for one in reached.samples]
        self._write({**reached.row, "samples": trackio.Table(dataframe=DataFrame(rows))})

    def finish(self) -> None:
        if self._run is not None:
            self._run.finish()

    def _write(self, row: dict[str, Any]) -> None:
        if self._step > self._there:
            self._run.log(row, step=self._step)
        self._step += 1
