"""How far a policy has moved from another model: the KL divergence of their completions, in nats per completion.

KL(policy || other) of whole completions to one prompt is the expected sum, over the positions of a completion that the
policy draws, of the KL divergence of the two next-token distributions there (the chain rule). `completion_kls` sums
these exact divergences along given samples. Its mean over samples is unbiased, as the mean log-ratio of the samples is,
but conditional on each prefix it has the expectation in place of one draw (Rao-Blackwell; Amini et al., arXiv
2504.10637). It is never negative, and its variance is never larger.

What spread is left comes mostly from some completions being longer than others. `mean_kl` takes that out with a control
variate whose expectation is zero: the probabilities of ending, summed along the completion, minus whether it ended.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from aipo.models.batching import token_batches
from aipo.models.capabilities import inspect_model
from aipo.models.policy import PolicyRef
from aipo.models.tokens import prompt_token_ids, stop_token_ids
from aipo.models.vocabulary import PLAIN_ENTRIES
from aipo.records import Candidates

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_PER_BATCH = {"cpu": 2048}
"""Padded tokens that go through a model at once, by kind of device: as many as a core's cache likes best."""
DEFAULT_TOKENS_PER_BATCH = 16384


@dataclass(frozen=True)
class Sample:
    """A prompt and a completion that the policy drew for it at temperature 1 without filters, as token ids."""

    prompt_token_ids: tuple[int, ...]
    completion_token_ids: tuple[int, ...]
    """With the end-of-turn token where it was drawn. A completion cut at a limit counts up to there: the divergence is
    then that of completions cut at this limit."""


class CompletionKLs(NamedTuple):
    """Sums over the positions of each sample, float64 on the CPU."""

    nats: Tensor
    """(models, samples): the divergence of the policy from each of the other models."""
    ending_excess: Tensor
    """(samples,): summed probability of ending, minus 1 where the sample ended. Its expectation is 0."""


@dataclass(frozen=True)
class MeanKL:
    """A mean KL divergence over a fixed set of prompts, in nats per completion."""

    nats: float
    standard_error: float
    """Of drawing other completions to the same prompts."""


def mean_kl(nats: ArrayLike, ending_excess: ArrayLike) -> MeanKL:
    """The mean and its standard error from sums per completion, both (prompts, completions a prompt).

    The prompts are fixed, so that policies are compared on the same ones: only the spread within prompts is error. The
    control's coefficient is the least-squares one within prompts; that it is estimated biases the mean by a share of
    the standard error that falls as one over the square root of the number of completions.
    """
    values, excess = (np.asarray(part, dtype=np.float64) for part in (nats, ending_excess))
    if values.ndim != 2 or values.shape != excess.shape or not len(values) or values.shape[1] < 2:
        raise ValueError(
            "expected divergences and ending excesses of one shape (prompts, completions a prompt), at least two "
            f"completions a prompt, got {values.shape} and {excess.shape}"
        )
    within = excess - excess.mean(axis=1, keepdims=True)
    spread = float((within**2).sum())
    coefficient = float((within * values).sum()) / spread if spread > 0 else 0.0
    controlled = values - coefficient * excess
    prompts, drawn = values.shape
    variance = controlled.var(axis=1, ddof=1).sum() / drawn / prompts**2
    return MeanKL(float(controlled.mean()), math.sqrt(variance))


def measure_kls(policy: PolicyRef, others: Sequence[PolicyRef], drawn: Sequence[Candidates]) -> list[MeanKL]:
    """The mean KL of `policy` from each of `others` on the prompts of `drawn`, the same number of completions for each.

    The completions are the policy's own, at temperature 1 without filters: no other sample is one of its distribution.
    All models are held at once, on the accelerator where there is one.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer, models = policy.load_tokenizer(), [ref.load_model().to(device) for ref in (policy, *others)]
    samples = [
        Sample(prompt_token_ids(tokenizer, row.prompt.chat), completion.token_ids)
        for row in drawn
        for completion in row.completions
    ]
    stops = stop_token_ids(tokenizer, models[0].generation_config)
    sums = completion_kls(models[0], models[1:], samples, stop_token_ids=stops)
    shape = len(drawn), len(drawn[0].completions)
    return [mean_kl(nats.reshape(shape).numpy(), sums.ending_excess.reshape(shape).numpy()) for nats in sums.nats]


@torch.no_grad()
def completion_kls(
    policy: PreTrainedModel,
    others: Sequence[PreTrainedModel],
    samples: Sequence[Sample],
    *,
    stop_token_ids: Collection[int],
    tokens_per_batch: int | None = None,
) -> CompletionKLs:
    """The divergence of `policy` from each of `others` along its own samples.

    All models share one vocabulary and lie on one device; softmaxes are float32 (float64 for float64 models).
    `stop_token_ids` are the tokens that end a completion. Raises ValueError when vocabularies differ, a prompt or a
    completion is empty, or a divergence is not finite.
    """
    if empty := [index for index, s in enumerate(samples) if not s.prompt_token_ids or not s.completion_token_ids]:
        raise ValueError(f"sample {empty[0]} has an empty prompt or completion; expected at least one token of each")
    heads = [_Head(model) for model in (policy, *others)]
    sizes = [head.size for head in heads]
    if len(set(sizes)) > 1:
        raise ValueError(f"expected models of one vocabulary, got {', '.join(map(str, sizes))} entries")
    device = next(policy.parameters()).device
    budget = tokens_per_batch or TOKENS_PER_BATCH.get(device.type, DEFAULT_TOKENS_PER_BATCH)
    stops = torch.tensor(sorted(stop_token_ids), dtype=torch.int64, device=device)
    nats = torch.zeros(len(others), len(samples), dtype=torch.float64)
    excess = torch.zeros(len(samples), dtype=torch.float64)
    rows = [(*s.prompt_token_ids, *s.completion_token_ids[:-1]) for s in samples]
    for indices in token_batches([len(row) for row in rows], budget):
        width = max(len(rows[index]) for index in indices)
        # Padded on the right, where a causal model never looks: no mask is needed.
        ids = torch.zeros(len(indices), width, dtype=torch.int64)
        predictors: list[int] = []
        owners: list[int] = []
        for place, index in enumerate(indices):
            ids[place, : len(rows[index])] = torch.tensor(rows[index])
            start = len(samples[index].prompt_token_ids) - 1
            predictors += range(place * width + start, place * width + len(rows[index]))
            owners += [index] * len(samples[index].completion_token_ids)
        at, owner = torch.tensor(predictors, device=device), torch.tensor(owners)
        hidden = [head.hidden(ids.to(device))[at] for head in heads]
        # In slices of tokens, so that each model holds no more than PLAIN_ENTRIES logits at once.
        step = max(1, PLAIN_ENTRIES // sizes[0])
        for part in (slice(start, start + step) for start in range(0, len(at), step)):
            logps = heads[0].logps(hidden[0][part])
            probabilities = logps.exp()
            ending = probabilities[:, stops].sum(-1)
            excess.index_add_(0, owner[part], ending.double().cpu())
            for number, (head, states) in enumerate(zip(heads[1:], hidden[1:], strict=True)):
                divergence = (probabilities * (logps - head.logps(states[part]))).sum(-1)
                nats[number].index_add_(0, owner[part], divergence.double().cpu())
    if not bool(nats.isfinite().all()):
        raise ValueError("a divergence is not finite: one of the models gives log-probs that are not")
    ends = set(stop_token_ids)
    return CompletionKLs(nats, excess - torch.tensor([float(s.completion_token_ids[-1] in ends) for s in samples]))


class _Head:
    """A model as a function from token ids to hidden states, and from these to next-token log-probs."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.transform = inspect_model(model).transform
        self.output = model.get_output_embeddings()
        self.size = int(self.output.weight.shape[0])

    def hidden(self, ids: Tensor) -> Tensor:
        """(rows, width) -> (rows * width, hidden)."""
        return self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)

    def logps(self, hidden: Tensor) -> Tensor:
        """(tokens, hidden) -> (tokens, vocabulary), nats."""
        logits = torch.nn.functional.linear(hidden, self.output.weight, getattr(self.output, "bias", None))
        return self.transform(logits.to(torch.promote_types(logits.dtype, torch.float32))).log_softmax(-1)
