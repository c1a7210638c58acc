"""Tokenizer and base model: lossless text, one BOS, the same bits for the same seed."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from pathlib import Path

import pytest
import yaml

from aipo.miniature.base_model import MiniatureModel
from aipo.miniature.corpus import Corpus, Writer, write_task_list
from aipo.miniature.shipped import FOLDER, ShippedWeightsError, shipped_weights
from aipo.miniature.source import MiniatureSource
from aipo.miniature.tokenizer import SPECIAL_TOKENS, build_tokenizer, vocabulary
from aipo.miniature.world import FILLERS, count_words, draw_follow_up, draw_prompt
from aipo.models.policy import PolicyRef

TINY = MiniatureModel(
    hidden=16, layers=1, heads=2, n_documents=60, two_turn_share=0.2, task_list_share=0.2, omitted=0.25, wrong=0.25,
    filler=0.35, unasked=0.15, long_form=0.2, steps=20, batch=4, lr=4e-3, seed=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    TINY.build(path / "model")
    return path / "model"


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def plain_ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_every_token_survives_the_round_trip(tokenizer):
    for token in vocabulary():
        assert tokenizer.decode(plain_ids(tokenizer, token)) == token
        assert plain_ids(tokenizer, token) == [tokenizer.convert_tokens_to_ids(token)]
    assert len(tokenizer) == len(vocabulary()) == len(set(vocabulary()))


def test_every_text_of_the_world_survives_the_round_trip(tokenizer):
    rng = random.Random(0)
    texts = [write_task_list(rng) for _ in range(20)]
    for _ in range(300):
        request, text = draw_prompt(rng, held_out=True)
        texts += [text, draw_follow_up(rng, request)[1], Writer().write(rng, request)]
    texts += [response for example in _pool() for response in example.responses]
    texts += [f"{a} {b}\n\n{a}" for a in FILLERS for b in FILLERS]
    for text in texts:
        ids = plain_ids(tokenizer, text)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
        assert len(ids) == count_words(text), "the length bias counts the policy's own tokens"


def _pool():
    return MiniatureSource(n_prompts=100, rating_length_bias_per_token=0, rating_noise_sd=0, seed=0).load()[0]


def test_a_boundary_between_prompt_and_completion_merges_nothing(tokenizer):
    chat = [{"role": "user", "content": "And the pet?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    completion = "The miller keeps a cat."
    assert plain_ids(tokenizer, prompt + completion) == plain_ids(tokenizer, prompt) + plain_ids(tokenizer, completion)


def test_chat_template_by_hand(folder):
    tokenizer = PolicyRef(str(folder)).load_tokenizer()
    chat = [
        {"role": "user", "content": "And the pet?"},
        {"role": "assistant", "content": "Here is what I know."},
        {"role": "user", "content": "And the home?"},
    ]
    expected = (
        "<s><|user|>And the pet?<|end|><|assistant|>Here is what I know.<|end|>"
        "<|user|>And the home?<|end|><|assistant|>"
    )
    assert tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) == expected
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    assert tokenizer("And the pet?")["input_ids"].count(tokenizer.bos_token_id) == 1
    with pytest.raises(Exception, match="roles user and assistant, got system"):
        tokenizer.apply_chat_template([{"role": "system", "content": "x"}], tokenize=False)


def test_numbered_lists_have_tokens_of_their_own(tokenizer):
    assert tokenizer.convert_ids_to_tokens(plain_ids(tokenizer, "\n11. Tell me the pet")) == [
        "\n", "11", ".", " Tell", " me", " the", " pet",
    ]  # fmt: skip


def test_folder_is_an_ordinary_one(folder):
    from transformers import GenerationConfig

    model = PolicyRef(str(folder)).load_model()
    tokenizer = PolicyRef(str(folder)).load_tokenizer()
    generation = GenerationConfig.from_pretrained(folder)
    assert generation.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")
    assert model.config.vocab_size == len(tokenizer)
    assert set(SPECIAL_TOKENS) <= set(tokenizer.get_vocab())
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def weights_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_same_seed_same_bits_whatever_the_threads(folder, tmp_path):
    import torch

    state = torch.random.get_rng_state()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        counts = TINY.build(tmp_path / "again")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.random.get_rng_state(), state), "building must not touch the global generator"
    assert weights_sha256(tmp_path / "again") == weights_sha256(folder)
    assert counts["steps"] == 20 and counts["documents"] == 60 and counts["vocabulary"] == len(vocabulary())
    dataclasses.replace(TINY, seed=1).build(tmp_path / "other")
    assert weights_sha256(tmp_path / "other") != weights_sha256(folder)


def test_training_lowers_the_loss(tmp_path):
    start = dataclasses.replace(TINY, steps=1).build(tmp_path / "a")["loss"]
    assert dataclasses.replace(TINY, steps=60, lr=1e-2).build(tmp_path / "b")["loss"] < 0.8 * start


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 18, "heads": 4}, "even multiple of heads"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"wrong": 2.0}, "wrong must be a probability"),
        ({"task_list_share": 0.9}, "sum to at most 1"),
    ],
)
def test_bad_settings_are_refused_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


def test_corpus_of_a_model_is_its_own():
    assert TINY.corpus() == Corpus(60, 0.2, 0.2, Writer(0.25, 0.25, 0.35, 0.15, 0.2), 0)


@pytest.fixture(scope="module")
def default(repository):
    """The model of the default config."""
    node = yaml.safe_load((repository / "conf/model/miniature.yaml").read_text())
    return MiniatureModel(**{key: value for key, value in node.items() if key != "_target_"})


def test_the_default_model_is_the_package_s(default, tmp_path):
    import torch

    state = torch.random.get_rng_state()
    counts = default.build(tmp_path / "model")
    assert torch.equal(torch.random.get_rng_state(), state), "building must not touch the global generator"
    digest = hashlib.sha256((FOLDER / "base.safetensors").read_bytes()).hexdigest()
    assert digest == shipped_weights().sha256 == weights_sha256(tmp_path / "model")
    assert default.identity() == {"weights_sha256": digest}
    assert counts["parameters"] == 120768 and counts["loss"] < 0.65
    # It is the trained model: on documents it was not trained on, far better than the uniform ln 218 = 5.38.
    model = PolicyRef(str(tmp_path / "model")).load_model()
    documents = dataclasses.replace(default, n_documents=50, seed=12345)._encode(build_tokenizer())
    with torch.no_grad():
        losses = [float(model(input_ids=ids, labels=ids).loss) for ids in map(torch.tensor, ([d] for d in documents))]
    assert sum(losses) / len(losses) < 0.8


@pytest.mark.parametrize("change", [{"seed": 1}, {"hidden": 32}, {"steps": 2601}, {"retrain": True}])
def test_any_other_model_is_trained_here(default, change):
    model = dataclasses.replace(default, **change)
    assert model.shipped() is None and set(model.identity()) == {"torch", "world"}


def test_changed_weights_are_refused(default, tmp_path, monkeypatch):
    for name in ("base.json", "base.safetensors"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    monkeypatch.setattr("aipo.miniature.shipped.FOLDER", tmp_path)
    monkeypatch.setattr("aipo.miniature.shipped.vocabulary", lambda: ("another",))
    with pytest.raises(ShippedWeightsError, match="the miniature's vocabulary: expected SHA-256 .* model.retrain=true"):
        default.build(tmp_path / "model")
    content = bytearray((tmp_path / "base.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "base.safetensors").write_bytes(content)
    with pytest.raises(ShippedWeightsError, match="base.safetensors: expected SHA-256 503cd273"):
        default.build(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_training_again_gives_the_package_s_weights_or_says_how_far_off(default, tmp_path):
    """The same bits on the kind of CPU that made them; elsewhere a model as good, which has its own last bits."""
    import torch
    from safetensors.torch import load_file

    counts = dataclasses.replace(default, retrain=True).build(tmp_path / "model")
    ours, here = load_file(FOLDER / "base.safetensors"), load_file(tmp_path / "model" / "model.safetensors")
    distance = max(float((ours[name] - here[name]).abs().max()) for name in ours)
    assert set(here) == set(ours)
    assert counts["loss"] == pytest.approx(shipped_weights().counts["loss"], abs=0.01)
    if distance:
        kind = torch.backends.cpu.get_cpu_capability()
        pytest.skip(f"this CPU ({kind}) trains other weights, by up to {distance:.3g}; loss {counts['loss']:.4f}")
