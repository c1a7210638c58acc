"""The store: same inputs, same folder; a killed stage leaves no artifact; two processes work once."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo.artifacts import (
    PlanStore,
    StageEvent,
    StageReport,
    StaleArtifactError,
    Store,
    StoreError,
    fingerprint,
    read_manifest,
)
from aipo.artifacts.files import hash_file

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
    assert manifest["files"] == {"data.txt": {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}}
    assert manifest["config"] == {"n": 1} and manifest["parents"] == {"prompts": "ab"}
    assert manifest["packages"]["torch"].startswith("2.13.0")
    assert manifest["host"] == socket.gethostname() and manifest["threads"] >= 1
    assert all(isinstance(manifest[name], str) and manifest[name] for name in ("cpu", "instruction_set"))


def test_the_instruction_set_is_torchs_word_with_torch_and_without() -> None:
    """Equal numbers are promised on one kind of CPU: the manifest has to say which, in a process without torch too."""
    code = "import sys; from aipo.artifacts.provenance import instruction_set as i; print(i(), 'torch' in sys.modules)"
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    import torch

    assert alone == [torch.backends.cpu.get_cpu_capability(), "False"]


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


@pytest.mark.parametrize("content", ["longer", "y", None])
def test_a_changed_file_is_an_error_that_names_the_remedy(tmp_path: Path, content: str | None) -> None:
    """The size, one byte, or the whole file."""
    store = Store(tmp_path)
    artifact = _run(store)
    data = artifact.path / "data.txt"
    data.unlink() if content is None else data.write_text(content)
    with pytest.raises(StaleArtifactError, match=r"data\.txt: the manifest lists .* `mv .*run the same command again"):
        _run(store)
    with pytest.raises(StaleArtifactError, match="data.txt"):
        read_manifest(tmp_path, "candidates", artifact.fingerprint)


def test_the_remedy_of_a_changed_file_works_and_deletes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artifact = _run(store)
    (artifact.path / "data.txt").write_text("y")
    artifact.path.rename(artifact.path.with_name(f"{artifact.fingerprint}.partial"))
    assert (_run(store).path / "data.txt").read_text() == "x"
    (aside,) = (tmp_path / ".aside").iterdir()
    assert (aside / "data.txt").read_text() == "y"


def test_a_file_that_the_manifest_does_not_list_is_an_error(tmp_path: Path) -> None:
    """A second weights file or a chat template put into a model's folder changes what is loaded."""
    artifact = _run(Store(tmp_path))
    (artifact.path / ".nfs0001").write_text("a file system's own")
    artifact.check()
    (artifact.path / "chat_template.jinja").write_text("x")
    with pytest.raises(StaleArtifactError, match="chat_template.jinja: the manifest does not list"):
        _run(Store(tmp_path))


@pytest.mark.parametrize("damage", ["", "{}", '{"stage": "candidates"}', "row count"])
def test_a_changed_manifest_is_an_error(tmp_path: Path, damage: str) -> None:
    artifact = _run(Store(tmp_path))
    manifest = artifact.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"rows": 3', '"rows": 4') if damage == "row count" else damage)
    with pytest.raises(StaleArtifactError, match=r"manifest\.json"):
        _run(Store(tmp_path))


def test_a_parent_changed_during_the_job_is_found_before_it_is_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    parent = _run(store)
    (parent.path / "data.txt").write_text("y")
    with pytest.raises(StaleArtifactError, match="data.txt"):
        store.run("pairs", version=1, config={}, parents={"candidates": parent.fingerprint}, build=_write("z"))


def test_large_weights_are_hashed_when_they_look_changed_and_by_verify_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("aipo.artifacts.files.ALWAYS_HASHED_BYTES", 100)
    hashed: list[Path] = []
    monkeypatch.setattr("aipo.artifacts.files.hash_file", lambda path: hashed.append(path) or hash_file(path))
    store = Store(tmp_path / "store")

    def build(folder: Path) -> StageReport:
        (folder / "masters").mkdir()
        (folder / "masters" / "model.safetensors").write_text("a" * 200)
        return StageReport()

    artifact = _run(store, build=build)
    time.sleep(0.15)  # longer than two writes can share a time stamp
    for _ in range(3):
        artifact.check()
    assert len(hashed) == 1
    artifact.verify()
    artifact.verify("masters")
    assert len(hashed) == 3
    artifact.verify("model")
    assert len(hashed) == 3
    data = artifact.path / "masters" / "model.safetensors"
    before = data.stat()
    data.write_text("b" * 200)
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(StaleArtifactError, match="SHA-256"):
        artifact.check()


def _add_reply(folder: Path) -> None:
    with (folder / "replies.jsonl").open("a") as file:
        file.write("paid\n")


def test_what_a_kill_left_of_the_manifest_poisons_nothing(tmp_path: Path) -> None:
    """A torn manifest, a whole one before the rename, and an artifact that a user moved aside: all are taken up."""
    log = tmp_path / "log"

    def build(folder: Path) -> StageReport:
        log.write_text(log.read_text() + "x" if log.exists() else "x")
        _add_reply(folder)
        return StageReport({"rows": 1})

    store = Store(tmp_path / "store")
    for left in ("moved aside", "torn", "stale"):
        artifact = _run(store, build=build, resumable=True)
        partial = artifact.path.rename(artifact.path.with_name(f"{artifact.fingerprint}.partial"))
        if left == "torn":
            (partial / "manifest.json").rename(partial / "manifest.json.tmp")
        if left == "stale":
            _add_reply(partial)
        again = _run(store, build=build, resumable=True)
        assert again.path == artifact.path and list(artifact.path.parent.iterdir()) == [artifact.path]
        assert sorted(again.verify()["files"]) == ["replies.jsonl"]
        assert sorted(path.name for path in again.path.iterdir()) == ["manifest.json", "replies.jsonl"]
    # Moved aside and whole: no work at all. Torn: resumed. Changed after the manifest: kept aside, and made anew.
    assert log.read_text() == "xxx"
    assert (artifact.path / "replies.jsonl").read_text() == "paid\n"
    (aside,) = (tmp_path / "store" / ".aside").iterdir()
    assert aside.read_text() == "paid\n" * 3


def test_scratch_is_there_until_the_manifest_is_and_never_part_of_the_artifact(tmp_path: Path) -> None:
    from aipo.artifacts import points

    def build(folder: Path) -> StageReport:
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "state").write_text("x")
        (folder / "model").write_text("y")
        return StageReport(scratch=("checkpoints",))

    store = Store(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points, "hook", lambda point, path: 1 / 0 if point == "manifest.replace" else None)
        with pytest.raises(ZeroDivisionError):
            _run(store, build=build, resumable=True)
    assert len(list(tmp_path.glob("candidates/*.partial/checkpoints/state"))) == 1
    artifact = _run(store, build=build, resumable=True)
    assert list(artifact.verify()["files"]) == ["model"] and not (artifact.path / "checkpoints").exists()


def test_a_store_moved_and_reached_by_another_path_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(Store(tmp_path / "store"))
    (tmp_path / "store").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert not _run(Store("moved")).executed and not _run(Store(tmp_path / "moved")).executed


def _as_nobody(folder: Path, answers: multiprocessing.Queue) -> None:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    store = Store(folder / "store")
    answers.put(store.missing())
    answers.put(_run(store).executed)
    try:
        _run(store, config={"n": 2})
    except StoreError as error:
        answers.put(str(error))
    shared = Store(folder / "shared")
    answers.put([_run(shared).executed, _run(shared, config={"n": 2}, resumable=True).executed])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_store_that_nothing_can_be_written_into_is_told_beforehand(tmp_path: Path) -> None:
    """Its permissions look well to root: only trying tells."""
    (told,) = Store("/proc/x").missing()
    assert told.startswith("store.root=/proc/x: ") and "in /proc" in told and told.endswith("; choose another")
    assert Store(tmp_path / "a" / "b").missing() == [] and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a second user")
def test_a_second_user_reads_a_complete_store_and_works_in_a_shared_one() -> None:
    """Complete and not writable: nothing is written. Shared: locks, folders and unfinished builds of another user."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        _second_user(Path(name))


def _second_user(folder: Path) -> None:
    folder.chmod(0o755)
    _run(Store(folder / "store"))
    (folder / "shared").mkdir()
    (folder / "shared").chmod(0o777)
    _run(Store(folder / "shared"))

    def build(partial: Path) -> StageReport:
        (partial / "data.txt").touch(mode=0o644)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(Store(folder / "shared"), config={"n": 2}, build=build, resumable=True)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    user = context.Process(target=_as_nobody, args=(folder, answers))
    user.start()
    found = [answers.get(timeout=20) for _ in range(4)]
    user.join()
    assert found[:2] == [[], False]
    assert "is not in the store, and" in found[2] and "chmod -R g+w" in found[2]
    assert found[3] == [False, True]


def test_a_group_writable_store_stays_open_to_the_group(tmp_path: Path) -> None:
    """Whatever the umask: locks can be taken by others, weights (which safetensors writes as 0600) be read."""
    root = tmp_path / "store"
    root.mkdir()
    root.chmod(0o775)

    def build(folder: Path) -> StageReport:
        (folder / "model").mkdir()
        (folder / "model" / "model.safetensors").touch(mode=0o600)
        return StageReport()

    old = os.umask(0o077)
    try:
        artifact = _run(Store(root), build=build)
    finally:
        os.umask(old)
    (lock,) = (root / ".locks").iterdir()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (lock, artifact.path, artifact.path / "model")]
    assert [oct(mode) for mode in modes] == ["0o664", "0o775", "0o775"]
    assert stat.S_IMODE((artifact.path / "model" / "model.safetensors").stat().st_mode) == 0o644
    root.chmod(0o755)
    private = _run(Store(root), config={"n": 9}, build=build)
    assert stat.S_IMODE((private.path / "model" / "model.safetensors").stat().st_mode) == 0o644


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
