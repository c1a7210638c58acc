"""The Hugging Face sampler against `generate`, exact probabilities and teacher forcing."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare
from toy_models import BOS, END, chat, save, tiny

from aipo.models.policy import PolicyRef
from aipo.models.tokens import prompt_token_ids
from aipo.records import Completion, Decoding, Message
from aipo.samplers.cache import UnsupportedCacheError
from aipo.samplers.hf import HFSampler, _uniform

GREEDY = Decoding(temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=48)
PLAIN = Decoding(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=12)
FAMILIES = {
    "Llama": {}, "Qwen2": {}, "OPT": {"ffn_dim": 32, "word_embed_proj_dim": 16},
    "Mistral": {"sliding_window": 6},
    "Gemma2": {"sliding_window": 6, "query_pre_attn_scalar": 4, "attn_logit_softcapping": 5.0},
}  # fmt: skip
CHATS = [chat(1, 2, 3), chat(4), chat(5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6), chat(2, 2), chat(9, 8, 7, 6, 5, 4)]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> HFSampler:
    """A sampler of a model with 13 tokens, whose answers end after a few."""
    return HFSampler(PolicyRef(save(tiny("Llama", 13), tmp_path_factory.mktemp("llama"))))


def _tokens(rows: list[list[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[completion.token_ids for completion in row] for row in rows]


def _probabilities(sampler: HFSampler, ids: list[int]) -> torch.Tensor:
    model, _ = sampler.loaded()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].double().softmax(-1)


@pytest.mark.parametrize("kind", FAMILIES)
def test_greedy_equals_generate_with_mixed_lengths(kind: str, tmp_path: Path) -> None:
    settings = FAMILIES[kind]
    attention = "eager" if kind == "Gemma2" else "sdpa"
    sampler = HFSampler(PolicyRef(save(tiny(kind, 60, **settings), tmp_path), attn_implementation=attention))
    model, tokenizer = sampler.loaded()
    rows = sampler.sample(CHATS, GREEDY, n=2, seed=0)
    for words, (first, second) in zip(CHATS, rows, strict=True):
        prompt = torch.tensor([prompt_token_ids(tokenizer, words)])
        with torch.no_grad():
            output = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=48,
                pad_token_id=END,
            )
        theirs = output[0, prompt.shape[1] :].tolist()
        assert list(first.token_ids) == theirs and second.token_ids == first.token_ids
        assert first.finish == ("stop" if theirs[-1] == END else "length")


def _expected(probabilities: torch.Tensor, decoding: Decoding) -> dict[int, float]:
    """The textbook definition: temperature, then the top k, then the smallest set that reaches top_p."""
    weights = {token: float(p) ** (1 / decoding.temperature) for token, p in enumerate(probabilities)}
    ordered = sorted(weights, key=weights.__getitem__, reverse=True)
    ordered = ordered[: decoding.top_k] if decoding.top_k else ordered
    total = sum(weights[token] for token in ordered)
    kept, mass = [], 0.0
    for token in ordered:
        kept.append(token)
        mass += weights[token] / total
        if mass >= decoding.top_p:
            break
    total = sum(weights[token] for token in kept)
    return {token: weights[token] / total for token in kept}


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(1.0, 1.0, 0, 2), Decoding(0.4, 1.0, 50, 2), Decoding(1.3, 1.0, 3, 2), Decoding(1.0, 0.7, 0, 2),
        Decoding(1.5, 0.9, 5, 2),
    ],
    ids=["plain", "k_over_vocabulary", "top_k", "top_p", "both"],
)  # fmt: skip
def test_draws_follow_the_exact_distribution(llama: HFSampler, decoding: Decoding) -> None:
    draws = 4000
    (row,) = llama.sample([chat(1, 2)], decoding, n=draws, seed=3)
    observed = Counter(completion.token_ids for completion in row)
    prompt = list(prompt_token_ids(llama.loaded()[1], chat(1, 2)))
    expected: dict[tuple[int, ...], float] = {}
    for first, chance in _expected(_probabilities(llama, prompt), decoding).items():
        if first == END:
            expected[(first,)] = chance
            continue
        for second, after in _expected(_probabilities(llama, [*prompt, first]), decoding).items():
            expected[first, second] = chance * after
    assert set(observed) <= set(expected), "a token was drawn that the filters exclude"
    common = [pair for pair, chance in expected.items() if chance * draws >= 5]
    rare = sum(observed[pair] for pair in expected if pair not in common)
    counts = [observed[pair] for pair in common] + [rare]
    chances = [expected[pair] * draws for pair in common]
    counts, chances = (counts, [*chances, draws - sum(chances)]) if len(common) < len(expected) else (
        counts[:-1], chances
    )  # fmt: skip
    assert len(counts) > 2
    assert chisquare(counts, chances).pvalue > 1e-3


def test_log_probs_match_teacher_forcing(llama: HFSampler) -> None:
    model, tokenizer = llama.loaded()
    rows = llama.sample(CHATS, replace(PLAIN, temperature=0.7, top_k=6), n=4, seed=1)
    for words, row in zip(CHATS, rows, strict=True):
        prompt = prompt_token_ids(tokenizer, words)
        for completion in row:
            ids = torch.tensor([[*prompt, *completion.token_ids]])
            with torch.no_grad():
                logps = model(ids).logits[0, :-1].double().log_softmax(-1)
            targets = ids[0, 1:, None]
            forced = logps.gather(1, targets)[len(prompt) - 1 :].sum()
            assert completion.logp == pytest.approx(float(forced), abs=1e-4)


def test_batches_and_order_change_no_draw(llama: HFSampler) -> None:
    whole = _tokens(llama.sample(CHATS, PLAIN, n=6, seed=7))
    small = HFSampler(llama.policy, cache_tokens=1)
    assert _tokens(small.sample(CHATS, PLAIN, n=6, seed=7)) == whole
    assert _tokens(llama.sample(CHATS[::-1], PLAIN, n=6, seed=7)) == whole[::-1]
    assert _tokens(llama.sample(CHATS[2:4], PLAIN, n=6, seed=7)) == whole[2:4]
    assert [row[:3] for row in whole] == _tokens(llama.sample(CHATS, PLAIN, n=3, seed=7))
    assert _tokens(llama.sample(CHATS, PLAIN, n=6, seed=8)) != whole


def test_a_repeated_prompt_gets_its_own_draws(llama: HFSampler) -> None:
    first, second = _tokens(llama.sample([chat(1), chat(1)], PLAIN, n=8, seed=0))
    assert first != second and len(set(first)) > 1


def test_each_prompt_is_encoded_once(llama: HFSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = llama.loaded()
    forward, shapes = model.forward, []

    def spy(**arguments: torch.Tensor) -> object:
        shapes.append(tuple(arguments["input_ids"].shape))
        return forward(**arguments)

    monkeypatch.setattr(model, "forward", spy)
    llama.sample(CHATS, PLAIN, n=5, seed=0)
    assert shapes[0] == (len(CHATS), 13)  # 11 words, BOS and EOS
    assert shapes[1][0] <= 5 * len(CHATS) and {shape[1] for shape in shapes[1:]} == {1}
    assert shapes[-1][0] < shapes[1][0], "rows that have ended stay in the batch"


def test_nothing_is_inherited_from_the_generation_config(llama: HFSampler) -> None:
    model, _ = llama.loaded()
    before = _tokens(llama.sample(CHATS, PLAIN, n=3, seed=0))
    config = model.generation_config
    values = {"temperature": 0.01, "top_k": 1, "top_p": 0.1, "repetition_penalty": 9.0, "max_new_tokens": 1,
              "min_new_tokens": 9, "do_sample": False}  # fmt: skip
    old = {key: getattr(config, key) for key in values}
    try:
        config.update(**values)
        assert _tokens(llama.sample(CHATS, PLAIN, n=3, seed=0)) == before
    finally:
        config.update(**old)


@pytest.mark.parametrize("listed", [[END, 5], 7, None])
def test_every_listed_eos_ends_a_completion(llama: HFSampler, listed: list[int] | int | None) -> None:
    config = llama.loaded()[0].generation_config
    stops = {END} | set([] if listed is None else [listed] if isinstance(listed, int) else listed)
    old, config.eos_token_id = config.eos_token_id, listed
    try:
        rows = llama.sample(CHATS, replace(PLAIN, max_new_tokens=30), n=20, seed=0)
    finally:
        config.eos_token_id = old
    completions = [completion for row in rows for completion in row]
    assert {c.token_ids[-1] for c in completions if c.finish == "stop"} == stops
    for completion in completions:
        inner = completion.token_ids[:-1] if completion.finish == "stop" else completion.token_ids
        assert not stops & set(inner)
        assert completion.n_tokens == len(inner)
        assert completion.text == "".join(f"a{token - 3}" for token in inner if token > 2)


def test_a_completion_cut_at_the_limit_has_no_eos(llama: HFSampler) -> None:
    (row,) = llama.sample([chat(3)], replace(PLAIN, max_new_tokens=2), n=200, seed=0)
    cut = [completion for completion in row if completion.finish == "length"]
    ended = [completion for completion in row if completion.finish == "stop"]
    assert cut and ended
    assert all(len(completion.token_ids) == 2 and END not in completion.token_ids for completion in cut)
    assert {len(completion.token_ids) for completion in ended} == {1, 2}, "EOS as the last token allowed is a stop"


def test_a_completion_ends_where_the_context_does(tmp_path: Path) -> None:
    folder = save(tiny("Llama", 200, max_position_embeddings=16), tmp_path)
    sampler = HFSampler(PolicyRef(folder))
    short, long = sampler.sample([chat(1), chat(*range(1, 9))], replace(PLAIN, max_new_tokens=40), n=20, seed=0)
    assert max(len(completion.token_ids) for completion in short) == 16 - 3
    assert max(len(completion.token_ids) for completion in long) == 16 - 10
    with pytest.raises(ValueError, match="a prompt has 17 tokens, but .* has a context of 16"):
        sampler.sample([chat(*range(15))], PLAIN, n=1, seed=0)


def test_continuations_are_cut_before_the_first_stop_string(llama: HFSampler) -> None:
    texts = ["a1a2", "a3"]
    free = llama.complete(texts, replace(PLAIN, max_new_tokens=24), n=30, seed=0)
    cut = llama.complete(texts, replace(PLAIN, max_new_tokens=24), n=30, seed=0, stop=("a4", "a5a6"))
    hits = 0
    for row, other in zip(free, cut, strict=True):
        for whole, part in zip(row, other, strict=True):
            positions = [whole.text.index(stop) for stop in ("a4", "a5a6") if stop in whole.text]
            assert part.text == whole.text[: min(positions, default=len(whole.text))]
            assert part.finish == ("stop" if positions else whole.finish)
            assert whole.token_ids[: len(part.token_ids)] == part.token_ids
            hits += bool(positions)
    assert hits > 5


def test_a_continuation_starts_from_one_bos_and_plain_text(llama: HFSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    model, _ = llama.loaded()
    forward = model.forward

    def spy(**arguments: torch.Tensor) -> object:
        seen.extend(arguments["input_ids"].tolist())
        return forward(**arguments)

    monkeypatch.setattr(model, "forward", spy)
    llama.complete(["a1</s>a2"], replace(PLAIN, max_new_tokens=1), n=1, seed=0)
    assert seen == [[BOS, 4, 2, 2, 5]], "a control token's name in text is text: unknown here"


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("Mamba", {"state_size": 4}), ("Lfm2", {"layer_types": ["conv", "full_attention"]})],
)
def test_recurrent_models_are_refused(kind: str, settings: dict[str, object], tmp_path: Path) -> None:
    policy = PolicyRef(save(tiny(kind, 20, **settings), tmp_path), attn_implementation="eager")
    sampler = HFSampler(policy)
    with pytest.raises(UnsupportedCacheError, match=f"{kind}ForCausalLM keeps .*Sample it through a server"):
        sampler.sample([chat(1)], PLAIN, n=1, seed=0)


def test_the_noise_is_splitmix64() -> None:
    """0xE220A8397B1DCDAF is the first output of SplitMix64 with seed 0, as published with its reference code."""
    first = _uniform(torch.tensor([0]), 0)
    assert float(first) == (0xE220A8397B1DCDAF >> 11) * 2.0**-53
    many = _uniform(torch.arange(20_000) * 7919 - 10**9, 3)
    assert chisquare(torch.histc(many, 20, 0, 1).tolist()).pvalue > 1e-3


def test_settings_are_validated() -> None:
    with pytest.raises(ValueError, match="sampler.cache_tokens must be at least 1, got 0"):
        HFSampler(PolicyRef("somewhere"), cache_tokens=0)


def test_a_system_prompt_reaches_the_model(llama: HFSampler) -> None:
    system = (Message("system", "a1"), *chat(2))
    assert prompt_token_ids(llama.loaded()[1], system) == (BOS, 4, END, 5, END)
    assert math.isfinite(llama.sample([system], PLAIN, n=1, seed=0)[0][0].logp or 0.0)
