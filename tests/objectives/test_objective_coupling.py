"""The two-pass gradient equals the whole batch's for every objective and any split of the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_pairs import NAMES, hand_pairs, objective, pair_batches

from aipo.objectives import PairLogps
from aipo.objectives.coupling import POLICY_FIELDS, concatenate, linear_surrogate, policy_gradients


def with_policy(pairs: PairLogps, weights: torch.Tensor) -> PairLogps:
    """A "policy" of two weights: each of its log-probs is a differentiable function of both."""
    scale, tilt = weights
    return replace(
        pairs,
        **{field: getattr(pairs, field) * scale + tilt * getattr(pairs, field).cos() for field in POLICY_FIELDS},
    )


def part(pairs: PairLogps, start: int, stop: int) -> PairLogps:
    return replace(pairs, **{name: value[start:stop] for name, value in vars(pairs).items()})


@pytest.mark.parametrize("name", NAMES)
@given(pairs=pair_batches(min_size=2, max_size=6), data=st.data())
@settings(max_examples=8, deadline=None)
def test_any_split_gives_the_gradient_of_the_whole_batch(name, pairs, data):
    loss, size = objective(name).loss, len(pairs.policy_chosen)
    weights = torch.tensor([1.1, 0.3], dtype=torch.float64, requires_grad=True)
    whole = loss(with_policy(pairs, weights))
    (expected,) = torch.autograd.grad(whole.loss.mean(), weights)

    cuts = sorted({0, size, *data.draw(st.lists(st.integers(1, size - 1), max_size=3))})
    slices = list(zip(cuts, cuts[1:], strict=False))
    with torch.no_grad():
        first_pass = [with_policy(part(pairs, *bounds), weights) for bounds in slices]
    result, derivatives = policy_gradients(loss, concatenate(first_pass))
    torch.testing.assert_close(result.loss, whole.loss.detach())
    assert not result.loss.requires_grad
    for start, stop in slices:
        rows = {field: values[start:stop] for field, values in derivatives.items()}
        linear_surrogate(with_policy(part(pairs, start, stop), weights), rows).backward()
    torch.testing.assert_close(weights.grad, expected, rtol=1e-10, atol=1e-12)


def test_derivatives_by_hand():
    # hinge, beta 0.5, mean of two pairs with an active hinge: -+ 0.5 / 2
    _, derivatives = policy_gradients(objective("hinge", beta=0.5).loss, hand_pairs())
    assert set(derivatives) == set(POLICY_FIELDS)
    assert derivatives["policy_chosen"].tolist() == [-0.25, -0.25]
    assert derivatives["policy_rejected"].tolist() == [0.25, 0.25]
    assert derivatives["policy_chosen_prefix"].tolist() == [0.0, 0.0]


def test_concatenate_keeps_absent_fields_absent():
    bare = replace(hand_pairs(), reference_chosen=None, reference_rejected=None)
    joined = concatenate([bare, bare])
    assert joined.reference_chosen is None
    assert joined.policy_chosen.tolist() == [-10, -20, -10, -20]
    assert joined.chosen_tokens.dtype == torch.int64


def test_concatenate_refuses_a_field_that_only_some_parts_have():
    with pytest.raises(ValueError, match="reference_chosen is present in 1 of 2"):
        concatenate([hand_pairs(), replace(hand_pairs(), reference_chosen=None)])
    with pytest.raises(ValueError, match="at least one micro-batch"):
        concatenate([])
