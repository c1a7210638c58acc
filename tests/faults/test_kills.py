"""Processes killed at every registered point and at random times, and every call failing once."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from fault_harness import EXPECTED_ERROR, Child, Fault, check_end, job, reached_points, state

from aipo.artifacts.points import POINTS

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
SHORT = ("manifest.written", "checkpoint.written", "metrics.appended", "data.sync")
"""Points where a file was just written, by the store or by the build."""
NOT_IN_A_FIRST_RUN = {"partial.take_over", "partial.copied", "partial.clear", "aside.move", "artifact.restore"}
NOT_IN_A_FIRST_RUN |= {point for point in POINTS if point.startswith("remote.")}  # tests/artifacts


class Undisturbed:
    """What the job leaves, how long it takes and which points it reaches when nothing happens."""

    def __init__(self, folder: Path) -> None:
        self.points = reached_points(folder / "store")
        self.state = state(folder / "store")
        started = time.perf_counter()
        assert Child(lambda: job(folder / "again"), folder / "log").wait() == 0
        self.seconds = time.perf_counter() - started
        assert state(folder / "again") == self.state


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"))


def trial(folder: Path, faults: list[Fault], undisturbed: Undisturbed, lock: str = "flock") -> list[int]:
    """A job disturbed by each fault in turn, then left alone. The exit statuses of the disturbed ones."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    statuses = []
    lease_seconds = 0.5 if lock == "lease" else 0
    for fault in faults:
        child = Child(lambda: job(folder / "store", lock), folder / "log", fault, lease_seconds)
        status = child.wait()
        assert status != 1, f"{fault}: {child.log.read_text()}"
        statuses.append(status)
    child = Child(lambda: job(folder / "store", lock), folder / "log", None, lease_seconds)
    status = child.wait()
    assert status == 0, f"after {faults}: {child.log.read_text()}"
    check_end(folder / "store", undisturbed.state, lock)
    return statuses


def test_every_point_of_a_first_run_is_registered_and_reached(undisturbed: Undisturbed) -> None:
    assert set(undisturbed.points) == set(POINTS) - NOT_IN_A_FIRST_RUN


@pytest.mark.parametrize("point", ["manifest.replace", "checkpoint.replaced", "artifact.rename", "scratch.remove"])
def test_a_kill_costs_no_finished_work(undisturbed: Undisturbed, tmp_path: Path, point: str) -> None:
    """The points that poisoned artifacts once, each at its last time."""
    last = undisturbed.points[point]
    assert trial(tmp_path / "trial", [Fault(point, last), Fault(point, 1)], undisturbed)[0] == -signal.SIGKILL


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES, "short"])
def test_a_full_or_closed_disk_is_one_clear_error(undisturbed: Undisturbed, tmp_path: Path, error) -> None:
    assert trial(tmp_path / "trial", [Fault("manifest.written", 2, error=error)], undisturbed) == [EXPECTED_ERROR]
    said = (tmp_path / "trial" / "log").read_text()
    assert "manifest.json.tmp" in said and "run the same command again" in said


def test_random_kills_quick(undisturbed: Undisturbed, tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(8):
        trial(tmp_path / "trial", _random_faults(rng, undisturbed), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["flock", "lease"])
def test_kills_at_every_point(undisturbed: Undisturbed, tmp_path: Path, lock: str, capsys) -> None:
    """Every registered point at every time it is reached, by SIGKILL and SIGTERM, and again while recovering."""
    killed = trials = 0
    for point, times in sorted(undisturbed.points.items()):
        for number in range(1, times + 1):
            for signal_number in (signal.SIGKILL, signal.SIGTERM):
                faults = [Fault(point, number, signal_number)]
                statuses = trial(tmp_path / "trial", faults, undisturbed, lock)
                trials, killed = trials + 1, killed + sum(status < 0 for status in statuses)
    for point in sorted(set(undisturbed.points) | {"partial.take_over", "partial.clear"}):
        for first in ("manifest.replace", "artifact.rename", "checkpoint.replaced", "data.sync"):
            faults = [Fault(first, 2), Fault(point, 1), Fault(point, 2)]
            statuses = trial(tmp_path / "trial", faults, undisturbed, lock)
            trials, killed = trials + 1, killed + sum(status < 0 for status in statuses)
    with capsys.disabled():
        print(f"\nkills at points, {lock}: {trials} trials, {killed} kills, 0 differing, poisoned, stuck or left over")


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["flock", "lease"])
def test_random_kills(undisturbed: Undisturbed, tmp_path: Path, lock: str, capsys) -> None:
    rng = random.Random(1)
    killed = 0
    for _ in range(250):
        statuses = trial(tmp_path / "trial", _random_faults(rng, undisturbed), undisturbed, lock)
        killed += sum(status < 0 for status in statuses)
    with capsys.disabled():
        print(f"\nrandom kills, {lock}: 250 trials, {killed} kills, 0 differing, poisoned, stuck or left over")


@pytest.mark.slow
def test_every_call_fails_once(undisturbed: Undisturbed, tmp_path: Path, capsys) -> None:
    trials = errors = 0
    for point, times in sorted(undisturbed.points.items()):
        for number in range(1, times + 1):
            for error in (*ERRORS, "short") if point in SHORT else ERRORS:
                (status,) = trial(tmp_path / "trial", [Fault(point, number, error=error)], undisturbed)
                trials, errors = trials + 1, errors + (status == EXPECTED_ERROR)
    with capsys.disabled():
        print(f"\nfailing calls: {trials} trials, {errors} ended with a clear error, all continued to the same bytes")


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["flock", "lease"])
def test_a_stopped_owner_wakes_up(undisturbed: Undisturbed, tmp_path: Path, lock: str, capsys) -> None:
    """SIGSTOP at every point while a second process wants the same; under a lease that one takes the work over."""
    trials = 0
    for point in sorted(undisturbed.points):
        for number in sorted({1, undisturbed.points[point]}):
            folder = tmp_path / "trial"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            work = lambda folder=folder: job(folder / "store", lock)  # noqa: E731
            first = Child(work, folder / "log1", Fault(point, number, signal.SIGSTOP), lease_seconds=0.15)
            assert first.wait_until_stopped()
            second = Child(work, folder / "log2", lease_seconds=0.15)
            if lock == "lease":
                assert second.wait() == 0, second.log.read_text()
                assert state(folder / "store").items() >= undisturbed.state.items()
            else:
                time.sleep(0.05)
            os.kill(first.pid, signal.SIGCONT)
            assert first.wait() == 0, first.log.read_text()
            if lock == "flock":
                assert second.wait() == 0, second.log.read_text()
            check_end(folder / "store", undisturbed.state, lock)
            trials += 1
    with capsys.disabled():
        print(f"\nstopped owners, {lock}: {trials} trials, 0 mixed, stuck or left over")


def _random_faults(rng: random.Random, undisturbed: Undisturbed) -> list[Fault]:
    faults = []
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            faults.append(Fault(seconds=rng.uniform(0.0005, undisturbed.seconds)))
        else:
            point = rng.choice(sorted(undisturbed.points) + ["partial.take_over", "partial.clear"])
            faults.append(Fault(point, rng.randint(1, max(1, undisturbed.points[point]))))
    return faults
