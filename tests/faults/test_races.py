"""Many processes want the same artifact while its owner is stopped, killed and woken."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from fault_harness import Child

from aipo.artifacts import StageReport, Store, claims
from aipo.artifacts.claims import Claim, LockKind
from aipo.artifacts.manifest import Artifact

ROWS = 40
LEASE_SECONDS = 0.4
ARGUMENTS = {"version": 1, "config": {}, "parents": {}}


def write_rows(folder: Path) -> StageReport:
    """Not resumable: 40 rows through an open file, 40 by name, each signed by its writer, in a tenth of a second."""
    with (folder / "open.txt").open("w") as file:
        for _ in range(ROWS):
            file.write(f"{os.getpid()}\n")
            file.flush()
            with (folder / "named.txt").open("a") as other:
                other.write(f"{os.getpid()}\n")
            time.sleep(0.0025)
    return StageReport({"rows": ROWS})


def append_rows(folder: Path) -> StageReport:
    """Resumable: a journal that goes on where it was left."""
    path = folder / "journal.txt"
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        os.truncate(path, len(whole))
    with path.open("a") as file:
        for number in range(len(whole.splitlines()), ROWS):
            file.write(f"{number}\n")
            file.flush()
            time.sleep(0.0025)
    return StageReport({"rows": ROWS})


def work(root: Path, lock: LockKind) -> None:
    store = Store(root, lock)
    store.run("fresh", build=write_rows, **ARGUMENTS)
    store.run("resumed", build=append_rows, resumable=True, **ARGUMENTS)


def race(rng: random.Random, folder: Path, lock: LockKind, processes: int = 8) -> dict[str, int]:
    """One race; asserts that both artifacts are whole and one process's. Returns what was done to their owners."""
    done = {"stopped": 0, "killed": 0, "woken": 0}
    root = folder / "store"
    children = [
        Child(lambda: work(root, lock), folder / f"log{number}", lease_seconds=LEASE_SECONDS)
        for number in range(processes)
    ]
    living = {child.pid: child for child in children}
    stopped: dict[int, float] = {}
    killed: set[int] = set()
    ends = time.monotonic() + 60
    while living and time.monotonic() < ends:
        time.sleep(rng.uniform(0.01, 0.1))
        now = time.monotonic()
        for pid in [pid for pid, wake in stopped.items() if wake < now]:
            os.kill(pid, signal.SIGCONT)
            del stopped[pid]
            done["woken"] += 1
        for pid in list(living):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del living[pid]
                stopped.pop(pid, None)
                code = os.waitstatus_to_exitcode(status)
                log = next(child.log for child in children if child.pid == pid)
                assert code == 0 or pid in killed, log.read_text()
        owner = _owner(root, lock)
        if owner in living and owner not in stopped and owner not in killed and rng.random() < 0.5:
            if rng.random() < 0.4 and len(killed) < processes - 2:
                os.kill(owner, signal.SIGKILL)
                killed.add(owner)
                done["killed"] += 1
            elif done["stopped"] < 3:
                os.kill(owner, signal.SIGSTOP)
                stopped[owner] = time.monotonic() + rng.choice([0.1, 0.6, 1.2])
                done["stopped"] += 1
    for pid in living:
        os.kill(pid, signal.SIGKILL)
    assert not living, "processes hang"
    _check(root)
    return done


def _owner(root: Path, lock: LockKind) -> int | None:
    for stage in ("resumed", "fresh"):
        for path in (root / ".locks").glob(f"{stage}-*.lock"):
            if (root / stage / path.stem.rpartition("-")[2]).exists():
                continue
            said = Claim(root, stage, path.stem.rpartition("-")[2], lock).owner().split()
            if said[0] == "process":
                return int(said[1])
    return None


def _check(root: Path) -> None:
    for stage in ("fresh", "resumed"):
        (path,) = [path for path in (root / stage).iterdir() if "." not in path.name]
        assert Artifact(stage, path.name, path).verify()["counts"] == {"rows": ROWS}
    fresh = root / "fresh"
    (folder,) = [path for path in fresh.iterdir() if "." not in path.name]
    writers = (folder / "open.txt").read_text().split() + (folder / "named.txt").read_text().split()
    assert len(writers) == 2 * ROWS and len(set(writers)) == 1, f"mixed: {writers}"
    (folder,) = [path for path in (root / "resumed").iterdir() if "." not in path.name]
    assert (folder / "journal.txt").read_text().split() == [str(number) for number in range(ROWS)]


@pytest.mark.parametrize("lock", ["flock", "lease"])
def test_a_race_with_stopped_and_killed_owners(tmp_path: Path, lock: LockKind) -> None:
    race(random.Random(3), tmp_path, lock, processes=4)


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["flock", "lease"])
def test_races(tmp_path: Path, lock: LockKind, capsys) -> None:
    totals: dict[str, int] = {}
    for seed in range(50):
        folder = tmp_path / str(seed)
        folder.mkdir()
        for what, count in race(random.Random(seed), folder, lock).items():
            totals[what] = totals.get(what, 0) + count
    with capsys.disabled():
        print(f"\nraces of 8 processes, {lock}: 50, owners {json.dumps(totals)}, 0 mixed artifacts, 0 stuck")


def test_what_a_woken_owner_still_writes_into_is_cleared(tmp_path: Path) -> None:
    """It adds files to its folder while its successor removes that: they are gone, and it is told so."""
    claim = Claim(tmp_path, "fresh", "0" * 16, "lease")
    left = claim.final.with_name(f"{claim.digest}.partial-{socket.gethostname()}-1-{'a' * 8}")
    left.mkdir(parents=True)
    for number in range(200):
        (left / f"{number}.txt").touch()
    told = []

    def write() -> None:
        try:
            for number in range(10**6):
                (left / f"more{number}.txt").touch()
        except FileNotFoundError as error:
            told.append(error)

    owner = threading.Thread(target=write, daemon=True)
    owner.start()
    with claim:
        assert claim.take_over(resumable=False) is False
        owner.join(10)
        assert told and [path.name for path in claim.final.parent.iterdir()] == [claim.folder.name]
        assert list(claim.folder.iterdir()) == []


@pytest.mark.parametrize("lock", ["flock", "lease"])
def test_a_lock_that_a_kill_left_empty_is_taken(tmp_path: Path, lock: LockKind, monkeypatch) -> None:
    """A process can die after it made the lock's file and before it wrote its name there."""
    monkeypatch.setattr(claims, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(claims, "_POLL_SECONDS", 0.05)
    claim = Claim(tmp_path, "fresh", "0" * 16, lock)
    claim.path.parent.mkdir(parents=True)
    claim.path.touch()
    child = Child(lambda: claim.acquire(wait=True) and claim.release(), tmp_path / "log")
    assert child.wait(seconds=10) == 0
