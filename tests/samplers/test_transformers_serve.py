"""The server sampler and a real server, `transformers serve`, killed in between."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from toy_models import chat

from aipo.models.policy import PolicyRef
from aipo.records import Decoding
from aipo.samplers.hf import HFSampler
from aipo.samplers.protocols import TransformersServe
from aipo.samplers.server import ServerSampler
from aipo.samplers.vllm_server import _free_port


@pytest.mark.slow
def test_transformers_serve_gives_the_same_greedy_tokens(policy: PolicyRef, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    port = _free_port("127.0.0.1")
    log = (tmp_path / "serve.log").open("wb")
    program = Path(sys.executable).parent / "transformers"
    command = [str(program), "serve", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    greedy = Decoding(0.0, 1.0, 0, 24)
    chats = [chat(first, second) for first in range(4) for second in range(3)]
    sampler = ServerSampler(
        policy,
        TransformersServe(),
        base_url=f"http://127.0.0.1:{port}/v1",
        concurrency=2,
        max_wait_s=120,
        retry_s=0.5,
        resume_folder=str(tmp_path / "answers"),
    )
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        killer = threading.Thread(target=_kill_and_restart, args=(process, command, log, tmp_path / "answers"))
        killer.start()
        served = sampler.sample(chats, greedy, n=2, seed=0)
        killer.join()
        ours = HFSampler(policy).sample(chats, greedy, n=2, seed=0)
        assert [[c.token_ids for c in row] for row in served] == [[c.token_ids for c in row] for row in ours]
        assert {c.finish for row in served for c in row} == {"stop", "length"}
        texts = ["a1a2", "a3"]
        ((first,), (second,)) = sampler.complete(texts, greedy, n=1, seed=0, stop=("a7",))
        ((one,), (two,)) = HFSampler(policy).complete(texts, greedy, n=1, seed=0, stop=("a7",))
        assert (first.text, second.text) == (one.text, two.text)
    finally:
        for child in [process, *_RESTARTED]:
            child.kill()
            child.wait()
        log.close()


_RESTARTED: list[subprocess.Popen] = []


def _kill_and_restart(process: subprocess.Popen, command: list[str], log: object, answers: Path) -> None:
    while sum(file.read_bytes().count(b"\n") for file in answers.rglob("*.jsonl")) < 5:
        time.sleep(0.01)
    process.kill()
    process.wait()
    time.sleep(1)
    _RESTARTED.append(subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}))
