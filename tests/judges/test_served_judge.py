"""The OpenAI-protocol judge and a real server, `transformers serve`, with a small model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_judge import save_tiny_judge

from aipo.judges import JudgeError
from aipo.judges.endpoints import OpenAIEndpoint
from aipo.judges.local import LocalJudge
from aipo.judges.openai_judge import OpenAIJudge
from aipo.judges.replies import ReplyStore
from aipo.judges.store import stored
from aipo.models.policy import PolicyRef
from aipo.records import Message

CHATS = [(Message("user", text),) for text in ("which is better ?", "M m", "is m better ?", "M")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).parent / "transformers"
    command = [str(program), "serve", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with (tmp_path_factory.mktemp("serve") / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def judge(url: str, folder: Path) -> OpenAIJudge:
    # The first attempts meet a server that is still starting.
    return OpenAIJudge(
        str(folder), OpenAIEndpoint(url, None), "served", 2, 120.0, 60, 120.0, first_wait_s=0.5, longest_wait_s=2.0
    )


@pytest.mark.slow
def test_verdicts_are_the_models_own_and_are_kept(url: str, folder: Path, tmp_path: Path) -> None:
    wanted = LocalJudge(PolicyRef(str(folder)), "local").reply(CHATS, max_tokens=12)
    store = ReplyStore(tmp_path)
    replies = stored(judge(url, folder), store).reply(CHATS, max_tokens=12)
    assert [reply.text for reply in replies] == [reply.text for reply in wanted]
    assert len({reply.text for reply in replies}) > 1
    assert all(str(folder) in reply.model for reply in replies)
    kept = store.of(judge(url, folder).identity())
    ledger = kept.ledger()
    assert ledger.replies == len(CHATS) and ledger.output_tokens > 0
    assert stored(judge(url, folder), store).reply(CHATS, max_tokens=12) == replies
    assert kept.ledger() == ledger


@pytest.mark.slow
def test_without_log_probs_the_text_annotator_is_offered(url: str, folder: Path) -> None:
    with pytest.raises(JudgeError, match="alpaca_eval_text in place of alpaca_eval"):
        judge(url, folder).reply(CHATS, max_tokens=1, top_logprobs=5)
