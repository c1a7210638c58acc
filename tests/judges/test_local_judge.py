"""A model in this process as judge: greedy text and log-probs are the model's own."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aipo.judges.local import LocalJudge
from aipo.models import PolicyRef
from aipo.records import Message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<pad>", "<end>", "<user>", "<model>", "m", "M", "which", "is", "better", "?"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")
    fast.add_special_tokens({"additional_special_tokens": ["<user>", "<model>"]})
    fast.chat_template = (
        "{% for m in messages %}{{ ('<user> ' if m['role'] == 'user' else '<model> ') + m['content'] + ' <end> ' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<model> ' }}{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        eos_token_id=1,
        bos_token_id=None,
        pad_token_id=0,
    )
    out = tmp_path_factory.mktemp("judge")
    LlamaForCausalLM(config).save_pretrained(out)
    fast.save_pretrained(out)
    return out


def test_log_probs_and_text_are_the_models(folder: Path) -> None:
    judge = LocalJudge(PolicyRef(str(folder)), "local")
    chats = [(Message("user", "which is better ?"),), (Message("user", "M"),)]
    replies = judge.reply(chats, max_tokens=1, top_logprobs=4)
    model, tokenizer = PolicyRef(str(folder)).load_model(), PolicyRef(str(folder)).load_tokenizer()
    for chat, reply in zip(chats, replies, strict=True):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": chat[0].content}], add_generation_prompt=True, tokenize=False
        )
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        with torch.inference_mode():
            expected = model(ids).logits[0, -1].log_softmax(-1)
        order = expected.argsort(descending=True)[:4].tolist()
        assert list(reversed(reply.top_logprobs)) == [tokenizer.decode([token]) for token in order]
        for token in order:
            assert reply.top_logprobs[tokenizer.decode([token])] == pytest.approx(expected[token].item(), abs=1e-5)
        assert math.exp(sum(reply.top_logprobs.values())) < 1
    assert judge.reply(chats, max_tokens=1)[0].top_logprobs is None


def test_identity_follows_the_content_and_a_missing_folder_is_named(folder: Path, tmp_path: Path) -> None:
    assert "sha256" in LocalJudge(PolicyRef(str(folder)), "local").identity()
    (line,) = LocalJudge(PolicyRef(str(tmp_path / "no" / "folder")), "local").missing()
    assert "no such folder" in line
