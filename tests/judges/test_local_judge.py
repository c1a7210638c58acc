"""A model in this process as judge: greedy text and log-probs are the model's own."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from tiny_judge import save_tiny_judge

from aipo.judges.local import LocalJudge
from aipo.models.policy import PolicyRef
from aipo.records import Message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_judge(tmp_path_factory.mktemp("judge"))


def test_log_probs_and_text_are_the_models(folder: Path) -> None:
    judge = LocalJudge(PolicyRef(str(folder)), "local")
    chats = [(Message("user", "which is better ?"),), (Message("user", "M"),)]
    replies = judge.reply(chats, max_tokens=1, top_logprobs=3)
    model, tokenizer = PolicyRef(str(folder)).load_model(), PolicyRef(str(folder)).load_tokenizer()
    for chat, reply in zip(chats, replies, strict=True):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": chat[0].content}], add_generation_prompt=True, tokenize=False
        )
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        with torch.inference_mode():
            expected = model(ids).logits[0, -1].log_softmax(-1)
        order = expected.argsort(descending=True)[:3].tolist()
        assert list(reversed(reply.top_logprobs)) == [tokenizer.decode([token]) for token in order]
        for token in order:
            assert reply.top_logprobs[tokenizer.decode([token])] == pytest.approx(expected[token].item(), abs=1e-5)
        assert math.exp(sum(reply.top_logprobs.values())) < 1
    assert judge.reply(chats, max_tokens=1)[0].top_logprobs is None


def test_identity_follows_the_content_and_a_missing_folder_is_named(folder: Path, tmp_path: Path) -> None:
    judge = LocalJudge(PolicyRef(str(folder)), "local")
    shutil.copytree(folder, tmp_path / "elsewhere")
    same = LocalJudge(PolicyRef(str(tmp_path / "elsewhere")), "local")
    assert judge.identity() == same.identity() and str(folder) not in str(judge.identity())
    chats = [(Message("user", "M"),)]
    (reply,) = judge.reply(chats, max_tokens=1)
    assert same.reply(chats, max_tokens=1) == [reply] and reply.model == f"sha256 {judge.identity()['sha256'][:12]}"
    for other in (PolicyRef(str(folder), dtype="bfloat16"), PolicyRef(str(folder), chat_template="{{ messages }}")):
        assert LocalJudge(other, "local").identity() != judge.identity()
    (tmp_path / "elsewhere" / "tokenizer.json").write_text("{}")
    assert LocalJudge(PolicyRef(str(tmp_path / "elsewhere")), "local").identity() != judge.identity()
    assert LocalJudge(PolicyRef("hub/model", "0" * 40), "local").identity()["model"] == "hub/model"
    (line,) = LocalJudge(PolicyRef(str(tmp_path / "no" / "folder")), "local").missing()
    assert "no such folder" in line
