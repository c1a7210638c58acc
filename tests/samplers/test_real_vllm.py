"""The server sampler and a real vLLM: ids, log-probs, a kill in mid-stage, a whole round. See docs/models.md.

AIPO_VLLM names vLLM's environment, AIPO_SMOLLM2 the folder that `python -m aipo.models smollm2` writes.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aipo.constraints import draw_tasks
from aipo.models import PolicyRef
from aipo.models.tokens import prompt_token_ids
from aipo.records import Chat, Completion, Decoding, Message, Pair
from aipo.samplers import HFSampler
from aipo.samplers.protocols import VLLM
from aipo.samplers.server import ServerSampler
from aipo.samplers.vllm_server import VLLMServer

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).resolve().parents[2]
# One shape for every step: vLLM's CPU engine fails at per-request seeds with chunked prefill.
ARGUMENTS = (
    "--no-enable-chunked-prefill",
    "--max-model-len=1024",
    "--max-num-batched-tokens=1024",
    "--max-num-seqs=16",
    "--enforce-eager",
)
CHATS: list[Chat] = [(Message("user", task.text),) for task in draw_tasks(8, seed=2, held_out=False)]
GREEDY, DRAWN = Decoding(0.0, 1.0, 0, 24), Decoding(0.8, 1.0, 50, 24)


def named(variable: str, remedy: str) -> str:
    """What the environment variable names; without it the test is skipped, with the remedy."""
    if not (found := os.environ.get(variable)):
        pytest.skip(f"{variable} is not set: {remedy}")
    return found


@pytest.fixture(scope="module")
def environment() -> str:
    return named("AIPO_VLLM", "the folder of an environment with vLLM; docs/models.md says how to make one")


@pytest.fixture(scope="module")
def policy() -> PolicyRef:
    return PolicyRef(named("AIPO_SMOLLM2", "python -m aipo.models smollm2 --out <folder> writes the folder"))


@pytest.fixture(scope="module")
def sampler(environment: str, policy: PolicyRef, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerSampler]:
    """One vLLM for the module, on the CPU where there is nothing else."""
    folder = tmp_path_factory.mktemp("vllm")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    server = VLLMServer(environment, ARGUMENTS, start_timeout_s=1200, log=str(folder / "vllm.log"))
    yield ServerSampler(
        policy, VLLM(logprobs=True), server=server, concurrency=2, retry_s=1.0, resume_folder=str(folder / "answers")
    )
    server.stop()


def logps(policy: PolicyRef, rows: list[list[Completion]]) -> list[float]:
    """Of every completion, by this package's own trainer, in nats."""
    from aipo.training.reference import compute_reference_logps

    tokenizer = policy.load_tokenizer()
    pairs = [
        Pair(f"{place}", f"{place}", prompt_token_ids(tokenizer, chat), completion, completion, 1.0, 0.0)
        for place, (chat, row) in enumerate(zip(CHATS, rows, strict=True))
        for completion in row
    ]
    return [found.chosen for found in compute_reference_logps(policy, pairs)]


def test_greedy_ids_and_log_probs_are_ours(sampler: ServerSampler, policy: PolicyRef) -> None:
    served = sampler.sample(CHATS, GREEDY, n=1, seed=0)
    ours = HFSampler(policy).sample(CHATS, GREEDY, n=1, seed=0)
    equal = [first.token_ids == second.token_ids for (first,), (second,) in zip(served, ours, strict=True)]
    drawn = sampler.sample(CHATS, DRAWN, n=2, seed=3)
    assert all(len(row) == 2 and row[0].token_ids != row[1].token_ids for row in drawn)
    noted = [completion.logp for row in drawn for completion in row]
    gaps = [abs(mine - theirs) for mine, theirs in zip(logps(policy, drawn), noted, strict=True)]
    print(
        f"greedy: {sum(equal)} of {len(equal)} equal; log-probs: mean {statistics.mean(gaps):.2g}, max {max(gaps):.2g}"
    )
    assert sum(equal) >= len(equal) - 1  # float32: a near tie may fall the other way
    assert max(gaps) < 0.02


def test_a_vllm_killed_in_mid_stage_is_started_again_and_nothing_is_lost(sampler: ServerSampler) -> None:
    server, folder = sampler.server, Path(sampler.resume_folder or "")
    assert server is not None
    sampler.sample(CHATS[:1], GREEDY, n=1, seed=1)  # it runs
    before = set(folder.rglob("*.jsonl"))
    killed: list[int] = []

    def kill() -> None:
        """Once three of the requests, of which two at a time are under way, are answered."""
        answered = 0
        while answered < 3:
            time.sleep(0.05)
            answered = sum(path.read_bytes().count(b"\n") for path in set(folder.rglob("*.jsonl")) - before)
        killed.extend(_descendants(server._process.pid))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    rows = sampler.sample(CHATS, DRAWN, n=2, seed=5)
    killer.join()
    assert server._starts == 2 and [len(row) for row in rows] == [2] * len(CHATS)
    assert [_is_running(pid) for pid in killed] == [False] * len(killed), "a child of the killed server lives on"
    again = sampler.sample(CHATS, DRAWN, n=2, seed=5)  # from what was kept
    assert again == rows


def test_a_round_of_the_laptop_scale(environment: str, policy: PolicyRef, tmp_path: Path) -> None:
    overrides = [
        "scale=laptop", "sampler=vllm", f"model.path={policy.path}", f"sampler.server.executable={environment}",
        f"sampler.server.arguments={json.dumps(ARGUMENTS)}", f"sampler.server.log={tmp_path}/vllm.log",
        f"sampler.resume_folder={tmp_path}/answers", "objective=aipo", "iteration.iterations=1", "iteration.prompts=8",
        "iteration.decoding.max_new_tokens=48", "benchmark.constraints.n_questions=8", "kl_prompts=0",
        "benchmark.constraints.decoding.max_new_tokens=48", "trainer.pairs_per_step=4", "trainer.warmup_ratio=0",
        f"store.root={tmp_path}/outputs", f"hydra.run.dir={tmp_path}/job",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "run.py", *overrides], cwd=ROOT, capture_output=True, text=True, timeout=3000,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (train,) = (tmp_path / "outputs" / "train").glob("*/manifest.json")
    assert json.loads(train.read_text())["counts"]["share_of_weights_changed"] > 0.5
    scores = list((tmp_path / "outputs" / "scores").glob("*/manifest.json"))
    assert len(scores) == 2  # of the base model and of the policy after round 1
    log = (tmp_path / "vllm.log").read_text(encoding="utf-8", errors="replace")
    assert log.count("Application startup complete") == 3  # the base model's answers, candidates, answers


def _descendants(pid: int) -> list[int]:
    """The processes below `pid`, children first."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [*map(int, children), *(found for child in children for found in _descendants(int(child)))]


def _is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
