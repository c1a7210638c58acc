"""One global batch, split in any way: the same losses, metrics and gradients, for every kind of objective."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tiny_models import build, pairs

from aipo.models.batching import shared_row_tokens, with_sample
from aipo.models.logps import PairScorer
from aipo.records import ReferenceLogps
from aipo.training.gradients import BatchGradient
from aipo.training.job import LossInputs, MissingInputError, align_reference
from aipo.training.processes.world import World
from aipo.training.reference import compute_reference_logps

ROOT = Path(__file__).resolve().parents[2]
HERE = World(0, 1, torch.device("cpu"))
OBJECTIVES = sorted(path.stem for path in (ROOT / "conf" / "objective").glob("*.yaml"))


def objective(name: str):
    return instantiate(OmegaConf.load(ROOT / "conf" / "objective" / f"{name}.yaml"), _convert_="all")


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory):
    """A float64 model, eight uneven pairs, and the log-probs of another model as reference."""
    policy = build("llama", tmp_path_factory.mktemp("policy"))
    other = build("llama", tmp_path_factory.mktemp("reference"), seed=1)
    batch = pairs(8, seed=2)
    reference = compute_reference_logps(other, batch, progress=False)
    return policy.load_model().double(), LossInputs(batch, reference)


def gradient(model, inputs: LossInputs, name: str, tokens_per_batch: int, parts: int = 1):
    """(loss and metrics, gradients) of the mean over all inputs, accumulated in `parts` calls."""
    scorer = PairScorer(model)
    model.zero_grad()
    run = BatchGradient(scorer, scorer.collate, objective(name), HERE, tokens_per_batch)
    size = len(inputs.pairs) // parts
    sums: dict[str, float] = {}
    for start in range(0, len(inputs.pairs), size):
        taken = inputs.take(range(start, min(start + size, len(inputs.pairs))))
        for key, value in run.accumulate(taken, len(inputs.pairs)).sums.items():
            sums[key] = sums.get(key, 0.0) + value
    return sums, [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_any_split_into_micro_batches_gives_the_same_gradient(name: str, setting) -> None:
    model, inputs = setting
    whole, wanted = gradient(model, inputs, name, 10**6)
    for tokens_per_batch in (1, 60):  # one pair each; a few pairs each
        sums, found = gradient(model, inputs, name, tokens_per_batch)
        assert sums == pytest.approx(whole, abs=1e-10, rel=1e-10)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", ["dpo", "aipo", "simpo", "orpo"])
def test_float32_splits_agree_to_1e_5(name: str, setting, tmp_path: Path) -> None:
    inputs = setting[1]
    model = build("llama", tmp_path).load_model()
    whole, wanted = gradient(model, inputs, name, 10**6)
    sums, found = gradient(model, inputs, name, 1)
    assert sums == pytest.approx(whole, abs=1e-4, rel=1e-5)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_gradient_is_that_of_the_plain_mean(setting) -> None:
    """Against autograd through the whole batch at once, with DPO written out here."""
    model, inputs = setting
    _, found = gradient(model, inputs, "dpo", 1)
    scorer = PairScorer(model)
    sides = scorer(scorer.collate(inputs.pairs))
    reference = align_reference(inputs.pairs, inputs.reference)
    margin = torch.tensor([row.chosen - row.rejected for row in reference], dtype=torch.float64)
    loss = -torch.nn.functional.logsigmoid(0.1 * (sides.chosen - sides.rejected - margin)).mean()
    for one, other in zip(found, torch.autograd.grad(loss, list(model.parameters())), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_metrics_are_what_they_say(setting) -> None:
    model, inputs = setting
    sums, _ = gradient(model, inputs, "dpo", 10**6)
    scorer = PairScorer(model)
    with torch.no_grad():
        sides = scorer(scorer.collate(inputs.pairs))
    reference = inputs.reference
    rewards = [
        (0.1 * (float(chosen) - row.chosen), 0.1 * (float(rejected) - row.rejected))
        for chosen, rejected, row in zip(sides.chosen, sides.rejected, reference, strict=True)
    ]
    assert sums["chosen_reward"] == pytest.approx(sum(reward for reward, _ in rewards))
    assert sums["rejected_reward"] == pytest.approx(sum(reward for _, reward in rewards))
    assert sums["reward_accuracy"] == sum(chosen > rejected for chosen, rejected in rewards)
    assert sums["reference_margin"] == pytest.approx(sum(row.chosen - row.rejected for row in reference))
    assert sums["reference_agreement"] == sum(row.chosen > row.rejected for row in reference)
    assert sums["chosen_tokens"] == sum(len(pair.chosen.token_ids) for pair in inputs.pairs)
    run = BatchGradient(scorer, scorer.collate, objective("dpo"), HERE, 60)
    result = run.evaluate(inputs)
    assert result.sums == pytest.approx(sums) and result.pairs == 8
    assert result.tokens == sum(shared_row_tokens(pair) + 2 for pair in inputs.pairs)


def test_missing_inputs_are_errors(setting) -> None:
    from dataclasses import replace

    inputs = setting[1]
    with pytest.raises(MissingInputError, match="dpo needs reference log-probs"):
        LossInputs(inputs.pairs, None).check(objective("dpo"))
    LossInputs(inputs.pairs, None).check(objective("simpo"))
    bare = [replace(inputs.pairs[0], win_probability=None), *inputs.pairs[1:]]
    with pytest.raises(MissingInputError, match=r"1 of 8 pairs have none, the first: \['p0'\]"):
        LossInputs(bare, inputs.reference).check(objective("sppo_pairwise"))
    bare = [*inputs.pairs[:7], replace(inputs.pairs[7], rejected_win_share=None)]
    with pytest.raises(MissingInputError, match=r"sppo needs win shares .*1 of 8 pairs have none, the first: \['p7'\]"):
        LossInputs(bare, inputs.reference).check(objective("sppo"))
    with pytest.raises(ValueError, match=r"1 of 8 pairs have no reference log-probs, the first: \['p7'\]"):
        align_reference(inputs.pairs, inputs.reference[:7])
    with pytest.raises(ValueError, match="each id once"):
        align_reference(inputs.pairs, [*inputs.reference, inputs.reference[0]])


def test_cached_reference_equals_a_live_one(tmp_path: Path) -> None:
    policy = build("gemma2", tmp_path)
    batch = pairs(9, seed=6)
    cached = compute_reference_logps(policy, batch, tokens_per_batch=50, progress=False)
    scorer = PairScorer(policy.load_model())
    with torch.no_grad():
        live = scorer(with_sample(scorer.collate(batch), batch))
    for index, row in enumerate(cached):
        assert isinstance(row, ReferenceLogps) and row.pair_id == f"p{index}"
        stored = (row.chosen, row.rejected, row.chosen_prefix, row.rejected_prefix)
        assert (*stored, row.chosen_sample, row.rejected_sample) == pytest.approx(
            [float(side[index]) for side in live if side is not None], abs=1e-6, rel=1e-6
        )
