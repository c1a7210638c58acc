"""The log-prob primitive against a plain implementation: families, layouts, padding, windows, heads, precision."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FAMILIES, build, pairs, plain_logps

from aipo.models.batching import attention_mask, collate, require_trainable, shared_row_tokens, token_batches
from aipo.models.capabilities import UnsupportedModelError
from aipo.models.logps import PairScorer, SideLogps


def _stacked(sides: SideLogps) -> torch.Tensor:
    """The columns that every scorer gives, (4, pairs)."""
    return torch.stack([column for column in sides if column is not None])


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory):
    """Family -> (scorer, whether it warned), each built once."""
    made = {}

    def get(family: str):
        if family not in made:
            policy = build(family, tmp_path_factory.mktemp(family))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                made[family] = PairScorer(policy.load_model()), [str(item.message) for item in caught]
        return made[family]

    return get


def expected(scorer: PairScorer, batch: list) -> torch.Tensor:
    """(4, pairs): chosen, rejected and both prefixes, by the plain implementation."""
    columns = []
    for pair in batch:
        chosen = plain_logps(scorer.model, pair.prompt_token_ids, pair.chosen.token_ids)
        rejected = plain_logps(scorer.model, pair.prompt_token_ids, pair.rejected.token_ids)
        shorter = min(len(chosen), len(rejected))
        columns.append([chosen.sum(), rejected.sum(), chosen[:shorter].sum(), rejected[:shorter].sum()])
    return torch.tensor(columns).T


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_parity_with_the_plain_implementation(family: str, scorers) -> None:
    scorer, _ = scorers(family)
    batch = pairs(9)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a narrow window says that rows are separate; tested below
        found = _stacked(scorer(scorer.collate(batch))).double()
        torch.testing.assert_close(found, expected(scorer, batch), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "mistral_wide_window", "cohere", "granite"])
def test_rows_are_shared_where_the_model_allows_it(family: str, scorers) -> None:
    scorer, warned = scorers(family)
    assert scorer.collate(pairs(3)).shared and warned == []


@pytest.mark.parametrize("family", ["mistral_narrow_window", "gemma2_narrow_window"])
def test_a_narrow_window_gets_rows_of_its_own_and_says_so_once(family: str, scorers) -> None:
    scorer = PairScorer(scorers(family)[0].model)
    with pytest.warns(UserWarning, match="attention window of 16") as caught:
        assert not scorer.collate(pairs(8)).shared
        assert not scorer.collate(pairs(8, seed=1)).shared
    assert len(caught) == 1
    short = pairs(8, longest=2)
    within = [pair for pair in short if len(pair.prompt_token_ids) + 9 < 16]
    assert scorer.collate(within).shared


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_layout_padding_and_company_change_nothing(family: str, scorers) -> None:
    scorer, _ = scorers(family)
    batch = pairs(8, seed=3)
    with torch.no_grad():
        whole = _stacked(scorer(collate(batch)))
        for other in (
            collate(batch, shared=False),
            collate(batch, pad_to_multiple_of=64),
            collate(batch, shared=False, pad_to_multiple_of=64),
        ):
            torch.testing.assert_close(_stacked(scorer(other)), whole, atol=1e-5, rtol=1e-6)
        alone = torch.cat([_stacked(scorer(collate([pair]))) for pair in batch], dim=1)
        torch.testing.assert_close(alone, whole, atol=1e-5, rtol=1e-6)
        order = random.Random(0).sample(range(8), 8)
        shuffled = _stacked(scorer(collate([batch[index] for index in order])))
        torch.testing.assert_close(shuffled, whole[:, order], atol=1e-5, rtol=1e-6)


def test_gradients_do_not_depend_on_the_layout(scorers) -> None:
    scorer, _ = scorers("llama_tied")
    batch = pairs(5, seed=4)
    weights = [parameter for parameter in scorer.model.parameters() if parameter.requires_grad]
    found = []
    for shared in (True, False):
        sides = scorer(collate(batch, shared=shared))
        found.append(torch.autograd.grad((sides.chosen - 0.5 * sides.rejected).sum(), weights))
    plain = sum(
        plain_logps(scorer.model, pair.prompt_token_ids, pair.chosen.token_ids).sum()
        - 0.5 * plain_logps(scorer.model, pair.prompt_token_ids, pair.rejected.token_ids).sum()
        for pair in batch
    )
    for shared_rows, separate_rows, direct in zip(*found, torch.autograd.grad(plain, weights), strict=True):
        torch.testing.assert_close(shared_rows, separate_rows, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(shared_rows, direct, atol=2e-5, rtol=1e-5)


def test_bfloat16_stays_within_its_own_rounding(tmp_path: Path) -> None:
    """bfloat16 weights and activations: 3 significant digits per token; 0.05 nats per token bounds what we see."""
    policy = build("llama", tmp_path)
    batch = pairs(6, seed=5)
    exact = PairScorer(policy.load_model())
    rounded = PairScorer(policy.load_model().bfloat16())
    with torch.no_grad():
        found, wanted = rounded(rounded.collate(batch)), exact(exact.collate(batch))
    assert found.chosen.dtype == torch.float32
    tokens = torch.tensor([len(pair.chosen.token_ids) for pair in batch])
    assert ((found.chosen - wanted.chosen).abs() <= 0.05 * tokens).all()


def test_dropout_is_off_in_scoring(scorers) -> None:
    scorer, _ = scorers("gpt2")
    batch = scorer.collate(pairs(4))
    with torch.no_grad():
        torch.testing.assert_close(scorer(batch).chosen, scorer(batch).chosen, atol=0, rtol=0)


def test_a_head_that_does_something_unknown_is_refused(tmp_path: Path) -> None:
    model = build("llama", tmp_path).load_model()
    model.lm_head.register_forward_hook(lambda module, arguments, output: output * 1.5)
    with pytest.raises(UnsupportedModelError, match="does something this engine does not know"):
        PairScorer(model)


def test_too_long_for_learned_positions(scorers) -> None:
    scorer, _ = scorers("gpt2")
    with pytest.raises(ValueError, match="position embeddings for 128"):
        scorer.collate(pairs(4, longest=140))


def test_the_mask_by_hand() -> None:
    """Prompt a b, chosen c, rejected d, one padding: rows see the prompt, their own branch, and nothing later."""
    mask = attention_mask(torch.tensor([[0, 0, 1, 2, -1]]), torch.float32)
    visible = (mask[0, 0] == 0).int().tolist()
    assert visible == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert mask.dtype == torch.float32 and mask.min() == float("-inf")


def test_empty_and_long_pairs_are_refused_by_name() -> None:
    from dataclasses import replace

    batch = pairs(3)
    with pytest.raises(ValueError, match="pair p0: the prompt has no tokens"):
        require_trainable([replace(batch[0], prompt_token_ids=())])
    with pytest.raises(ValueError, match=r"of 3 pairs exceed max_length=2 tokens"):
        require_trainable(batch, max_length=2)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=60), st.integers(1, 500))
@settings(max_examples=60, deadline=None)
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = token_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget


def test_a_prompt_is_encoded_once() -> None:
    (pair,) = pairs(1, seed=9)
    used = len(pair.prompt_token_ids) + len(pair.chosen.token_ids) + len(pair.rejected.token_ids) - 2
    assert shared_row_tokens(pair) == used and collate([pair]).input_ids.shape == (1, used)
    assert (collate([pair]).branch == 0).sum() == len(pair.prompt_token_ids)
