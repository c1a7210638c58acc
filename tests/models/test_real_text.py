"""The same loop on real instructions with a small random model: quality means nothing here, flow does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aipo.records import Candidates, read_parquet

CHAT = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def build_model(folder: Path, texts: list[str]) -> None:
    """A random Llama of about 0.3 M parameters and a byte-level BPE tokenizer of 2,000 entries trained on `texts`."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<|end|>", "<pad>"]
    bpe.train_from_iterator(texts, vocab_size=2000, special_tokens=special, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token="<s>", eos_token="<|end|>", pad_token="<pad>"
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.slow
def test_one_round_on_805_instructions(tmp_path: Path, repository: Path, verification_data: Path) -> None:
    file = verification_data / "alpaca_eval" / "alpaca_eval_gpt4_baseline.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    texts = [row["instruction"] for row in rows] + [row["output"] for row in rows]
    build_model(tmp_path / "model", texts)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": row["instruction"]}) + "\n" for row in rows), encoding="utf-8")
    overrides = [
        "model=local",
        f"model.path={tmp_path}/model",
        "data=pairrm_gen_uf",
        "data/source=local",
        f"data.source.path={prompts}",
        "ranker=length_only",
        "judge=length_only",
        "benchmark=[]",
        "iteration.iterations=1",
        "iteration.prompts=805",
        "iteration.candidates=2",
        "iteration.decoding.max_new_tokens=48",
        "data/filters=paper",
        "data.filters.truncated=keep",
        "trainer.max_length=2560",
        f"store.root={tmp_path}/outputs",
        f"hydra.run.dir={tmp_path}/sweep/jobs/0",
    ]
    result = subprocess.run(
        [sys.executable, "run.py", *overrides],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=540,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:] + result.stdout[-2000:]
    point = json.loads((tmp_path / "sweep/jobs/0/run.json").read_text())["points"][-1]
    assert point["iteration"] == 0
    pairs = json.loads((tmp_path / "outputs/pairs" / point["pairs"] / "manifest.json").read_text())
    assert pairs["counts"]["pairs"] + sum(pairs["dropped"].values()) == 805
    (candidates,) = (tmp_path / "outputs/candidates").iterdir()
    drawn = read_parquet(candidates / "candidates.parquet", Candidates)
    assert len(drawn) == 805 and all(len(row.completions) == 2 for row in drawn)
    assert sum(completion.n_tokens for row in drawn for completion in row.completions) > 805 * 2
    assert (tmp_path / "outputs/train" / point["train"] / "model" / "model.safetensors").exists()
