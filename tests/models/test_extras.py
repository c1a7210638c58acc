"""What only some objectives need beyond whole log-probs: sums over sampled tokens, and alignment."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import build, pairs

from aipo.models.batching import collate, with_sample
from aipo.models.logps import PairScorer
from aipo.models.vocabulary import LogitTransform, Tiling, log_collisions

PAIRS = pairs(6, seed=4)


def test_a_sample_has_as_many_tokens_of_both_sides() -> None:
    batch = with_sample(collate(PAIRS), PAIRS)
    assert batch.sample is not None
    kept = torch.zeros(2 * len(PAIRS), dtype=torch.long).index_add(0, batch.sides, batch.sample.long())
    shorter = torch.minimum(batch.chosen_tokens, batch.rejected_tokens)
    assert torch.equal(kept, shorter.repeat(2))
    assert (batch.chosen_tokens != batch.rejected_tokens).any()


def test_a_sample_depends_on_the_pair_alone() -> None:
    whole = with_sample(collate(PAIRS), PAIRS)
    for place, pair in enumerate(PAIRS):
        for shared in (True, False):
            alone = with_sample(collate([pair], shared=shared), [pair])
            of_pair = (whole.sides == place) | (whole.sides == len(PAIRS) + place)
            assert torch.equal(alone.sample, whole.sample[of_pair])
    renamed = [replace(pair, pair_id=f"other {number}") for number, pair in enumerate(PAIRS)]
    assert not torch.equal(with_sample(collate(renamed), renamed).sample, whole.sample)


def test_every_token_is_drawn_equally_often() -> None:
    pair = next(pair for pair in PAIRS if len(pair.chosen.token_ids) != len(pair.rejected.token_ids))
    sizes = sorted((len(pair.chosen.token_ids), len(pair.rejected.token_ids)))
    drawn: Counter[int] = Counter()
    for number in range(2000):
        named = replace(pair, pair_id=f"p{number}")
        batch = with_sample(collate([named]), [named])
        longer = batch.sides == int(len(pair.rejected.token_ids) > len(pair.chosen.token_ids))
        drawn.update(batch.sample[longer].nonzero().flatten().tolist())
    # A binomial count: its standard deviation is at most 22.4.
    expected = 2000 * sizes[0] / sizes[1]
    assert len(drawn) == sizes[1] and all(abs(count - expected) < 100 for count in drawn.values())


@pytest.mark.parametrize("transform", [LogitTransform(), LogitTransform(scale=0.5, softcap=3.0)])
def test_log_collisions_equal_the_plain_sum(transform: LogitTransform) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(size, 8, generator=generator, dtype=torch.float64) for size in (23, 37))
    bias = torch.randn(37, generator=generator, dtype=torch.float64)
    plain = transform(hidden @ weight.T + bias).softmax(-1).square().sum(-1).log()
    for tiling in (None, Tiling(5, 7), Tiling(100, 100)):
        found = log_collisions(hidden, weight, bias, transform, tiling)
        torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)


def test_the_scorer_sums_samples_and_means_alignments(tmp_path: Path) -> None:
    model = build("llama", tmp_path).load_model().double()
    scorer = PairScorer(model)
    batch = replace(with_sample(scorer.collate(PAIRS), PAIRS), alignment=True)
    found = scorer(batch)
    plain = scorer(scorer.collate(PAIRS))
    assert plain.chosen_sample is None and plain.chosen_alignment is None
    assert torch.equal(found.chosen, plain.chosen) and torch.equal(found.rejected_prefix, plain.rejected_prefix)
    assert found.chosen_alignment is not None and not found.chosen_alignment.requires_grad
    assert found.chosen_sample is not None and found.chosen_sample.requires_grad
    for place, pair in enumerate(PAIRS):
        for first, side, sums, aligned in (
            (0, pair.chosen, found.chosen_sample, found.chosen_alignment),
            (len(PAIRS), pair.rejected, found.rejected_sample, found.rejected_alignment),
        ):
            ids = torch.tensor([[*pair.prompt_token_ids, *side.token_ids]])
            logps = model(input_ids=ids).logits[0, len(pair.prompt_token_ids) - 1 : -1].log_softmax(-1)
            tokens = logps.gather(1, torch.tensor(side.token_ids)[:, None]).squeeze(1)
            kept = batch.sample[batch.sides == first + place]
            torch.testing.assert_close(sums[place], tokens[kept].sum(), rtol=1e-6, atol=1e-6)
            mean = (tokens - (2 * logps).logsumexp(-1)).mean()
            torch.testing.assert_close(aligned[place], mean, rtol=1e-6, atol=1e-6)
