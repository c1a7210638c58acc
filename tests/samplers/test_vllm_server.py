"""The keeper of a vLLM server: started for each checkpoint, stopped with its owner, its log shown when it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stub_server import StubServer
from toy_models import chat

from aipo.models.policy import PolicyRef
from aipo.records import Decoding
from aipo.samplers.protocols import VLLM
from aipo.samplers.server import ServerSampler
from aipo.samplers.vllm_server import ServerError, VLLMServer

ROOT = Path(__file__).resolve().parents[2]
DECODING = Decoding(temperature=0.7, top_p=0.9, top_k=0, max_new_tokens=8)
CHATS = [chat(1, 2), chat(3), chat(4, 5, 6), chat(7), chat(1, 2)]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment whose `vllm` is the stub, and the file where its starts are recorded."""
    program = tmp_path / "env" / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent}/stub_server.py "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("STUB_STARTS", str(tmp_path / "starts.jsonl"))
    return tmp_path


def _starts(environment: Path) -> list[dict]:
    return [json.loads(line) for line in (environment / "starts.jsonl").read_text().splitlines()]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_vllm_is_started_for_each_checkpoint_and_stopped(policy: PolicyRef, environment: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(policy.path, second)
    for ref in (policy, PolicyRef(str(second), dtype="bfloat16")):
        server = VLLMServer(str(environment / "env"), ("--seed=3",), log=str(environment / "log" / "vllm.log"))
        sampler = ServerSampler(ref, VLLM(), server=server, retry_s=0.02)
        assert sampler.missing() == []
        sampler.sample(CHATS, DECODING, n=1, seed=0)
        sampler.sample(CHATS, DECODING, n=1, seed=1)
        pid = _starts(environment)[-1]["pid"]
        assert _is_running(pid)
        del sampler
        assert not _is_running(pid), "the server outlives its sampler"
    starts = _starts(environment)
    assert [start["arguments"][0] for start in starts] == [policy.path, str(second)]
    arguments = starts[1]["arguments"]
    assert arguments[arguments.index("--dtype") + 1] == "bfloat16"
    assert arguments[arguments.index("--generation-config") + 1] == "vllm" and arguments[-1] == "--seed=3"


def test_a_dead_vllm_is_started_again(policy: PolicyRef, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_DIES_AFTER", "3")
    chats = [chat(first, second) for first in range(4) for second in range(3)]
    server = VLLMServer(str(environment / "env"), log=str(environment / "vllm.log"))
    sampler = ServerSampler(policy, VLLM(), server=server, concurrency=1, retry_s=0.02)
    rows = sampler.sample(chats, DECODING, n=1, seed=0)
    expected = StubServer(policy.path)
    assert rows == ServerSampler(policy, VLLM(), base_url=expected.base_url).sample(chats, DECODING, n=1, seed=0)
    expected.close()
    assert len(_starts(environment)) == 2
    server.stop()


def test_a_vllm_that_does_not_start_shows_its_log(
    policy: PolicyRef, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_FAILS", "1")
    server = VLLMServer(str(environment / "env"), log=str(environment / "vllm.log"))
    with pytest.raises(ServerError, match="(?s)vLLM ended with status 1; .*CUDA out of memory"):
        ServerSampler(policy, VLLM(), server=server).sample([chat(1)], DECODING, n=1, seed=0)


def test_vllm_ends_with_a_killed_owner(policy: PolicyRef, environment: Path) -> None:
    code = (
        "import os, signal; from aipo.models import PolicyRef; from aipo.samplers import VLLMServer; "
        f"VLLMServer({str(environment / 'env')!r}, log={str(environment / 'vllm.log')!r})"
        f".start(PolicyRef({policy.path!r})); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    pid = _starts(environment)[0]["pid"]
    deadline = time.monotonic() + 10
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(pid)


def test_what_a_dead_vllm_leaves_running_is_ended(tmp_path: Path) -> None:
    """Its engine is a process of its own, which would keep the devices from the next one."""
    leaves_a_child = f"sleep 60 & echo $! > {tmp_path / 'child'}; exit 3"
    keeper = subprocess.Popen(
        [sys.executable, "-m", "aipo.samplers.keeper", "sh", "-c", leaves_a_child], stdin=subprocess.PIPE, cwd=ROOT
    )
    with keeper:  # which would close stdin first, had the keeper not ended
        assert keeper.wait(60) == 3
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while _is_there(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_there(child)


def _is_there(pid: int) -> bool:
    try:
        return _is_running(pid)
    except FileNotFoundError:  # it went between the two looks
        return False


def test_a_job_that_is_told_to_end_does_not_wait_for_a_server_that_starts(policy: PolicyRef, tmp_path: Path) -> None:
    """This one never becomes healthy."""
    program = tmp_path / "env" / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho $$ > $0.pid\nexec sleep 600\n")
    program.chmod(0o755)
    code = (
        "import signal\nfrom pathlib import Path\nfrom aipo.models.policy import PolicyRef\n"
        "from aipo.records import Decoding, Message\nfrom aipo.samplers.protocols import VLLM\n"
        "from aipo.samplers.server import ServerSampler\nfrom aipo.samplers.vllm_server import VLLMServer\n"
        "def end(number, frame): raise SystemExit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        f"server = VLLMServer({str(tmp_path / 'env')!r}, log={str(tmp_path / 'vllm.log')!r})\n"
        f"sampler = ServerSampler(PolicyRef({policy.path!r}), VLLM(), server=server)\n"
        "sampler.complete(['a', 'b', 'c'], Decoding(0.7, 0.9, 0, 8), n=1, seed=0)\n"
    )
    job = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    pid_file = Path(f"{program}.pid")
    while not pid_file.exists() or not pid_file.read_text().strip():
        assert job.poll() is None
        time.sleep(0.1)
    job.terminate()
    assert job.wait(20) == 143
    assert not _is_running(int(pid_file.read_text()))
