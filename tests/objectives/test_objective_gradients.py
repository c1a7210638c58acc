"""Derivatives: against finite differences, at extreme margins, and in the direction the papers claim."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from by_hand import holding, rows_of
from hypothesis import given, settings
from toy_pairs import NAMES, POLICY_FIELDS, gradients, hand_pairs, objective, pair_batches, tensor

from aipo.objectives import PairLogps

# Detached statistics move with the inputs, which finite differences would see. `test_objective_values` has these
# gradients by hand.
SMOOTH = [name for name in NAMES if name not in holding("detached")]


@pytest.mark.parametrize("name", SMOOTH)
def test_gradcheck(name):
    pairs, loss = hand_pairs(), objective(name, **rows_of(name)[-1].coefficients).loss
    leaves = [getattr(pairs, field).clone().requires_grad_() for field in POLICY_FIELDS]

    def of_policy(*values):
        return loss(replace(pairs, **dict(zip(POLICY_FIELDS, values, strict=True)))).loss

    assert torch.autograd.gradcheck(of_policy, leaves, eps=1e-6, atol=1e-8, rtol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_rewards_are_detached_and_of_batch_shape(name):
    result, _ = gradients(objective(name).loss, hand_pairs())
    assert result.loss.requires_grad
    assert not result.chosen_reward.requires_grad and not result.rejected_reward.requires_grad
    assert result.loss.shape == result.chosen_reward.shape == result.rejected_reward.shape == (2,)


def extreme_pairs(dtype: torch.dtype) -> PairLogps:
    """Policy margins and log-ratios of +-1e4 nats, in one token or in many; and certainty, log p = 0."""
    chosen = tensor(-1.0, -1e4, 0.0, -2e4, -1e-8, -1e4, 0.0, -1e4, dtype=dtype)
    rejected = tensor(-1e4, -1.0, -1e4, -1e4, 0.0, -2e4, 0.0, -1e4, dtype=dtype)
    size = len(chosen)
    reference_chosen = tensor(-1e4, -1.0, -1.0, -1e4, -1e4, 0.0, -1e-3, -1e4, dtype=dtype)
    reference_rejected = tensor(-1.0, -1e4, -1e4, -1.0, -1.0, -1e4, 0.0, -1.0, dtype=dtype)
    return PairLogps(
        policy_chosen=chosen,
        policy_rejected=rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
        chosen_tokens=torch.tensor([1, 1000, 1, 1, 1, 1, 2, 1]),
        rejected_tokens=torch.tensor([1000, 1, 1, 1, 1, 1, 1, 1]),
        win_probability=torch.linspace(0, 1, size, dtype=dtype),
        chosen_win_share=torch.linspace(0, 1, size, dtype=dtype),
        rejected_win_share=torch.linspace(1, 0, size, dtype=dtype),
        policy_chosen_prefix=chosen / 2,
        policy_rejected_prefix=rejected / 2,
        reference_chosen_prefix=reference_chosen / 2,
        reference_rejected_prefix=reference_rejected / 2,
        policy_chosen_sample=chosen / 2,
        policy_rejected_sample=rejected / 2,
        reference_chosen_sample=reference_chosen / 2,
        reference_rejected_sample=reference_rejected / 2,
        chosen_alignment=tensor(-1e4, 0.0, -1.0, 10.0, 0.0, -5.0, 0.0, 1e4, dtype=dtype),
        rejected_alignment=tensor(0.0, -1e4, 1.0, 10.0, 0.0, -5.0, 0.0, 1e4, dtype=dtype),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_margins_stay_finite(name, dtype):
    result, found = gradients(objective(name).loss, extreme_pairs(dtype))
    for field, value in (*result._asdict().items(), *found.items()):
        assert value.dtype == dtype, field
        assert torch.isfinite(value).all(), f"{field}: {value.tolist()}"


def test_orpo_still_pushes_where_the_rejected_completion_is_certain():
    # log p(y_l) = 0: the odds have a pole. Held at log p = -1e-6 the slope is about 1 / 1e-6 per nat; weight 0.1.
    pairs = replace(hand_pairs(), policy_rejected=tensor(0.0, -15.0), rejected_tokens=torch.tensor([1, 4]))
    result, found = gradients(objective("orpo", odds_weight=0.1).loss, pairs)
    assert found["policy_rejected"][0].item() == pytest.approx(0.1 * 1e6, rel=1e-5)
    # log odds(-1e-6) = -1e-6 - ln(1e-6) = 13.8155..., to first order
    assert result.rejected_reward[0].item() == pytest.approx(-math.log(1e-6), rel=1e-6)


def test_orpo_gradient_in_float32_has_no_cancellation():
    # 1 - p loses its digits in float32 near p = 1; d(log odds)/d(log p) = 1 / (1 - p). Mean log-prob -1e-4.
    pairs = replace(
        hand_pairs(),
        **{
            field.name: getattr(hand_pairs(), field.name).float()
            for field in fields(PairLogps)
            if not field.name.endswith("_tokens")
        },
    )
    pairs = replace(pairs, policy_rejected=tensor(-8e-4, -15.0, dtype=torch.float32))
    _, found = gradients(objective("orpo", odds_weight=1.0).loss, pairs)
    # S(log odds_l - log odds_w) -> 1 up to odds_w / odds_l = 1.6e-5; per token of 8
    assert found["policy_rejected"][0].item() == pytest.approx(1 / 1.00005e-4 / 8, rel=1e-4)


@pytest.mark.parametrize("name", holding("pulls"))
@given(pairs=pair_batches())
@settings(max_examples=15, deadline=None)
def test_pulls_chosen_up_and_rejected_down(name, pairs):
    _, found = gradients(objective(name).loss, pairs)
    chosen = found["policy_chosen"] + found["policy_chosen_prefix"] + found["policy_chosen_sample"]
    rejected = found["policy_rejected"] + found["policy_rejected_prefix"] + found["policy_rejected_sample"]
    assert (chosen <= 1e-12).all()
    assert (rejected >= -1e-12).all()


@given(pairs=pair_batches())
@settings(max_examples=30, deadline=None)
def test_apo_down_and_nca_push_the_rejected_down(pairs):
    for name in ("apo_down", "nca"):
        _, found = gradients(objective(name).loss, pairs)
        assert (found["policy_rejected"] >= 0).all()


def at_log_ratios(chosen: float, rejected: float = 0.0) -> PairLogps:
    """The hand-made pairs with both log-ratios set, in nats."""
    pairs = hand_pairs()
    return replace(
        pairs,
        policy_chosen=pairs.reference_chosen + chosen,
        policy_rejected=pairs.reference_rejected + rejected,
    )


def test_nca_is_least_at_a_chosen_reward_of_ln_2():
    # -S(-x) + S(x)/2 = 0  <=>  S(x) = 2/3
    beta = 0.01
    for step, sign in ((-0.1, -1), (0.0, 0), (0.1, 1)):
        _, found = gradients(objective("nca").loss, at_log_ratios((math.log(2) + step) / beta))
        slope = found["policy_chosen"][0].item()
        assert slope == pytest.approx(0, abs=1e-15) if sign == 0 else slope * sign > 0


def test_identity_po_is_least_at_its_target_margin():
    # m = 1 / (2 beta) = 1: r_w = 5 (5 tokens), r_l = 0
    result, found = gradients(objective("identity_po", beta=0.5).loss, at_log_ratios(5.0))
    assert result.loss[0].item() == pytest.approx(0, abs=1e-25)
    assert found["policy_chosen"][0].item() == pytest.approx(0, abs=1e-12)
    assert (result.chosen_reward - result.rejected_reward)[0].item() == pytest.approx(0.5)


@pytest.mark.parametrize(("name", "chosen", "rejected"), [("sppo_pairwise", 0.6, -0.6), ("sppo", 0.4, -0.6)])
def test_sppo_is_least_at_the_win_probability(name, chosen, rejected):
    # beta r_w = P - 1/2 = 0.3, beta r_l = -0.3; with win shares 0.7 and 0.2: 0.2 and -0.3
    result, found = gradients(objective(name, beta=0.5).loss, at_log_ratios(chosen, rejected))
    assert result.loss[0].item() == pytest.approx(0, abs=1e-25)
    assert found["policy_chosen"][0].item() == pytest.approx(0, abs=1e-12)
    assert found["policy_rejected"][0].item() == pytest.approx(0, abs=1e-12)


def test_exo_is_zero_where_the_policy_agrees_with_the_smoothed_label():
    # S(beta h) = 1 - s = 0.9  <=>  beta h = ln 9
    result, found = gradients(objective("exo", beta=0.5, label_smoothing=0.1).loss, at_log_ratios(2 * math.log(9)))
    assert result.loss.abs().max().item() < 1e-15
    assert found["policy_chosen"].abs().max().item() < 1e-15


def test_apo_down_lowers_both_once_the_margin_is_there():
    # r_w = 0, margin 20 / 0.1: the second term is spent, the first has its steepest slope beta / 4
    _, found = gradients(objective("apo_down", beta=0.1).loss, at_log_ratios(0.0, -200.0))
    assert found["policy_chosen"][0].item() == pytest.approx(0.1 / 4, rel=1e-6)


def test_discopop_rises_around_zero_and_falls_elsewhere():
    slopes = []
    for reward_margin in (-0.1195, -0.1185, 0.0, 0.0715, 0.0725):
        _, found = gradients(objective("discopop").loss, at_log_ratios(reward_margin / 0.05))
        slopes.append(found["policy_chosen"][0].item())
    assert [slope > 0 for slope in slopes] == [False, True, True, True, False]


def test_robust_dpo_keeps_a_slope_at_large_margins():
    # -> -beta s / (1 - 2 s) = -0.5 * 0.1 / 0.8
    _, found = gradients(objective("robust_dpo", beta=0.5, label_smoothing=0.1).loss, at_log_ratios(200.0))
    assert found["policy_chosen"][0].item() == pytest.approx(-0.0625, rel=1e-12)
