"""The export of a trained policy: an ordinary folder with the same weights, and a card that says what artifacts say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_tokenizers import llama_3

from aipo.artifacts import seal
from aipo.artifacts.files import prune
from aipo.jobs import SCHEMA
from aipo.models.policy import PolicyRef
from analysis.hub import head
from analysis.model_card import LENGTH_PLOT, ExportError, Job, export_policy, main

MODEL_NODE = {
    "_target_": "aipo.models.PolicyRef", "path": "someone/tiny", "revision": "0" * 40, "dtype": "bfloat16",
}  # fmt: skip

SOURCE = {"_target_": "x.UltraFeedback", "path": "someone/preferences", "revision": "1" * 40}
SETTINGS = {"model": MODEL_NODE, "data": {"_target_": "x.Recipe", "source": SOURCE}}


def _artifact(
    store: Path, stage: str, digest: str, config: dict, parents: dict, write: Callable | None = None, **more: Any
) -> Path:
    folder = store / stage / digest
    folder.mkdir(parents=True)
    if write is not None:
        write(folder)
    content = {"stage": stage, "fingerprint": digest, "config": config, "parents": parents}
    seal(folder, {**content, "counts": {}, "dropped": {}, **more})
    return folder


def _scores(store: Path, digest: str, score: float, length: float) -> None:
    rows = [
        {"name": "win_rate", "value": score, "ci95": [score - 2, score + 2], "n_scored": 98, "n_unscored": 2},
        {"name": "mean_chars", "value": length, "ci95": None, "n_scored": 100, "n_unscored": 0},
    ]
    _artifact(store, "scores", digest, {}, {}, lambda folder: (folder / "metrics.json").write_text(json.dumps(rows)))


def _score(digest: str, diagnostic: str = "") -> dict[str, Any]:
    judge = diagnostic or "judge-x"
    return {"benchmark": "ae", "judge": judge, "diagnostic": bool(diagnostic), "fingerprint": digest}


def _save_model(folder: Path) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = llama_3()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, bos_token_id=0, eos_token_id=[1, 4],
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job of two rounds whose second one was trained with AIPO's objective."""
    store = tmp_path / "store"
    decoding = {"_target_": "aipo.records.Decoding", "temperature": 0.4, "top_k": 50}
    _artifact(store, "pool", "pool", {"source": {"_target_": "x.UltraFeedback", "split": "train"}}, {})
    points = [{"iteration": -1, "policy": "b", "scores": [_score("s-1")]}]
    _scores(store, "s-1", 10.0, 1500.0)
    for number in (0, 1):
        _artifact(store, "prompts", f"prompts{number}", {"prompts": "pool", "count": 20}, {"pool": "pool"})
        config = {"responses": "generated", "decoding": decoding, "candidates": 5}
        _artifact(store, "candidates", f"c{number}", config, {"prompts": f"prompts{number}"})
        _artifact(store, "ranking", f"r{number}", {"ranker": {"_target_": "x.PairRM"}}, {"candidates": f"c{number}"})
        _artifact(
            store, "pairs", f"p{number}", {}, {"candidates": f"c{number}", "ranking": f"r{number}"},
            counts={"pairs": 17 + number, "chosen_tokens": 300.5, "rejected_tokens": 280.0},
            dropped={"url": 2, "tie": 1 - number, "empty": 0},
        )  # fmt: skip
        _artifact(store, "reference", f"ref{number}", {}, {}, counts={"pairs": 17, "agreement": 0.625})
        objective = {"name": "aipo", "loss": {"_target_": "aipo.objectives.aipo", "beta": 0.1, "alpha": 0.07}}
        _artifact(
            store, "train", f"t{number}", {"objective": objective, "trainer": {"_target_": "x.Trainer"}}, {},
            lambda folder: _save_model(folder / "model"),
            created="2026-01-02T03:04:05Z", commit=None, packages={"torch": "2.13.0"},
        )  # fmt: skip
        _scores(store, f"s{number}", 20.0 + number, 1700.0 + number)
        points.append({
            "iteration": number, "policy": f"t{number}", "pairs": f"p{number}", "reference": f"ref{number}",
            "train": f"t{number}", "scores": [_score(f"s{number}"), _score(f"s{number}", "second")],
        })  # fmt: skip
    folder = tmp_path / "jobs" / "0"
    folder.mkdir(parents=True)
    record = {
        "status": "done", "error": None, "objective": "aipo", "seed": 3, "model": "some_preset",
        "data": "pairrm_gen_uf",
        "overrides": ["objective=aipo", "seed=3"], "store": str(store), "points": points,
        "benchmarks": [{"name": "ae", "primary_metric": "win_rate", "length_metric": "mean_chars", "official": True}],
        "needs_world": False, "choices": {}, "settings": SETTINGS, "schema": SCHEMA,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_the_folder_is_the_trained_model(job: Path, tmp_path: Path) -> None:
    out = export_policy(job, tmp_path / "shared" / "my-model")
    policy = PolicyRef(str(out), dtype="bfloat16")
    model, saved = policy.load_model(), _save_model(tmp_path / "again")
    assert model.dtype == torch.bfloat16
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    for name, weight in saved.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert model.generation_config.eos_token_id == [1, 4]
    tokenizer = policy.load_tokenizer()
    assert tokenizer.chat_template == llama_3().chat_template
    assert tokenizer("Hello")["input_ids"] == llama_3()("Hello")["input_ids"]
    assert (out / LENGTH_PLOT).read_bytes()[:4] == b"\x89PNG"
    assert not out.with_name("my-model.partial").exists()


def test_the_card_says_what_the_artifacts_say(job: Path, tmp_path: Path) -> None:
    text = (export_policy(job, tmp_path / "my-model") / "README.md").read_text(encoding="utf-8")
    for line in (
        "base_model: someone/tiny",
        "# my-model",
        f"| base model | someone/tiny at {'0' * 40} |",
        "| objective | aipo (beta 0.1, alpha 0.07) |",
        "| responses | 5 of its own for each prompt: Decoding (temperature 0.4, top_k 50) |",
        "| source of prompts | UltraFeedback (split train) |",
        "| 1 | 17 | url 2, tie 1 | 300.5 | 280 | 62.5 % |",
        "| 2 | 18 | url 2 | 300.5 | 280 | 62.5 % |",
        "| ae | judge-x | win_rate | 21 [19, 23] | 10 [8, 12] | 98 (2 unscored) |",
        "| ae | judge-x | mean_chars | 1701 | 1500 | 100 (0 unscored) |",
        "| base | 10 [8, 12] | 1500 |",
        "| 2 | 21 [19, 23] | 1701 |",
        "| training artifact of round 2 | t1 |",
        "| overrides | `objective=aipo` `seed=3` |",
    ):
        assert line in text.splitlines(), line
    assert "after 2 round(s)" in text and "**aipo** (seed 3)" in text
    assert "behind a figure is 98; at most 2 were left unscored" in text
    assert "A toy" not in text


def test_an_earlier_round_knows_nothing_of_later_ones(job: Path, tmp_path: Path) -> None:
    text = (export_policy(job, tmp_path / "out", number=1) / "README.md").read_text(encoding="utf-8")
    assert "| ae | judge-x | win_rate | 20 [18, 22] | 10 [8, 12] | 98 (2 unscored) |" in text
    assert "t1" not in text and "after 1 round(s)" in text


def test_the_header_is_yaml_that_the_hub_reads(job: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard.load(export_policy(job, tmp_path / "out") / "README.md").data
    assert data.base_model == "someone/tiny" and data.library_name == "transformers"
    assert data.tags == ["preference-optimization", "aipo"]
    assert data.datasets == ["someone/preferences"]
    assert (data.license, data.license_name) == ("other", "that-of-the-base-model")
    found = sorted((r.dataset_name, r.dataset_config, r.metric_type, r.metric_value) for r in data.eval_results)
    assert found == [
        ("ae", "judged by judge-x", "mean_chars", 1701.0),
        ("ae", "judged by judge-x", "win_rate", 21.0),
        ("ae", "judged by second", "mean_chars", 1701.0),
        ("ae", "judged by second", "win_rate", 21.0),
    ]
    assert data.model_name == "out" and {r.task_type for r in data.eval_results} == {"text-generation"}


def test_the_licence_is_that_of_the_base_model(job: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: llama3\n---\n# A model\n", encoding="utf-8")
    read = Job.read(job).record
    for model, expected in (
        ({"path": str(base)}, "license: llama3"),
        ({"_target_": "aipo.miniature.MiniatureModel"}, "license: apache-2.0"),
        ({"path": "no one/has this"}, "license: other"),
    ):
        assert expected in head(replace(read, settings={"model": model}), "dpo", "mine", []).splitlines()


def test_errors_are_one_line(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    cases = (
        ([str(tmp_path), "--out", str(out)], "run.json: no such file; expected a job's folder"),
        ([str(job), "--out", str(job)], "exists already; choose another folder"),
        (
            [str(job), "--out", str(out), "--round", "7"],
            f"error: {job} (done): no evaluated round 7; there is: 1, 2; choose one of these with --round",
        ),
    )
    for arguments, expected in cases:
        assert main(arguments) == 1
        assert expected in capsys.readouterr().err
    assert main([str(job), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == f"wrote {out}"


def test_a_folder_that_would_not_load_is_not_exported(job: Path, tmp_path: Path) -> None:
    model = tmp_path / "store" / "train" / "t1" / "model"
    manifest = json.loads((model.parent / "manifest.json").read_text())
    (model / "chat_template.jinja").unlink()
    with pytest.raises(ExportError, match="chat_template.jinja: the manifest lists .* it is missing"):
        export_policy(job, tmp_path / "out")
    seal(model.parent, manifest)
    with pytest.raises(ExportError, match="out.partial: no chat template; "):
        export_policy(job, tmp_path / "out")
    prune(model.parent)
    with pytest.raises(ExportError, match="its weights were pruned"):
        export_policy(job, tmp_path / "out")
    (model.parent / ".pruned").unlink()
    seal(model.parent, manifest)
    with pytest.raises(ExportError, match="safetensors: the folder has none"):
        export_policy(job, tmp_path / "out")
    (tmp_path / "store" / "pairs" / "p1" / "manifest.json").unlink()
    with pytest.raises(ExportError, match="p1/manifest.json cannot be read .* run the same command again"):
        export_policy(job, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_from_a_config_are_shown_and_nothing_else(job: Path) -> None:
    import yaml

    from analysis.model_card import card

    evil = 'x: y\n---\n<script>alert(1)</script> | [a](javascript:b) "'
    read = Job.read(job)
    settings = {**read.record.settings, "model": {"path": evil}}
    text = card(replace(read, record=replace(read.record, settings=settings)), 0, "<img src=x>")
    header, _, body = text.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(header)["base_model"] == evil
    assert "# &lt;img src=x&gt;" in body and "alert(1)" in body
    assert "<script>" not in body and "<img" not in body and "](javascript" not in body
