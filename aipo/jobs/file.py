"""How a job keeps its `run.json` up to date while it runs, and shows that it lives."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from aipo.jobs.record import FILE, JobFileError, JobRecord, Point, Status, read_job
from aipo.records import to_row
from aipo.remote.redaction import redacted

HEARTBEAT = "heartbeat"
"""A file beside `run.json` whose time is renewed while the job lives."""
HEARTBEAT_SECONDS = 15.0
DEAD_AFTER_SECONDS = 120.0


class JobFile:
    """Keeps `run.json` up to date while its job runs, whole after every change, and its heartbeat alive.

    What an earlier start of the same job reached stays in it until this one has come as far: whatever ends this start
    before, the sweep's tables still have what there was.

    As a context manager it renews the heartbeat, so that a reader can tell a running job from one that was killed.
    """

    def __init__(self, folder: Path, record: JobRecord) -> None:
        self.folder = folder
        self.record = replace(
            record,
            started=_now(),
            host=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            pid=os.getpid(),
            scheduler_id=slurm_id(),
            restarts=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
        )
        self._earlier = _earlier(folder, self.record)
        self._ended = threading.Event()
        self._write()

    def add(self, point: Point) -> None:
        """A policy was evaluated."""
        self.record = replace(self.record, points=(*self.record.points, point))
        self._write()

    def finish(self, status: Status, error: str | None = None) -> None:
        """The job ended."""
        self.record = replace(self.record, status=status, error=error, ended=_now())
        self._write()

    def _write(self) -> None:
        mine, earlier = self.record, self._earlier
        if earlier is not None and mine.status != "done" and len(mine.points) < len(earlier.points):
            mine = replace(
                mine,
                points=earlier.points,
                store=earlier.store,
                provenance=earlier.provenance,
                rounds_again=mine.rounds,
            )
        _write(self.folder, mine)

    def __enter__(self) -> JobFile:
        beat = self.folder / HEARTBEAT
        beat.touch()

        def keep_alive() -> None:
            while not self._ended.wait(HEARTBEAT_SECONDS):
                try:
                    beat.touch()
                except OSError:  # a full or vanished disk stops the job where it writes, not here
                    pass

        threading.Thread(target=keep_alive, daemon=True, name="heartbeat").start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        (self.folder / HEARTBEAT).unlink(missing_ok=True)


def mark(folder: Path, status: Status, error: str) -> None:
    """Say of a job that has ended, by the process that ran it, what became of it after all."""
    _write(folder, replace(read_job(folder), status=status, error=error))


def is_alive(folder: Path) -> bool:
    """Whether a job that says `running` still does: its heartbeat was renewed within the last two minutes."""
    try:
        age = time.time() - (folder / HEARTBEAT).stat().st_mtime
    except OSError:
        return False
    return age < DEAD_AFTER_SECONDS


def slurm_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """The number of the Slurm job that this process belongs to, `<array>_<task>` in an array; None outside Slurm."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")


def _earlier(folder: Path, record: JobRecord) -> JobRecord | None:
    """What is known of an earlier start of the same job; None where there was none, or its record is unreadable."""
    try:
        found = read_job(folder)
    except JobFileError:
        return None
    written = json.loads(json.dumps(redacted(to_row(record))["settings"]))
    return found if found.settings == written else None


def _write(folder: Path, record: JobRecord) -> None:
    path = folder / FILE
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(redacted(to_row(record)), indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, path)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
