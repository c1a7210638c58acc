"""The short way through a small Llama, and a batch whose rows end at different times."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy_models import chat, save, tiny

from aipo.models.policy import PolicyRef
from aipo.records import Decoding
from aipo.samplers import hf
from aipo.samplers.cache import growing_cache
from aipo.samplers.hf import HFSampler, _closed_up
from aipo.samplers.small_llama import small_llama


@pytest.mark.parametrize("padded", [False, True])
def test_logits_are_those_of_transformers(padded: bool) -> None:
    model = tiny("Llama", 31, num_key_value_heads=4)
    short = small_llama(model)
    torch.manual_seed(0)
    ids = torch.randint(31, (3, 5))
    mask = torch.ones(3, 12, dtype=torch.long)
    if padded:
        mask[0, :3] = mask[2, :1] = 0
    caches = [growing_cache(model.config), growing_cache(model.config)]
    positions = (mask[:, :5].cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        for cache in caches:
            model(input_ids=ids, attention_mask=mask[:, :5], position_ids=positions, past_key_values=cache)
        for step in range(6):
            tokens, at = torch.randint(31, (3,)), positions[:, -1] + step + 1
            seen = mask[:, : 6 + step]
            plain = model(
                input_ids=tokens[:, None], attention_mask=seen, position_ids=at[:, None], past_key_values=caches[0]
            ).logits[:, -1]
            ours = short(tokens, at, seen.bool() if padded else None, caches[1])
            assert torch.allclose(ours, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Llama", {"attention_bias": True}),
        ("Llama", {"mlp_bias": True}),
        ("Llama", {"num_key_value_heads": 2}),
        ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
        ("Llama", {"hidden_act": "gelu"}),
        ("Qwen2", {}),
        ("Mistral", {}),
    ],
)
def test_other_models_go_the_long_way(kind: str, settings: dict[str, object]) -> None:
    assert small_llama(tiny(kind, 31, **({"num_key_value_heads": 4} | settings))) is None


def test_same_completions_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = PolicyRef(save(tiny("Llama", 13, num_key_value_heads=4), tmp_path))
    chats = [chat(1, 2, 3), chat(4), chat(5, 6, 7, 8, 9), chat(2, 2)]
    decoding = Decoding(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=40)
    short = HFSampler(ref).sample(chats, decoding, n=8, seed=3)
    monkeypatch.setattr("aipo.samplers.small_llama.small_llama", lambda model: None)
    monkeypatch.setattr(hf, "SHRINK_AT", 0.5)
    long = HFSampler(ref).sample(chats, decoding, n=8, seed=3)
    for ours, theirs in zip(sum(short, []), sum(long, []), strict=True):
        assert (ours.text, ours.token_ids, ours.finish) == (theirs.text, theirs.token_ids, theirs.finish)
        assert ours.logp == pytest.approx(theirs.logp, abs=1e-4)


def test_closing_up_moves_few_rows() -> None:
    running = torch.tensor([True, False, True, False, True, True])
    assert _closed_up(running, 4).tolist() == [0, 4, 2, 5]


def test_cache_rows_follow_their_indices() -> None:
    """Repeating, appending and selecting, against plain tensors."""
    cache = growing_cache(tiny("Llama", 13, num_hidden_layers=1).config)
    torch.manual_seed(0)
    expected = torch.randn(3, 2, 4, 8)
    cache.update(expected, -expected, 0)
    cache.batch_repeat_interleave(2)
    expected = expected.repeat_interleave(2, 0)
    for indices in ([5, 1, 2], [0, 1, 2], [2, 0]):
        for _ in range(20):
            new = torch.randn(len(expected), 2, 1, 8)
            cache.update(new, -new, 0)
            expected = torch.cat([expected, new], dim=2)
        cache.batch_select_indices(torch.tensor(indices))
        expected = expected[indices]
        keys, values = cache.layers[0].keys, cache.layers[0].values
        assert torch.equal(keys, expected) and torch.equal(values, -expected)
