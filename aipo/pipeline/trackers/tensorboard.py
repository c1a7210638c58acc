"""TensorBoard: scalars by round and by training step, and samples as text."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from aipo.jobs import JobRecord
from aipo.pipeline.trackers.tracker import Round, step_row
from aipo.records import to_row
from aipo.remote.redaction import redacted

FOLDER = "tensorboard"


class TensorBoardTracker:
    """Event files in `<job>/tensorboard`: `tensorboard --logdir results/<sweep>` shows all jobs of a sweep.

    A job that goes on after a kill tells everything again, so its event files are written anew.
    """

    def __init__(self) -> None:
        self._writer: Any = None
        self._step = 0

    def missing(self) -> list[str]:
        """What is not installed."""
        from importlib.util import find_spec

        return [] if find_spec("tensorboard") else ["the package tensorboard: pip install 'aipo[tensorboard]'"]

    def start(self, folder: Path, run: JobRecord) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        self._writer = SummaryWriter(str(folder / FOLDER))
        config = json.dumps(redacted(to_row(run)), indent=1, ensure_ascii=False)
        self._writer.add_text("config", f"<pre>{html.escape(config)}</pre>", 0)

    def log(self, kind: Literal["train", "score"], metrics: Mapping[str, Any]) -> None:
        if kind == "train":
            for name, value in step_row(metrics).items():
                self._writer.add_scalar(name, value, self._step)
            self._step += 1

    def round(self, reached: Round) -> None:
        for name, value in reached.row.items():
            if isinstance(value, int | float) and name != "round":
                self._writer.add_scalar(name, value, reached.number)
        for one in reached.samples:
            text = f"<pre>{html.escape(one.answer)}</pre>"
            self._writer.add_text(f"samples/{one.benchmark}/{one.question_id}", text, reached.number)
        self._writer.flush()

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
