"""All trackers of a job as one, and the JSONL record that is always kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from aipo.jobs import JobRecord
from aipo.pipeline.trackers.tracker import Round, Tracker
from aipo.remote import redact

logger = logging.getLogger("aipo")


class JsonlTracker:
    """Writes every event as one line of `metrics.jsonl` in the job's folder."""

    def start(self, folder: Path, run: JobRecord) -> None:
        self._file = (folder / "metrics.jsonl").open("w", encoding="utf-8", buffering=1)

    def log(self, kind: Literal["train", "score"], metrics: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({"kind": kind, **metrics}) + "\n")

    def round(self, reached: Round) -> None:
        """Its scores are there by `log`."""

    def finish(self) -> None:
        self._file.close()


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

    def round(self, reached: Callable[[], Round]) -> None:
        """`reached` is asked only where a tracker wants to know."""
        if not self._optional:
            return
        try:
            found = reached()
        except Exception as error:  # what it reads must not cost the run either
            logger.warning("no tracker is told of this round: %s", redact(str(error)))
            return
        self._each("round", found)

    def finish(self) -> None:
        self._record.finish()
        self._each("finish")

    def _each(self, method: str, *arguments: Any) -> None:
        for tracker in list(self._optional):
            try:
                getattr(tracker, method)(*arguments)
            except Exception as error:  # a tracker must never cost a run
                self._optional.remove(tracker)
                logger.warning("%s failed and is switched off: %s", type(tracker).__name__, redact(str(error)))
