"""A small job on the real store and the real checkpoints, run in child processes that are killed or whose calls fail.

Everything is chosen by a seed. What a disturbed job leaves must be continued by the same job, and in the end hold the
same bytes as one that nobody disturbed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from aipo.artifacts import Artifact, StageReport, Store, StoreError, claims, garbage, points
from aipo.artifacts.claims import Claim, LockKind
from aipo.artifacts.garbage import Sweeps, carry_out, plan
from aipo.artifacts.inventory import Inventory
from aipo.training.checkpoint import CheckpointError, Checkpoints, MetricsFile

EXPECTED_ERROR = 3
"""Exit status of a child that ended with one of the errors that tell what to do."""
STEPS = 6
REPLIES = 8


def job(root: Path, lock: LockKind = "flock", remote: str | None = None) -> None:
    """Pool -> judgments (a journal) -> training (checkpoints) -> scores. Every stage checks its parents."""
    store = Store(root, lock, remote)

    def pool(folder: Path) -> StageReport:
        (folder / "pool.txt").write_text("prompt\n" * 50)
        return StageReport({"prompts": 50})

    def judgments(folder: Path) -> StageReport:
        path = folder / "journal.jsonl"
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            os.truncate(path, len(whole))
        with path.open("a") as file:
            for number in range(len(whole.splitlines()), REPLIES):
                file.write(json.dumps({"reply": number, "text": "paid for " * 5}) + "\n")
                file.flush()
        return StageReport({"judgments": REPLIES}, {"unscored": 1})

    def train(folder: Path) -> StageReport:
        checkpoints = Checkpoints(folder / "checkpoints", "this run")
        saved = checkpoints.load()
        done = 0 if saved is None else saved.step
        weight = torch.zeros(64)
        if saved is not None:
            saved.fill({"weight": weight})
        metrics = MetricsFile(folder / "metrics.jsonl", done)
        for step in range(done, STEPS):
            weight = weight * 0.9 + torch.randn(64, generator=torch.Generator().manual_seed(step))
            metrics.append({"step": step + 1, "loss": float(weight.norm())})
            checkpoints.save(step + 1, {"weight": weight}) if step + 1 < STEPS else None
        # As the trainer writes a policy: safetensors leaves a file of its own behind when it is killed while writing.
        partial = folder / "model.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        save_file({"weight": weight}, partial / "model.safetensors")
        shutil.rmtree(folder / "model", ignore_errors=True)
        partial.rename(folder / "model")
        return StageReport({"steps": len(metrics.rows)}, scratch=("checkpoints",))

    def scores(folder: Path) -> StageReport:
        (folder / "metrics.json").write_text(json.dumps({"rows": len((judged.path / "journal.jsonl").read_text())}))
        return StageReport({"score": 0.5})

    first = store.run("pool", version=1, config={}, parents={}, build=pool)
    parents = {"pool": first.fingerprint}
    judged = store.run("judgments", version=1, config={}, parents=parents, build=judgments, resumable=True)
    trained = store.run("train", version=1, config={}, parents=parents, build=train, resumable=True, verify=("pool",))
    parents = {"judgments": judged.fingerprint, "train": trained.fingerprint}
    store.run("scores", version=1, config={}, parents=parents, build=scores)


@dataclass(frozen=True)
class Fault:
    """What happens when `point` is reached for the `number`-th time, or, without a point, after `seconds`.

    `error` None: the process gets `signal_number`. "short" cuts the last 20 bytes of what was written, then ENOSPC.
    """

    point: str | None = None
    number: int = 1
    signal_number: int = signal.SIGKILL
    error: int | str | None = None
    seconds: float = 0.0

    def install(self) -> None:
        """In a child: let it happen."""
        if self.point is None:
            signal.setitimer(signal.ITIMER_REAL, self.seconds)  # nobody handles SIGALRM: the process ends there
            return
        seen: Counter[str] = Counter()

        def hook(point: str, path: Path | None) -> None:
            assert point in points.POINTS, point
            seen[point] += 1
            if point != self.point or seen[point] != self.number:
                return
            if self.error is None:
                os.kill(os.getpid(), self.signal_number)
            elif self.error == "short":
                os.truncate(path, max(0, path.stat().st_size - 20))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            else:
                raise OSError(self.error, os.strerror(self.error), str(path))

        points.hook = hook


class Child:
    """A forked process that runs `work` and exits with 0, `EXPECTED_ERROR`, or 1 with its traceback in `log`."""

    def __init__(
        self, work: Callable[[], None], log: Path, fault: Fault | None = None, lease_seconds: float = 0
    ) -> None:
        self.log = log
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            sys.stderr = os.fdopen(descriptor, "w")
            if lease_seconds:
                claims.LEASE_SECONDS, claims._POLL_SECONDS = lease_seconds, 0.02
            if fault is not None:
                fault.install()
            work()
            status = 0
        except (StoreError, CheckpointError) as error:
            print(error, file=sys.stderr)
            status = EXPECTED_ERROR
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def wait(self, seconds: float = 60.0) -> int:
        """Its exit status, negative for a signal. A child that hangs is killed and raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"process {self.pid} did not end; a lock is stuck? {self.log.read_text()}")
            time.sleep(0.002)

    def wait_until_stopped(self) -> bool:
        """True when the child stopped, False when it ended instead."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        return os.WIFSTOPPED(status)


def state(root: Path) -> dict[str, str]:
    """SHA-256 of every file of every artifact; of a manifest, what does not depend on machine and time."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        if name.startswith("."):
            continue
        content = path.read_bytes()
        if path.name == "manifest.json":
            manifest = json.loads(content)
            names = ("stage", "fingerprint", "version", "config", "parents", "counts", "dropped", "files", "scratch")
            content = json.dumps([manifest[name] for name in names]).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def leftovers(root: Path, results: Path, lock: LockKind) -> list[str]:
    """What is neither an artifact nor needed, after gc."""
    results.mkdir(exist_ok=True)
    garbage._CHANGING_HANDS_SECONDS = 0  # as if ten minutes had passed
    store = Inventory.of(root)
    record = results / "run.json"
    record.write_text(json.dumps({"status": "done", "points": [], "named": list(store.entries)}))
    carry_out(store, plan(store, Sweeps.of(results)), lock)
    after = Inventory.of(root)
    assert after.entries.keys() == store.entries.keys()
    return [str(path) for path in (*after.partials, *after.locks, *after.aside)]


def check_end(root: Path, expected: dict[str, str], lock: LockKind) -> None:
    """The bytes are those of an undisturbed job, every artifact verifies, no lock is held, gc leaves nothing over."""
    assert state(root) == expected
    for entry in Inventory.of(root).entries.values():
        Artifact(entry.artifact.stage, entry.artifact.fingerprint, entry.artifact.path).verify()
        claim = Claim(root, entry.artifact.stage, entry.artifact.fingerprint, lock)
        assert claim.acquire(wait=False), f"{claim.path} is stuck"
        claim.release()
    over = leftovers(root, root.parent / "results", lock)
    assert over == [], f"left over: {over}"


def reached_points(root: Path, lock: LockKind = "flock") -> Counter[str]:
    """How often an undisturbed job reaches each point."""
    seen: Counter[str] = Counter()
    points.hook = lambda point, path: seen.update([point])
    try:
        job(root, lock)
    finally:
        points.hook = None
    return seen
