"""Pairs in one row without padding: the same log-probs and gradients, the least work, the cheapest layout."""

from __future__ import annotations

import math
import random
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import build, pairs, plain_logps
from torch.utils.flop_counter import FlopCounterMode

from aipo.models.batching import collate, shared_row_tokens, token_batches
from aipo.models.capabilities import inspect_model
from aipo.models.layouts import LayerCosts, layer_costs, least_work, pair_lengths, work
from aipo.models.logps import PairScorer
from aipo.models.packing import NAME, PairLengths, pack
from aipo.records import Completion, Pair

PACKING = ["llama", "llama_tied", "mistral_wide_window", "qwen2", "cohere", "granite"]


class Packing(LayerCosts):
    """Costs under which every batch is packed."""

    def cheapest(self, pairs):
        return "packed"


def packing(model) -> PairScorer:
    scorer = PairScorer(model, cheapest=True)
    assert scorer.capabilities.packs
    scorer.costs = Packing(1.0, 1.0, 1.0)
    return scorer


def gradients(scorer: PairScorer, batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Both sides' log-probs, and the gradients of DPO's loss against a reference of 0."""
    scorer.model.zero_grad()
    sides = scorer(batch)
    (-torch.nn.functional.logsigmoid(0.1 * (sides.chosen - sides.rejected)).mean()).backward()
    return torch.stack(list(sides[:4])).detach(), [weight.grad.clone() for weight in scorer.model.parameters()]


@pytest.mark.parametrize("family", PACKING)
def test_packed_pairs_equal_rows_of_their_own(family: str, tmp_path: Path) -> None:
    model = build(family, tmp_path).load_model().double()
    batch = pairs(9)
    single = Pair("one", "one", batch[0].prompt_token_ids, batch[0].chosen, Completion("", (2,), "stop"), 1.0, 0.0)
    batch = [*batch, single]
    rows, wanted = gradients(PairScorer(model), collate(batch, shared=False))
    scorer = packing(model)
    laid = scorer.collate(batch)
    assert laid.input_ids.shape == (1, sum(shared_row_tokens(pair) for pair in batch))
    packed, found = gradients(scorer, laid)
    # Norms are float32 in a float64 model, too.
    torch.testing.assert_close(packed, rows, atol=1e-6, rtol=1e-7)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-6)


def test_float32_losses_and_gradients_agree_to_1e_6(tmp_path: Path) -> None:
    model = build("llama", tmp_path).load_model()
    batch = pairs(12, seed=3)
    rows, wanted = gradients(PairScorer(model), collate(batch, shared=False))
    scorer = packing(model)
    packed, found = gradients(scorer, scorer.collate(batch))
    torch.testing.assert_close(packed, rows, atol=2e-5, rtol=1e-6)  # sums of up to a hundred nats
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        expected = [float(plain_logps(model, pair.prompt_token_ids, pair.chosen.token_ids).sum()) for pair in batch]
    assert packed[0].tolist() == pytest.approx(expected, rel=1e-6)


def test_step_zero_is_ln_2_when_packed(tmp_path: Path) -> None:
    scorer = packing(build("llama", tmp_path).load_model())
    batch = scorer.collate(pairs(6))
    with torch.no_grad():
        policy, reference = scorer(batch), scorer(batch)
    margin = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)
    assert float(-torch.nn.functional.logsigmoid(0.1 * margin).mean()) == pytest.approx(math.log(2), abs=1e-6)


def test_a_pair_does_not_see_its_neighbours(tmp_path: Path) -> None:
    scorer = packing(build("llama", tmp_path).load_model())
    first, second, *_ = pairs(4)
    with torch.no_grad():
        one = scorer(scorer.collate([first, second]))
        other = scorer(scorer.collate([second, first]))
    assert one.chosen.tolist() == pytest.approx(other.chosen.flip(0).tolist(), abs=1e-5)
    assert one.rejected.tolist() == pytest.approx(other.rejected.flip(0).tolist(), abs=1e-5)


def test_checkpointed_layers_know_the_pairs_in_backward(tmp_path: Path) -> None:
    model = build("llama", tmp_path).load_model().double()
    scorer = packing(model)
    batch = scorer.collate(pairs(5))
    _, wanted = gradients(scorer, batch)
    model.activation_checkpointing_enable()
    model.train()
    _, found = gradients(scorer, batch)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_a_model_that_cannot_pack_keeps_its_attention(tmp_path: Path) -> None:
    for family in ("gemma2", "gpt2"):
        model = build(family, tmp_path / family).load_model()
        before = model.config._attn_implementation
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scorer = PairScorer(model, cheapest=True)
        if not scorer.capabilities.packs:
            assert model.config._attn_implementation == before and not scorer.packs
    model = build("llama", tmp_path / "llama").load_model()
    assert not PairScorer(model).capabilities.packs and model.config._attn_implementation == "sdpa"
    assert inspect_model(model, packed=True).packs and model.config._attn_implementation == "sdpa"
    PairScorer(model, cheapest=True)
    assert model.config._attn_implementation == NAME


def test_a_layout_that_a_model_cannot_have_is_told(tmp_path: Path) -> None:
    model = replace(build("llama", tmp_path), attn_implementation="eager").load_model()
    with pytest.warns(UserWarning, match="with eager attention: its pairs cannot be packed, so layout=cheapest"):
        PairScorer(model, cheapest=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        PairScorer(model)
        PairScorer(build("llama", tmp_path / "sdpa").load_model(), cheapest=True)


def test_a_narrow_window_still_gets_rows_of_its_own(tmp_path: Path) -> None:
    model = build("mistral_narrow_window", tmp_path).load_model()
    batch = pairs(8)
    with torch.no_grad(), pytest.warns(UserWarning, match="attention window of 16"):
        plain = PairScorer(model)
        wanted = plain(plain.collate(batch))
        scorer = packing(model)
        laid = scorer.collate(batch)
        found = scorer(laid)
    assert laid.packed is None and not laid.shared
    torch.testing.assert_close(found.chosen, wanted.chosen, atol=1e-5, rtol=1e-6)


def like_ultrafeedback(count: int, seed: int) -> list[PairLengths]:
    """Log-normal lengths with UltraFeedback's means: prompts of 200 tokens, completions of 330."""
    rng = random.Random(seed)

    def length(mean: int) -> int:
        return max(2, min(2048, round(rng.lognormvariate(math.log(mean) - 0.32, 0.8))))

    return [PairLengths(length(200), length(330), length(330)) for _ in range(count)]


def test_packed_work_is_near_the_least_on_ultrafeedback_like_lengths() -> None:
    # The 1.2 B Llama of speed/workplace.py, by its own numbers: 16 layers, width 2048, 8 of 32 heads for keys.
    matrices = 16 * (2048 * (2 * 2048 + 2 * 512) + 3 * 2048 * 8192)
    costs = LayerCosts(2 * matrices, 4 * 16 * 2048, 0.0)
    lengths = like_ultrafeedback(512, 0)
    tokens = padding = 0
    spent = least = rows = 0.0
    for batch in token_batches([pair.tokens for pair in lengths], 16_384):
        mine = [lengths[place] for place in batch]
        assert costs.cheapest(mine) == "packed"
        found = work("packed", mine)
        tokens, padding = tokens + found.tokens, padding + found.padding
        spent, least = spent + costs.flops(found), least + costs.flops(least_work(mine))
        rows += costs.flops(work("separate", mine))
    assert tokens == sum(pair.tokens for pair in lengths)
    assert padding <= 0.03 * tokens
    assert spent <= 1.05 * least
    assert rows > 1.3 * spent  # what two padded rows a pair cost


def test_work_by_hand() -> None:
    short, long = PairLengths(10, 4, 6), PairLengths(3, 5, 9)
    assert (short.masked, long.masked) == (True, False)
    assert short.cells == 14**2 / 2 + 6 * 16
    assert long.cells == 8**2 / 2 + 12**2 / 2
    assert work("packed", [short, long]).tokens == 37
    shared = work("shared", [short, long])
    assert (shared.tokens, shared.padding, shared.cells, shared.calls) == (40, 3, 2 * 400, 1)
    separate = work("separate", [short, long])  # rows of 16, 14, 16, 8, 12, 12 ... padded to 16
    assert (separate.tokens, separate.padding) == (4 * 16, 4 * 16 - (14 + 16 + 8 + 12))
    assert least_work([short]).cells == 14**2 / 2 + 10 * 6 + 6**2 / 2


def test_calls_decide_for_tiny_models_and_tokens_for_large_ones() -> None:
    even = [PairLengths(10, 10, 10)] * 16
    assert LayerCosts(1e3, 1.0, 1e9).cheapest(even) != "packed"
    assert LayerCosts(1e6, 1.0, 1e3).cheapest([PairLengths(10, 10, 10), PairLengths(100, 10, 10)]) == "packed"


def test_the_counted_work_is_what_a_model_does(tmp_path: Path) -> None:
    model = build("llama", tmp_path).load_model()
    batch = pairs(6)
    costs, lengths = layer_costs(model, "cpu"), pair_lengths(batch)
    for shared, kind in ((True, "packed"), (True, "shared"), (False, "separate")):
        laid = collate(batch, shared=shared)
        laid = pack(laid) if kind == "packed" else laid
        scorer = packing(model)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            scorer(laid)
        products = counter.get_flop_counts()["Global"]
        linear = sum(count for name, count in products.items() if "attention" not in str(name))
        head = 2 * len(laid.targets) * model.get_output_embeddings().weight.numel()
        assert linear == work(kind, lengths).tokens * costs.token + head
