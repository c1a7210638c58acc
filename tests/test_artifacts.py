"""The store: same inputs, same folder; a killed stage leaves no artifact; two processes work once."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo.artifacts import PlanStore, StageEvent, StageReport, StaleArtifactError, Store, fingerprint

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def _write(text: str):
    def build(folder: Path) -> StageReport:
        (folder / "data.txt").write_text(text)
        return StageReport({"rows": 3}, {"tie": 1})

    return build


def _run(store: Store, **changes):
    arguments = {"version": 1, "config": {"n": 1}, "parents": {"prompts": "ab"}, "build": _write("x")} | changes
    return store.run("candidates", **arguments)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4))
def test_fingerprint_ignores_key_order_and_nothing_else(config: dict) -> None:
    turned = dict(reversed(list(config.items())))
    assert fingerprint("s", 1, config, {}) == fingerprint("s", 1, turned, {})
    assert fingerprint("s", 1, config, {}) != fingerprint("s", 1, {**config, "__more__": 0}, {})


def test_fingerprint_is_the_documented_hash() -> None:
    import hashlib

    text = '{"config":{"a":1},"parents":{"p":"f"},"stage":"s","version":2}'
    assert fingerprint("s", 2, {"a": 1}, {"p": "f"}) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_second_run_is_cached_and_any_input_changes_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    events: list[StageEvent] = []
    store.listeners.append(events.append)
    first, again = _run(store), _run(store)
    assert (first.executed, again.executed) == (True, False)
    assert first.path == again.path
    others = [_run(store, version=2), _run(store, config={"n": 2}), _run(store, parents={"prompts": "cd"})]
    assert len({artifact.path for artifact in [first, *others]}) == 4
    assert [event.outcome for event in events] == ["run", "cached", "run", "run", "run"]
    assert events[1].report.counts == {"rows": 3} and events[1].report.dropped == {"tie": 1}


def test_manifest_records_origin_and_files(tmp_path: Path) -> None:
    manifest = _run(Store(tmp_path)).manifest()
    assert manifest["files"] == {"data.txt": 1}
    assert manifest["config"] == {"n": 1} and manifest["parents"] == {"prompts": "ab"}
    assert manifest["packages"]["torch"].startswith("2.13.0")


def test_a_failing_build_leaves_no_artifact_and_passes_through(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def build(folder: Path) -> StageReport:
        (folder / "half").write_text("x")
        raise ZeroDivisionError("row 7")

    with pytest.raises(ZeroDivisionError, match="row 7"):
        _run(store, build=build)
    artifact = _run(store)
    assert artifact.executed and not (artifact.path / "half").exists()


def test_a_resumable_build_finds_what_was_left(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def build(folder: Path) -> StageReport:
        seen = (folder / "log").read_text() if (folder / "log").exists() else ""
        (folder / "log").write_text(seen + "x")
        if not seen:
            raise KeyboardInterrupt
        return StageReport()

    with pytest.raises(KeyboardInterrupt):
        _run(store, build=build, resumable=True)
    assert (_run(store, build=build, resumable=True).path / "log").read_text() == "xx"


def test_a_changed_file_is_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artifact = _run(store)
    (artifact.path / "data.txt").write_text("longer")
    with pytest.raises(StaleArtifactError, match=r"lists 1 bytes, it has 6 bytes.*delete"):
        _run(store)


def test_a_plan_builds_nothing(tmp_path: Path) -> None:
    events: list[StageEvent] = []
    plan = PlanStore(tmp_path)
    plan.listeners.append(events.append)
    planned = _run(plan)
    assert not planned.path.exists()
    made = _run(Store(tmp_path))
    assert made.fingerprint == planned.fingerprint
    _run(plan)
    assert [event.outcome for event in events] == ["planned", "cached"]


def _slow_job(root: Path, log: Path, seconds: float) -> None:
    def build(folder: Path) -> StageReport:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(seconds)
        (folder / "data.txt").write_text("x")
        return StageReport()

    Store(root).run("train", version=1, config={}, parents={}, build=build)


def test_two_processes_work_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_slow_job, args=(tmp_path / "store", tmp_path / "log", 0.5)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_a_dead_owner_does_not_block(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    owner = context.Process(target=_slow_job, args=(tmp_path / "store", tmp_path / "log", 60))
    owner.start()
    deadline = time.monotonic() + 20
    while not (tmp_path / "log").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(owner.pid, signal.SIGKILL)
    owner.join()
    _slow_job(tmp_path / "store", tmp_path / "log", 0)
    finished = [path for path in (tmp_path / "store" / "train").iterdir() if (path / "manifest.json").exists()]
    assert len(finished) == 1 and json.loads((finished[0] / "manifest.json").read_text())["stage"] == "train"
