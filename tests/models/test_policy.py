"""Policies: presets, what is missing, what identifies their content."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from composing import composed
from hydra.utils import instantiate
from tiny_models import build

from aipo.models.policy import COMMIT, ModelError, PolicyRef
from aipo.models.shape import ModelShape
from aipo.pipeline.check import ConfigError, check
from aipo.pipeline.run import build_run
from aipo.pipeline.stages import Stages

ROOT = Path(__file__).resolve().parents[2]
PRESETS = (
    "mistral_7b_instruct_v02",
    "mistral_nemo_instruct_2407",
    "gemma_2_27b_it",
    "llama_3_70b_instruct",
    "mistral_large_2407",
    "qwen25_05b_instruct",
)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_pinned(preset: str) -> None:
    node = yaml.safe_load((ROOT / "conf" / "model" / f"{preset}.yaml").read_text(encoding="utf-8"))
    model = instantiate(node)
    assert COMMIT.fullmatch(model.revision)
    assert model.dtype == "bfloat16" and not model.trust_remote_code
    assert isinstance(model.shape, ModelShape)


def test_gemma_2_has_the_attention_that_transformers_gives_it() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        num_hidden_layers=1,
        hidden_size=8,
        intermediate_size=8,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        vocab_size=8,
    )
    node = yaml.safe_load((ROOT / "conf" / "model" / "gemma_2_27b_it.yaml").read_text(encoding="utf-8"))
    assert Gemma2ForCausalLM(config).config._attn_implementation == node["attn_implementation"]


def test_a_complete_folder_misses_nothing(folder: Path, tmp_path: Path) -> None:
    assert PolicyRef(str(folder)).missing_files() == []
    ref = replace(build("llama_tied", tmp_path / "real"), chat_template="{{ messages[0]['content'] }}")
    assert ref.missing() == []


def test_a_model_that_writes_no_chat_is_told_beforehand(tmp_path: Path) -> None:
    """The check said that nothing is missing, and the run failed at its first prompt."""
    folder = build("llama_tied", tmp_path / "real").path
    assert PolicyRef(folder, chat_template="{{ messages[0]['content'] }}").missing() == []
    (line,) = PolicyRef(folder, chat_template="{{ x").missing()
    assert line.startswith(f"{folder}: the chat template refuses a chat with the roles user: ")
    (line,) = PolicyRef(folder, chat_template="{{ raise_exception('no users') }}").missing()
    assert line == f"{folder}: the chat template refuses a chat with the roles user: no users"
    (line,) = PolicyRef(folder).missing()
    assert line == f"{folder}: no chat template; set model.chat_template"
    (Path(folder) / "tokenizer.json").write_text("{")
    (line,) = PolicyRef(folder).missing()
    assert line.startswith(f"{folder}: its tokenizer writes no chat (")


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_torn_config_is_named_by_the_check_of_plan_and_run_alike(folder: Path, text: str) -> None:
    """A plan ended with JSONDecodeError, and named no file."""
    assert PolicyRef(str(folder)).config_problem() is None
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        check(composed("scale=laptop", "model=local", f"model.path={folder}", "sweep=x", "plan=true"))
    (problem,) = caught.value.problems
    assert problem.startswith(f"model: {folder}/config.json") and "copy it from the model" in problem


def test_a_folder_of_another_kind_of_model_is_told(folder: Path) -> None:
    (line,) = PolicyRef(str(folder)).missing()
    assert line.startswith(f"{folder}: transformers cannot load it as a causal language model (")


def test_a_missing_folder_is_named() -> None:
    assert PolicyRef("/no/such/model").missing() == [
        "model folder /no/such/model: no such folder; set model.path to a Hugging Face folder or a hub id"
    ]


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (line,) = PolicyRef(str(folder)).missing()
    assert line.startswith(f"{folder}/*.safetensors: the folder has only pickled weights (pytorch_model.bin)")
    assert "save_pretrained, which writes safetensors" in line
    with pytest.raises(ModelError, match="only pickled weights"):
        PolicyRef(str(folder)).load_model()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_each_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (line,) = PolicyRef(str(folder)).missing()
    assert line.startswith(f"{folder}/{name.replace('model.', '*.')}")


@pytest.mark.parametrize("revision", [None, "main", "7ae5576"])
def test_a_hub_model_needs_a_commit(revision: str | None) -> None:
    (line,) = PolicyRef("someone/something", revision).missing()
    assert line.startswith("model.revision: expected the 40-digit commit of someone/something")
    assert line.endswith(f"got {revision!r}")


def test_a_hub_that_does_not_answer_is_a_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    (line,) = PolicyRef("someone/something", "0" * 40).missing()
    assert "the hub does not answer (ConnectionError)" in line
    assert f"`hf download someone/something --revision {'0' * 40}`" in line


def test_a_cached_hub_model_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    revision = "0" * 40
    snapshot = tmp_path / "models--someone--something" / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}", encoding="utf-8")
    find = huggingface_hub.try_to_load_from_cache
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda repo, name, revision: find(repo, name, revision=revision, cache_dir=tmp_path),
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: 1 / 0)
    assert "ZeroDivisionError" in PolicyRef("someone/something", revision).missing()[0]  # weights are not cached
    (snapshot / "model.safetensors").write_text("", encoding="utf-8")
    assert PolicyRef("someone/something", revision).missing() == []


def test_a_wrong_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="model.dtype must be one of float32, bfloat16, float16, got 'bf16'"):
        PolicyRef("somewhere", dtype="bf16")  # type: ignore[arg-type]


def test_identity_follows_the_content(folder: Path) -> None:
    before = PolicyRef(str(folder)).identity()
    (folder / "notes.txt").write_text("not part of the model", encoding="utf-8")
    assert PolicyRef(str(folder)).identity() == before
    (folder / "model.safetensors").write_text("{ }", encoding="utf-8")
    assert PolicyRef(str(folder)).identity() != before


def _base_model(folder: Path, *overrides: str) -> tuple[str, PolicyRef]:
    config = composed("scale=laptop", "model=local", f"model.path={folder}", "sweep=x", *overrides)
    policy = Stages(build_run(check(config))).base_model()
    return policy.fingerprint, policy.ref


def test_the_shape_changes_no_fingerprint(folder: Path) -> None:
    shape = {"_target_": "aipo.models.ModelShape"} | vars(ModelShape(2, 8, 16, 2, 1, 4, 10, False))
    stated = "model.shape={" + ",".join(f"{key}: {json.dumps(value)}" for key, value in shape.items()) + "}"
    without, ref = _base_model(folder)
    assert _base_model(folder, stated.replace(": ", ":")) == (without, ref)
    assert ref.shape is None
    assert _base_model(folder, "model.dtype=bfloat16")[0] != without


def test_a_saved_model_loads_in_the_stated_dtype(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig(
        num_hidden_layers=1,
        hidden_size=8,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=10,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(tmp_path)
    ref = PolicyRef(str(tmp_path), dtype="bfloat16", chat_template="{{ messages[0]['content'] }}")
    assert ref.missing() == []
    model = ref.load_model()
    assert model.dtype == torch.bfloat16 and not model.training
    tokenizer = ref.load_tokenizer()
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "a"


@pytest.mark.parametrize("listed", [{"temperature": 0.6, "top_p": 0.9}, {"temperature": 0.6, "do_sample": False}])
def test_a_model_with_an_invalid_generation_config_can_be_saved_again(tmp_path: Path, listed: dict) -> None:
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=1, hidden_size=8, intermediate_size=16, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=10,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2], **listed}), encoding="utf-8")
    PolicyRef(str(tmp_path)).load_model().save_pretrained(tmp_path / "again")
    saved = GenerationConfig.from_pretrained(tmp_path / "again")
    saved.validate(strict=True)
    assert saved.eos_token_id == [1, 2] and saved.temperature == 0.6 and saved.do_sample


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("GatedRepoError", "access to someone/something: accept its licence on its hub page and set HF_TOKEN"),
        ("RevisionNotFoundError", "model.revision: someone/something has no commit 0000"),
        ("RepositoryNotFoundError", "model someone/something: neither a local folder nor a public hub model"),
    ],
)
def test_what_the_hub_refuses_is_told_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, error: str, expected: str
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_: object, **__: object) -> None:
        kind = getattr(errors, error)
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    (line,) = PolicyRef("someone/something", "0" * 40).missing()
    assert line.startswith(expected)
