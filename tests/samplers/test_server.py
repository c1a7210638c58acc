"""The server sampler: ids, retries, resuming and restarting with a stub of vLLM; greedy parity with a real server."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from stub_server import StubServer, tokens
from toy_models import BOS, END, chat, save, tiny

from aipo.models import PolicyRef
from aipo.records import Completion, Decoding
from aipo.samplers.hf import HFSampler
from aipo.samplers.journal import Journal
from aipo.samplers.protocols import VLLM, ChatMessages, Draw, ReplyError, TransformersServe
from aipo.samplers.server import SamplingError, ServerSampler
from aipo.samplers.vllm_server import ServerError, VLLMServer, _free_port
from aipo.tokens import prompt_token_ids

ROOT = Path(__file__).resolve().parents[2]
DECODING = Decoding(temperature=0.7, top_p=0.9, top_k=0, max_new_tokens=8)
CHATS = [chat(1, 2), chat(3), chat(4, 5, 6), chat(7), chat(1, 2)]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PolicyRef:
    """A model that only says words, never `<unk>` or `<s>`, so that text and ids are one to one."""
    model = tiny("Llama", 30)
    with torch.no_grad():
        model.lm_head.weight[END] *= 2  # so that greedy answers end, too
        model.lm_head.weight[[BOS, 2]] = 0  # a logit of 0, far below the best of 28 wide ones
    return PolicyRef(save(model, tmp_path_factory.mktemp("served")))


@pytest.fixture
def stub(policy: PolicyRef):
    server = StubServer(policy.path)
    yield server
    server.close()


def _sampler(policy: PolicyRef, server: StubServer, **settings: object) -> ServerSampler:
    settings = {"concurrency": 2, "retry_s": 0.02, "max_wait_s": 20.0} | settings
    return ServerSampler(policy, VLLM(), base_url=server.base_url, **settings)


def test_prompts_go_and_completions_come_as_ids(policy: PolicyRef, stub: StubServer) -> None:
    rows = _sampler(policy, stub).sample(CHATS, DECODING, n=3, seed=5)
    tokenizer = policy.load_tokenizer()
    by_prompt = {(tuple(body["prompt"]), body["seed"]): body for body in stub.requests}
    assert len(by_prompt) == len(CHATS), "the repeated prompt gets a seed of its own"
    for words, row in zip(CHATS, rows, strict=True):
        prompt = list(prompt_token_ids(tokenizer, words))
        seeds = [seed for (ids, seed) in by_prompt if list(ids) == prompt]
        assert [completion.token_ids for completion in row] in [
            [(*tokens(prompt, seed, index), END) for index in range(3)] for seed in seeds
        ]
        for completion in row:
            assert completion.finish == "stop" and completion.logp is None
            assert completion.text == "".join(f"a{token - 3}" for token in completion.token_ids[:-1])
    body = stub.requests[0]
    assert (body["temperature"], body["top_p"], body["top_k"], body["max_tokens"]) == (0.7, 0.9, -1, 8)
    assert (body["repetition_penalty"], body["min_p"], body["n"]) == (1.0, 0.0, 3)
    assert body["stop_token_ids"] == [END]


def test_a_cut_completion_has_no_end_of_turn(policy: PolicyRef, stub: StubServer) -> None:
    rows = _sampler(policy, stub).sample(CHATS, replace(DECODING, max_new_tokens=2), n=1, seed=0)
    for (completion,) in rows:
        assert completion.finish == "length" and len(completion.token_ids) == 2 and END not in completion.token_ids


def test_a_server_is_told_the_whole_path(policy: PolicyRef, stub: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(policy.path)
    monkeypatch.chdir(folder.parent)
    _sampler(PolicyRef(folder.name), stub).sample([chat(1)], DECODING, n=1, seed=0)
    assert stub.requests[0]["model"] == policy.path


def test_no_more_is_asked_for_than_the_context_holds(policy: PolicyRef, stub: StubServer) -> None:
    _sampler(policy, stub).sample([chat(1), chat(2, 3)], replace(DECODING, max_new_tokens=10_000), n=1, seed=0)
    assert {len(body["prompt"]) + body["max_tokens"] for body in stub.requests} == {256}
    with pytest.raises(ValueError, match="a prompt has 302 tokens, but .* has a context of 256"):
        _sampler(policy, stub).sample([chat(*range(300))], DECODING, n=1, seed=0)


def test_log_probs_are_summed(policy: PolicyRef, stub: StubServer) -> None:
    sampler = ServerSampler(policy, VLLM(logprobs=True), base_url=stub.base_url)
    ((completion,),) = sampler.sample([chat(1)], DECODING, n=1, seed=0)
    assert completion.logp == pytest.approx(-0.5 * len(completion.token_ids))
    assert stub.requests[0]["logprobs"] == 0


def test_seeds_do_not_depend_on_the_other_prompts(policy: PolicyRef, stub: StubServer) -> None:
    sampler = _sampler(policy, stub)
    whole = sampler.sample(CHATS[:4], DECODING, n=2, seed=1)
    assert sampler.sample(CHATS[3:1:-1], DECODING, n=2, seed=1) == whole[3:1:-1]
    assert sampler.sample(CHATS[:4], DECODING, n=2, seed=2) != whole


def test_a_killed_server_loses_nothing(policy: PolicyRef, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aipo")
    chats = [chat(first, second) for first in range(5) for second in range(4)]
    first = StubServer(policy.path, die_after=7)
    expected = StubServer(policy.path)
    port, back = first.port, []

    def restart() -> None:
        while len(first.requests) < 7:
            time.sleep(0.005)
        time.sleep(0.15)
        first.close()
        back.append(StubServer(policy.path, port))

    thread = threading.Thread(target=restart)
    thread.start()
    rows = _sampler(policy, first).sample(chats, DECODING, n=2, seed=0)
    thread.join()
    assert rows == _sampler(policy, expected).sample(chats, DECODING, n=2, seed=0)
    assert len(first.requests) == 7 and len(first.requests) + len(back[0].requests) == len(chats)
    lines = [record.getMessage() for record in caplog.records]
    assert sum("does not answer for" in line and "waiting up to 20 s" in line for line in lines) == 1
    assert sum("answers again, after" in line for line in lines) == 1
    assert all(record.name == "aipo" for record in caplog.records), "a line for every request"
    back[0].close()
    expected.close()


def test_a_killed_run_asks_only_for_the_rest(policy: PolicyRef, tmp_path: Path) -> None:
    server = StubServer(policy.path, die_after=3)
    settings = {"resume_folder": str(tmp_path), "max_wait_s": 0.1, "concurrency": 1}
    with pytest.raises(SamplingError, match="did not answer for .*What was answered is kept: start the server"):
        _sampler(policy, server, **settings).sample(CHATS, DECODING, n=2, seed=0)
    (file,) = tmp_path.iterdir()
    with file.open("a", encoding="utf-8") as journal:
        journal.write('{"key": "cut off by a ki')
    again = StubServer(policy.path)
    rows = _sampler(policy, again, **settings).sample(CHATS, DECODING, n=2, seed=0)
    assert len(again.requests) == len(CHATS) - 3
    assert rows == _sampler(policy, again).sample(CHATS, DECODING, n=2, seed=0)
    asked = len(again.requests)
    assert _sampler(policy, again, **settings).sample(CHATS, DECODING, n=2, seed=0) == rows
    assert len(again.requests) == asked, "an answered request was sent again"
    _sampler(policy, again, **settings).sample(CHATS, DECODING, n=2, seed=1)
    assert len(again.requests) == asked + len(CHATS), "another seed is another request"
    server.close()
    again.close()


def test_other_weights_in_the_same_folder_are_asked_anew(policy: PolicyRef, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(policy.path, folder)
    server = StubServer(str(folder))
    moving = PolicyRef(str(folder))
    settings = {"resume_folder": str(tmp_path / "answers")}
    _sampler(moving, server, **settings).sample([chat(1)], DECODING, n=1, seed=0)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    _sampler(moving, server, **settings).sample([chat(1)], DECODING, n=1, seed=0)
    assert len(server.requests) == 2
    server.close()


def test_a_journal_survives_a_cut_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a" / "journal.jsonl")
    assert journal.read() == {}
    kept = [Completion("é", (1, 2), "stop", -1.0), Completion("", (3,), "length")]
    journal.add("one", kept)
    with journal.path.open("ab") as file:
        file.write(b'{"key": "two", "compl')
    assert journal.read() == {"one": kept}
    journal.add("three", [])
    assert journal.read() == {"one": kept, "three": []}


def test_a_refused_request_is_told_at_once(policy: PolicyRef, stub: StubServer) -> None:
    with pytest.raises(SamplingError, match="refuses a request: BadRequestError.*maximum context length is 50"):
        _sampler(policy, stub).sample([chat(*range(60))], DECODING, n=1, seed=0)


def test_a_request_that_always_crashes_the_server_is_given_up(
    policy: PolicyRef, stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, asked = stub.answer, []

    def crash(body: dict) -> tuple[int, dict]:
        asked.append(body)
        return (500, {"error": {"message": "index out of range"}}) if len(asked) != 3 else answer(body)

    monkeypatch.setattr(stub, "answer", crash)
    assert _sampler(policy, stub).sample([chat(1)], DECODING, n=1, seed=0), "a passing fault is survived"
    with pytest.raises(SamplingError, match="failed 5 times on one request .*index out of range"):
        _sampler(policy, stub).sample([chat(1)], DECODING, n=1, seed=0)


def test_a_server_of_another_model_is_waited_for(policy: PolicyRef, stub: StubServer) -> None:
    stub.model = "yesterday's"
    with pytest.raises(SamplingError, match="NotFoundError.*does not exist"):
        _sampler(policy, stub, max_wait_s=0.1).sample([chat(1)], DECODING, n=1, seed=0)
    threading.Timer(0.2, lambda: setattr(stub, "model", policy.path)).start()
    assert _sampler(policy, stub).sample([chat(1)], DECODING, n=1, seed=0)


def test_the_key_comes_from_the_environment(
    policy: PolicyRef, stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    sampler = _sampler(policy, stub, key_variable="MY_KEY")
    sampler.sample([chat(1)], DECODING, n=1, seed=0)
    assert stub.headers[0]["authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(sampler)


def test_a_reply_without_ids_is_refused(policy: PolicyRef, stub: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stub, "answer", lambda body: (200, {"choices": [{"text": "a1", "finish_reason": "stop"}]}))
    with pytest.raises(ReplyError, match="has no token_ids"):
        _sampler(policy, stub).sample([chat(1)], DECODING, n=1, seed=0)
    monkeypatch.setattr(stub, "answer", lambda body: (200, {"choices": []}))
    with pytest.raises(ReplyError, match="expected 1 choice"):
        _sampler(policy, stub).sample([chat(1)], DECODING, n=1, seed=0)


@pytest.mark.parametrize(
    ("choice", "text", "finish"),
    [
        ({"message": {"content": "a1a2"}, "finish_reason": "stop"}, "a1a2", "stop"),
        ({"message": {"content": None}, "finish_reason": "length"}, "", "length"),
        ({"text": "a5STOPa6", "finish_reason": "length"}, "a5", "stop"),
    ],
)
def test_text_replies_become_ids(policy: PolicyRef, choice: dict, text: str, finish: str) -> None:
    draw = Draw("m", DECODING, 1, 0, ("STOP",), frozenset({END}))
    completion = TransformersServe().read(choice, policy.load_tokenizer(), draw)
    words = [3 + int(word) for word in text.split("a") if word]
    assert completion == Completion(text, (*words, *([END] if finish == "stop" else [])), finish)
    with pytest.raises(ReplyError, match="finish reason stop or length, got 'content_filter'"):
        ChatMessages().read({"text": "", "finish_reason": "content_filter"}, policy.load_tokenizer(), draw)


def test_chat_requests_state_every_setting() -> None:
    draw = Draw("m", replace(DECODING, top_k=0), 2, 11, ("x",), frozenset({END, 7}))
    path, body = ChatMessages(takes_n=True).chat(chat(1), (0, 4), draw)
    assert path == "/chat/completions" and body["messages"] == [{"role": "user", "content": "a1"}]
    assert (body["n"], body["seed"], body["max_tokens"], body["stop"]) == (2, 11, 8, ["x"])
    assert "n" not in ChatMessages(takes_n=False).chat(chat(1), (0, 4), draw).body
    with pytest.raises(ValueError, match="decoding.top_k=50, which this server is not known to take"):
        ChatMessages().chat(chat(1), (0, 4), replace(draw, decoding=replace(DECODING, top_k=50)))
    _, body = TransformersServe().text("a1", (0, 4), draw)
    assert json.loads(body["generation_config"]) == {
        "max_new_tokens": 8, "eos_token_id": [END, 7], "pad_token_id": END, "do_sample": True, "temperature": 0.7,
        "top_p": 0.9, "top_k": 0,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["server", "vllm"])
def test_configs_bind(name: str, policy: PolicyRef) -> None:
    node = OmegaConf.load(ROOT / "conf" / "sampler" / f"{name}.yaml")
    sampler = instantiate(node, _convert_="all")(policy=policy)
    assert isinstance(sampler, ServerSampler)
    assert (sampler.server is None) == (name == "server")


def test_what_is_missing_is_named(policy: PolicyRef, stub: StubServer) -> None:
    assert _sampler(policy, stub).missing() == []
    nobody = ServerSampler(policy, VLLM(), base_url="http://127.0.0.1:9/v1")
    (line,) = nobody.missing()
    assert line == "server http://127.0.0.1:9/v1: it does not answer; start it, or set sampler.base_url"
    stub.models_status = 401
    (line,) = _sampler(policy, stub, key_variable="MY_KEY").missing()
    assert line.startswith(f"key for {stub.base_url}: it refuses the one in MY_KEY (AuthenticationError")
    stub.models_status = 500  # transformers serve without a model cache
    assert _sampler(policy, stub).missing() == []
    (line,) = ServerSampler(policy, VLLM(), server=VLLMServer("/no/such/environment")).missing()
    assert line.startswith("vLLM: no program '/no/such/environment'")


def test_settings_are_validated(policy: PolicyRef) -> None:
    with pytest.raises(ValueError, match="either base_url or server"):
        ServerSampler(policy, VLLM())
    with pytest.raises(ValueError, match="sampler.concurrency must be positive, got 0"):
        ServerSampler(policy, VLLM(), base_url="http://x/v1", concurrency=0)


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
    assert rows == _sampler(policy, expected).sample(chats, DECODING, n=1, seed=0)
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
        "import os, signal; from aipo.models import PolicyRef; from aipo.samplers.vllm_server import VLLMServer; "
        f"VLLMServer({str(environment / 'env')!r}, log={str(environment / 'vllm.log')!r})"
        f".start(PolicyRef({policy.path!r})); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    pid = _starts(environment)[0]["pid"]
    deadline = time.monotonic() + 10
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(pid)


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


_RESTARTED: list[subprocess.Popen] = []


def _kill_and_restart(process: subprocess.Popen, command: list[str], log: object, answers: Path) -> None:
    while sum(file.read_bytes().count(b"\n") for file in answers.glob("*.jsonl")) < 5:
        time.sleep(0.01)
    process.kill()
    process.wait()
    time.sleep(1)
    _RESTARTED.append(subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}))
