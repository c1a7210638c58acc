"""What must hold for any batch: bit equality, symmetries, invariances, and how its pairs depend on each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from by_hand import holding
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_pairs import NAMES, POLICY_FIELDS, REFERENCE_FIELDS, declares, gradients, hand_pairs, objective, pair_batches

import aipo.objectives as objectives
from aipo.objectives import PairLogps

COUPLED = {name for name in NAMES if declares(name, "batch_coupled", False)}
fast = settings(max_examples=15, deadline=None)


def select(pairs: PairLogps, index: torch.Tensor) -> PairLogps:
    return replace(pairs, **{name: value[index] for name, value in vars(pairs).items()})


def shifted(pairs: PairLogps, fields: tuple[str, ...], by: float) -> PairLogps:
    return replace(pairs, **{field: getattr(pairs, field) + by for field in fields})


def swapped(pairs: PairLogps) -> PairLogps:
    """Chosen and rejected exchanged."""
    other = {"chosen": "rejected", "rejected": "chosen"}
    values = {}
    for name, value in vars(pairs).items():
        side = next((side for side in other if side in name), None)
        values[name.replace(side, other[side]) if side else name] = value
    return replace(pairs, **values)


@given(pairs=pair_batches(), beta=st.floats(0.01, 10), scale=st.sampled_from([1.0, 1e3]))
@settings(max_examples=60, deadline=None)
def test_aipo_without_its_terms_is_dpo_bit_for_bit(pairs, beta, scale):
    single = {
        name: (value * scale).float() if value.is_floating_point() else value for name, value in vars(pairs).items()
    }
    pairs = replace(pairs, **single)
    ours, our_gradients = gradients(lambda p: objectives.aipo(p, beta=beta, alpha=0.0, nll_weight=0.0), pairs)
    dpo, dpo_gradients = gradients(lambda p: objectives.dpo(p, beta=beta), pairs)
    alone, _ = gradients(lambda p: objectives.alpha_dpo(p, beta=beta, alpha=0.0), pairs)

    def bits(value):
        return value.detach().view(torch.int32)

    assert torch.equal(bits(ours.loss), bits(dpo.loss)) and torch.equal(bits(alone.loss), bits(dpo.loss))
    for field in ("policy_chosen", "policy_rejected"):
        assert torch.equal(bits(our_gradients[field]), bits(dpo_gradients[field]))


@given(pairs=pair_batches())
@fast
def test_special_cases_coincide(pairs):
    def same(one, other):
        torch.testing.assert_close(one.loss, other.loss, rtol=1e-11, atol=1e-11)

    dpo = objectives.dpo(pairs, beta=0.1)
    same(objectives.dpo_nll(pairs, beta=0.1, nll_weight=0.0), dpo)
    same(objectives.robust_dpo(pairs, beta=0.1, label_smoothing=0.0), dpo)
    same(objectives.r_dpo(pairs, beta=0.1, length_weight=0.0), dpo)
    same(objectives.ld_dpo(pairs, beta=0.1, tail_weight=1.0), dpo)
    same(objectives.sppo_pairwise(replace(pairs, win_probability=torch.ones_like(pairs.policy_chosen)), beta=0.1),
         objectives.sppo_hard(pairs, beta=0.1))  # fmt: skip
    shares = {"chosen_win_share": pairs.win_probability, "rejected_win_share": 1 - pairs.win_probability}
    same(objectives.sppo(replace(pairs, **shares), beta=0.1), objectives.sppo_pairwise(pairs, beta=0.1))
    even = replace(pairs, chosen_alignment=pairs.policy_chosen * 0, rejected_alignment=pairs.policy_chosen * 0)
    same(objectives.wpo(even, beta=0.1), dpo)
    same(objectives.dpop(pairs, beta=0.1, drop_weight=0.0), dpo)
    same(objectives.cpo_simpo(pairs, beta=2.0, margin=0.5, nll_weight=0.0), objectives.simpo(pairs, beta=2, margin=0.5))
    same(
        objectives.alpha_dpo_2410(pairs, beta=2.0, margin=0.5, spread_weight=0.0),
        objectives.simpo(pairs, beta=2.0, margin=0.5),
    )
    one_token = replace(
        pairs,
        chosen_tokens=torch.ones_like(pairs.chosen_tokens),
        rejected_tokens=torch.ones_like(pairs.rejected_tokens),
    )
    same(objectives.dpo_norm(one_token, beta=0.1), dpo)
    prefix = replace(
        pairs, **{field: getattr(pairs, f"{field}_prefix") for field in (*POLICY_FIELDS[:2], *REFERENCE_FIELDS[:2])}
    )
    same(objectives.ld_dpo(pairs, beta=0.1, tail_weight=0.0), objectives.dpo(prefix, beta=0.1))
    same(objectives.sampo(pairs, beta=0.1), objectives.dpo(prefix, beta=0.1))  # samples here are sums like prefixes


@pytest.mark.parametrize("name", holding("logistic"))
@given(pairs=pair_batches())
@fast
def test_swapping_the_sides_of_a_logistic_loss(name, pairs):
    # L(x) - L(-x) = -x, and x is the reward margin
    off = {key: 0.0 for key in ("nll_weight", "margin") if key in objective(name).loss.keywords}
    loss = objective(name, **off).loss
    there, back = loss(pairs), loss(swapped(pairs))
    torch.testing.assert_close(back.chosen_reward, there.rejected_reward, rtol=0, atol=0)
    torch.testing.assert_close(back.rejected_reward, there.chosen_reward, rtol=0, atol=0)
    margin = there.chosen_reward - there.rejected_reward
    torch.testing.assert_close(there.loss - back.loss, -margin, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", holding("log ratios"))
@given(pairs=pair_batches(), by=st.floats(-5, 5))
@fast
def test_only_log_ratios_matter(name, pairs, by):
    loss = objective(name).loss
    fields = [f"{model}_chosen{part}" for model in ("policy", "reference") for part in ("", "_prefix", "_sample")]
    moved = shifted(pairs, tuple(fields), by)
    torch.testing.assert_close(loss(moved).loss, loss(pairs).loss, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", holding("policy margin"))
@given(pairs=pair_batches(), by=st.floats(-5, 5))
@fast
def test_only_the_policy_margin_matters(name, pairs, by):
    loss = objective(name).loss
    moved = shifted(pairs, ("policy_chosen", "policy_rejected"), by)
    torch.testing.assert_close(loss(moved).loss, loss(pairs).loss, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@given(pairs=pair_batches(min_size=2), data=st.data())
@fast
def test_the_order_of_a_batch_does_not_matter(name, pairs, data):
    order = torch.tensor(data.draw(st.permutations(range(len(pairs.policy_chosen)))))
    loss = objective(name).loss
    for one, other in zip(loss(select(pairs, order)), loss(pairs), strict=True):
        torch.testing.assert_close(one, other[order], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(set(NAMES) - COUPLED))
@given(pairs=pair_batches(min_size=2))
@fast
def test_uncoupled_pairs_do_not_see_each_other(name, pairs):
    loss = objective(name).loss
    rows = [loss(select(pairs, torch.tensor([number]))).loss for number in range(len(pairs.policy_chosen))]
    torch.testing.assert_close(torch.cat(rows), loss(pairs).loss, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(COUPLED))
def test_splitting_a_coupled_batch_changes_it(name):
    pairs = hand_pairs()
    if name == "aot":  # references whose ranks differ from the policy's
        pairs = replace(
            pairs,
            reference_chosen=pairs.reference_chosen.flip(0),
            reference_rejected=pairs.reference_rejected.flip(0),
        )
    loss = objective(name, beta=0.5).loss
    rows = torch.cat([loss(select(pairs, torch.tensor([number]))).loss for number in range(2)])
    assert (rows - loss(pairs).loss).abs().max() > 1e-4


@pytest.mark.parametrize("name", holding("sums"))
@given(pairs=pair_batches())
@fast
def test_sums_do_not_read_token_counts(name, pairs):
    loss = objective(name).loss
    recounted = replace(pairs, chosen_tokens=pairs.chosen_tokens + 3, rejected_tokens=pairs.rejected_tokens * 2)
    assert torch.equal(loss(recounted).loss, loss(pairs).loss)


@pytest.mark.parametrize("name", holding("means"))
@given(pairs=pair_batches())
@fast
def test_means_do_not_change_when_a_completion_is_repeated(name, pairs):
    loss = objective(name).loss
    doubled = replace(pairs, **{key: value * 2 for key, value in vars(pairs).items() if "win" not in key})
    torch.testing.assert_close(loss(doubled).loss, loss(pairs).loss, rtol=1e-9, atol=1e-9)
