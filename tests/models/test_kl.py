"""The KL divergence of completions against an exact enumeration of all completions of a toy model."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from tiny_models import build
from transformers import LlamaConfig, LlamaForCausalLM

from aipo.models.kl import Sample, completion_kls, mean_kl

VOCABULARY, END, LIMIT = 4, 2, 5
PROMPTS = ((0, 1), (3,), (1, 1, 3))


def toy(seed: int, vocabulary: int = VOCABULARY) -> LlamaForCausalLM:
    """A random model of four tokens, in float64, whose distributions are far from uniform."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, max_position_embeddings=32, **sizes)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def all_completions() -> list[tuple[int, ...]]:
    """Every completion of at most LIMIT tokens: ended, or cut at the limit."""
    plain = [token for token in range(VOCABULARY) if token != END]
    ended = [(*body, END) for length in range(LIMIT) for body in itertools.product(plain, repeat=length)]
    return ended + list(itertools.product(plain, repeat=LIMIT))


def log_probability(model: torch.nn.Module, sample: Sample) -> float:
    """From the model's own logits, one sequence at a time."""
    prompt, completion = sample.prompt_token_ids, sample.completion_token_ids
    with torch.no_grad():
        logps = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1)
    return sum(float(logps[len(prompt) - 1 + place, token]) for place, token in enumerate(completion))


@pytest.fixture(scope="module")
def enumerated():
    """Per prompt: probabilities of all completions, the exact KL, their summed divergences and ending excesses."""
    policy, other = toy(0), toy(1)
    found = []
    for prompt in PROMPTS:
        samples = [Sample(prompt, completion) for completion in all_completions()]
        logps = np.array([[log_probability(model, sample) for sample in samples] for model in (policy, other)])
        probabilities = np.exp(logps[0])
        assert probabilities.sum() == pytest.approx(1, abs=1e-12)
        exact = float((probabilities * (logps[0] - logps[1])).sum())
        nats, excess = completion_kls(policy, [other, policy], samples, stop_token_ids={END}, tokens_per_batch=64)
        found.append((probabilities, exact, nats.numpy(), excess.numpy()))
    return found


def test_the_expectation_is_the_exact_divergence(enumerated):
    for probabilities, exact, nats, excess in enumerated:
        assert exact > 0.3
        assert float(probabilities @ nats[0]) == pytest.approx(exact, rel=1e-10)
        assert np.abs(nats[1]).max() < 1e-12  # from itself
        assert nats.min() > -1e-12
        assert float(probabilities @ excess) == pytest.approx(0, abs=1e-12)


def test_the_estimate_lies_within_its_stated_error(enumerated):
    """1,000 estimates of 30 completions for each of three prompts: unbiased, and as far off as they say."""
    rng = np.random.default_rng(0)
    exact = float(np.mean([row[1] for row in enumerated]))
    estimates = []
    for _ in range(1000):
        drawn = [rng.choice(len(row[0]), size=30, p=row[0]) for row in enumerated]
        nats = np.array([row[2][0][picks] for row, picks in zip(enumerated, drawn, strict=True)])
        excess = np.array([row[3][picks] for row, picks in zip(enumerated, drawn, strict=True)])
        estimates.append(mean_kl(nats, excess))
    errors = np.array([(estimate.nats - exact) / estimate.standard_error for estimate in estimates])
    assert errors.std() == pytest.approx(1, abs=0.1)
    assert abs(errors.mean()) < 0.15
    assert 0.93 <= float((np.abs(errors) < 1.96).mean()) <= 0.97


def test_the_control_takes_out_the_part_that_comes_from_length(enumerated):
    rng = np.random.default_rng(1)
    probabilities, _, nats, excess = enumerated[0]
    picks = rng.choice(len(probabilities), size=(1, 4000), p=probabilities)
    controlled = mean_kl(nats[0][picks], excess[picks])
    assert controlled.standard_error < 0.95 * float(nats[0][picks].std(ddof=1)) / math.sqrt(4000)


def test_mean_kl_by_hand():
    # Two prompts, two completions each; no ending excess: the mean is 2.5, within-prompt variances 0.5 and 2.
    estimate = mean_kl([[1, 2], [2.5, 4.5]], np.zeros((2, 2)))
    assert estimate.nats == pytest.approx(2.5)
    assert estimate.standard_error == pytest.approx(math.sqrt((0.5 / 2 + 2 / 2) / 4))
    # Divergences that follow the excess exactly have no error: 3 + 2 * excess has mean 3 where the excess is 0.
    estimate = mean_kl([[3 + 2 * 0.5, 3 - 2 * 0.25]], [[0.5, -0.25]])
    assert (estimate.nats, estimate.standard_error) == (pytest.approx(3), pytest.approx(0))
    with pytest.raises(ValueError, match="at least two completions a prompt, got"):
        mean_kl([[1.0], [2.0]], [[0.0], [0.0]])


@pytest.mark.parametrize("family", ["gemma2", "granite", "phi_head_bias"])
def test_heads_that_do_more_than_project(family, tmp_path):
    """Capped, scaled and biased logits: the divergences are those of the model's own logits."""
    policy, other = (build(family, tmp_path / str(seed), seed).load_model() for seed in (0, 1))
    samples = [Sample((5, 6, 7), (8, 9, 2)), Sample((4,), (3, 11, 12, 13))]
    nats, excess = completion_kls(policy, [other], samples, stop_token_ids={2})
    for number, sample in enumerate(samples):
        ids = torch.tensor([[*sample.prompt_token_ids, *sample.completion_token_ids]])
        with torch.no_grad():
            p, q = (model(input_ids=ids).logits[0, len(sample.prompt_token_ids) - 1 : -1] for model in (policy, other))
        p, q = p.double().log_softmax(-1), q.double().log_softmax(-1)
        assert float(nats[0, number]) == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-4)
        ended = sample.completion_token_ids[-1] == 2
        assert float(excess[number]) == pytest.approx(float(p[:, 2].exp().sum()) - ended, abs=1e-4)


def test_errors():
    policy = toy(0)
    with pytest.raises(ValueError, match="one vocabulary, got 4, 5 entries"):
        completion_kls(policy, [toy(1, vocabulary=5)], [Sample((1,), (2,))], stop_token_ids={2})
    with pytest.raises(ValueError, match="sample 1 has an empty prompt or completion"):
        completion_kls(policy, [policy], [Sample((1,), (2,)), Sample((1,), ())], stop_token_ids={2})
