"""The server sampler: ids, retries, resuming and restarting with a stub of vLLM."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from stub_server import StubServer, tokens
from toy_models import END, chat

from aipo.models.policy import PolicyRef
from aipo.models.tokens import prompt_token_ids
from aipo.records import Completion, Decoding
from aipo.samplers.protocols import VLLM, ChatMessages, Draw, ReplyError, TransformersServe
from aipo.samplers.server import SamplingError, ServerSampler
from aipo.samplers.vllm_server import VLLMServer

ROOT = Path(__file__).resolve().parents[2]
DECODING = Decoding(temperature=0.7, top_p=0.9, top_k=0, max_new_tokens=8)
CHATS = [chat(1, 2), chat(3), chat(4, 5, 6), chat(7), chat(1, 2)]


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
    assert sum("does not answer (" in line and "waiting up to 20 s" in line for line in lines) == 1
    assert sum("answers again, after" in line for line in lines) == 1
    assert all(record.name == "aipo" for record in caplog.records), "a line for every request"
    back[0].close()
    expected.close()


def test_a_killed_run_asks_only_for_the_rest(policy: PolicyRef, tmp_path: Path) -> None:
    server = StubServer(policy.path, die_after=3)
    settings = {"resume_folder": str(tmp_path), "max_wait_s": 0.1, "concurrency": 1}
    with pytest.raises(SamplingError, match="did not answer for .*What was answered is kept: see to the server"):
        _sampler(policy, server, **settings).sample(CHATS, DECODING, n=2, seed=0)
    (file,) = tmp_path.glob("*/*.jsonl")
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


def test_a_refused_request_is_told_at_once(policy: PolicyRef, stub: StubServer) -> None:
    with pytest.raises(SamplingError, match="refuses this request: BadRequestError.*maximum context length is 50"):
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
    with pytest.raises(SamplingError, match="given up after 5 attempts; the last: .*index out of range"):
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
    config = OmegaConf.create({"store": {"root": "/shared/store"}, "sampler": node})
    sampler = instantiate(config.sampler, _convert_="all")(policy=policy)
    assert isinstance(sampler, ServerSampler)
    # What was answered already, and the server's log, lie with the store wherever that is.
    assert sampler.resume_folder == "/shared/store/.requests"
    assert sampler.server is None or sampler.server.log == "/shared/store/vllm.log"
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
