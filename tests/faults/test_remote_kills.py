"""A remote store and processes that are killed: nothing is lost, and nobody ever sees half an artifact."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fault_harness import Child, Fault, job, state

from aipo.artifacts import Store, points
from aipo.artifacts.remote_store import RemoteStore

UPLOAD = ("remote.send", "remote.sent", "remote.manifest", "remote.complete")
DOWNLOAD = ("remote.fetch", "remote.pulled", "artifact.restore")


def counted(work) -> Counter[str]:
    """How often `work` reaches each point."""
    seen: Counter[str] = Counter()
    points.hook = lambda point, path: seen.update([point])
    try:
        work()
    finally:
        points.hook = None
    return seen


def half_artifacts(url: str) -> list[str]:
    """Artifacts whose manifest is there and whose files are not all there, to the byte."""
    files, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    names = [os.path.relpath(name, root) for name in (files.find(root) if files.exists(root) else [])]
    wrong = []
    for name in names:
        if not name.endswith("/manifest.json"):
            continue
        stage, digest, _ = name.split("/")
        _, manifest = RemoteStore(url).manifest(stage, digest)
        for file, record in manifest["files"].items():
            content = files.cat_file(f"{root}/{stage}/{digest}/{file}") if f"{stage}/{digest}/{file}" in names else b""
            if len(content) != record["bytes"]:
                wrong.append(f"{stage}/{digest}/{file}")
    return wrong


def stages_there(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    return sorted(
        os.path.relpath(name, root).split("/")[0] for name in files.find(root) if name.endswith("manifest.json")
    )


def without_pruned(found: dict[str, Any]) -> dict[str, Any]:
    return {name: digest for name, digest in found.items() if not name.endswith((".pruned", ".safetensors"))}


def without_speeds(root: Path) -> dict[str, Any]:
    """As `state`, but of a training's metrics what does not depend on how fast the machine was."""
    found: dict[str, Any] = dict(state(root))
    for path in root.glob("train/*/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        own = [{key: row[key] for key in row if not key.endswith(("_per_s", "_memory_gib"))} for row in rows]
        found[path.relative_to(root).as_posix()] = own
        manifest = json.loads((path.parent / "manifest.json").read_text(encoding="utf-8"))
        files = {name: of for name, of in manifest["files"].items() if name != path.name}
        measured = ("_per_s", "_memory_gib")
        counts = {name: count for name, count in manifest["counts"].items() if not name.endswith(measured)}
        found[(path.parent / "manifest.json").relative_to(root).as_posix()] = files, counts, manifest["parents"]
    return found


def kill_everywhere(folder: Path, new_url: Callable[[], str], most: int = 1000) -> int:
    """Kill a job at every point of an upload, and one that downloads at every point of that; at each point up to the
    `most`-th time. Returns how many kills."""
    folder.mkdir()
    assert Child(lambda: job(folder / "alone"), folder / "log").wait() == 0
    expected = state(folder / "alone")
    whole = new_url()
    reached = counted(lambda: job(folder / "first", remote=whole))
    assert state(folder / "first") == expected
    assert stages_there(whole) == ["judgments", "pool", "scores", "train"]
    kills = 0
    for point in UPLOAD:
        for number in range(1, min(most, reached[point]) + 1):
            kills += 1
            url, root = new_url(), folder / f"up-{point}-{number}"
            child = Child(partial(job, root, remote=url), folder / "log", Fault(point, number))
            assert child.wait() == -signal.SIGKILL
            assert half_artifacts(url) == [], f"{point} {number}"
            other = Child(partial(job, folder / f"other-{point}-{number}", remote=url), folder / "log")
            assert other.wait() == 0, (folder / "log").read_text()
            assert without_pruned(state(folder / f"other-{point}-{number}")) == without_pruned(expected)
            assert Child(partial(job, root, remote=url), folder / "log").wait() == 0, (folder / "log").read_text()
            assert without_pruned(state(root)) == without_pruned(expected) and half_artifacts(url) == []
            assert stages_there(url) == ["judgments", "pool", "scores", "train"]
    # A reader of all that is there, which must make the scores anew: only then it needs the weights.
    files, root_there = fsspec.core.url_to_fs(whole, use_listings_cache=False, skip_instance_cache=True)
    (scores,) = (name for name in files.find(root_there) if "/scores/" in name and name.endswith("manifest.json"))
    files.rm_file(scores)
    reached = counted(lambda: job(folder / "reader", remote=whole))
    assert state(folder / "reader") == expected
    for point in DOWNLOAD:
        for number in range(1, min(most, reached[point]) + 1):
            kills += 1
            files.rm_file(scores) if files.exists(scores) else None
            root = folder / f"down-{point}-{number}"
            child = Child(partial(job, root, remote=whole), folder / "log", Fault(point, number))
            assert child.wait() == -signal.SIGKILL
            assert Child(partial(job, root, remote=whole), folder / "log").wait() == 0, (folder / "log").read_text()
            assert state(root) == expected and half_artifacts(whole) == []
    return kills


def test_a_kill_at_any_point_loses_nothing_and_shows_nothing_half(tmp_path: Path) -> None:
    assert kill_everywhere(tmp_path / "work", lambda: f"file://{tmp_path}/remote-{uuid.uuid4().hex}", most=1) == 7


@pytest.mark.slow
def test_a_kill_at_every_point_and_every_time(tmp_path: Path) -> None:
    assert kill_everywhere(tmp_path / "work", lambda: f"file://{tmp_path}/remote-{uuid.uuid4().hex}") >= 25


class S3:
    """moto's S3 server on this machine."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with log.open("w") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        request = urllib.request.Request(f"{self.url}/store", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()  # a bucket

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    for package in ("moto", "flask", "s3fs"):
        if find_spec(package) is None:
            pytest.skip(f"no {package}: pip install 'moto[server]' s3fs==2026.9.0, in an environment of their own")
    server = S3(tmp_path / "moto.log")
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


@pytest.mark.slow
def test_a_kill_at_every_point_of_an_upload_to_s3(s3: S3, tmp_path: Path) -> None:
    """At every point up to its second time."""
    assert kill_everywhere(tmp_path / "work", lambda: f"s3://store/{uuid.uuid4().hex}", most=2) >= 12


@pytest.mark.slow
def test_an_s3_that_is_not_there_is_told(s3: S3, tmp_path: Path) -> None:
    assert Store(tmp_path / "a", remote="s3://store/x").missing() == []
    (told,) = Store(tmp_path / "a", remote="s3://nosuchbucket/x").missing()
    assert "nosuchbucket" in told and "AWS_ENDPOINT_URL" in told
    s3.stop()
    began = time.monotonic()
    (told,) = Store(tmp_path / "a", remote="s3://store/x").missing()
    assert "cannot write to it" in told and time.monotonic() - began < 60


@pytest.mark.slow
def test_random_kills_of_a_real_job_with_s3_give_the_bytes_of_a_local_run(s3: S3, tmp_path: Path) -> None:
    """The smallest real job: killed again and again, begun anew on an empty disk each time, and read by another."""
    root = Path(__file__).resolve().parents[2]

    def command(store: str, *more: str) -> list[str]:
        tiny = ["+experiment=smoke", "iteration.iterations=1", "kl_prompts=0", f"store.root={tmp_path}/{store}"]
        return [sys.executable, str(root / "run.py"), *tiny, f"sweep={store}", *more]

    def begin(store: str, *more: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{store}.log").open("w") as log:
            return subprocess.Popen(command(store, *more), cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)

    remote = "store.remote=s3://store/job"
    assert begin("alone").wait(600) == 0, (tmp_path / "alone.log").read_text()
    expected = without_speeds(tmp_path / "alone")
    draw, kills = random.Random(0), 0
    while True:
        disk = f"disk{kills}"  # each time an empty one: all that counts is what was sent
        job = begin(disk, remote)
        further = len(stages_there("s3://store/job")) + draw.randint(2, 6)
        while job.poll() is None and len(list(tmp_path.glob(f"{disk}/.pushed/*/*"))) < further:
            time.sleep(0.02)
        if job.poll() is not None:
            break
        time.sleep(draw.uniform(0, 0.5))
        job.kill()
        job.wait()
        kills += 1
        assert half_artifacts("s3://store/job") == []
    assert job.returncode == 0, (tmp_path / f"{disk}.log").read_text()
    assert kills >= 3
    assert begin("reader", remote).wait(600) == 0, (tmp_path / "reader.log").read_text()
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "reader").glob("*/*/manifest.json")]
    assert len(manifests) == len(list((tmp_path / "alone").glob("*/*/manifest.json")))
    found = {
        name: value for name, value in without_speeds(tmp_path / "reader").items() if not name.startswith("replies/")
    }
    kept = {name: value for name, value in expected.items() if not name.startswith("replies/")}
    assert without_pruned(found) == without_pruned(kept)
