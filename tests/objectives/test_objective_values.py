"""Every objective against the numbers of `by_hand`, in float64, and some gradients and special cases by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from by_hand import ROWS, Row, rows_of
from toy_pairs import NAMES, gradients, hand_pairs, objective, tensor

import aipo.objectives as objectives


def _id(row: Row) -> str:
    return "-".join([row.name, *(f"{key}={value}" for key, value in row.coefficients.items())])


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_is_derived_by_hand(name):
    assert rows_of(name)


def test_no_row_is_of_an_objective_that_is_not_there():
    assert {row.name for row in ROWS} <= set(NAMES)


@pytest.mark.parametrize("row", ROWS, ids=_id)
def test_loss_by_hand(row):
    loss = objective(row.name, **row.coefficients).loss(hand_pairs()).loss
    torch.testing.assert_close(loss, tensor(*row.loss), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("row", ROWS, ids=_id)
def test_rewards_by_hand(row):
    result = objective(row.name, **row.coefficients).loss(hand_pairs())
    torch.testing.assert_close(result.chosen_reward, tensor(*row.chosen), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(result.rejected_reward, tensor(*row.rejected), rtol=1e-13, atol=1e-14)


def test_aipo_gradient_by_hand():
    # d/d log pi(y_w) = -beta S(-x) - nll_weight / |y_w|,  d/d log pi(y_l) = beta S(-x),  x = 0.725, -1.4
    loss = objective("aipo", beta=0.5, alpha=0.1, nll_weight=0.2).loss
    _, found = gradients(loss, hand_pairs())
    pull = [0.5 / (1 + math.exp(0.725)), 0.5 / (1 + math.exp(-1.4))]
    torch.testing.assert_close(found["policy_chosen"], tensor(-pull[0] - 0.2 / 5, -pull[1] - 0.2 / 10))
    torch.testing.assert_close(found["policy_rejected"], tensor(*pull))


def test_kto_gradient_treats_the_kl_as_a_constant():
    # d/d r_w of 1/2 [1 - S(beta (r_w - z))] = -beta/2 S'(.), so with the arguments above, S' = S (1 - S)
    _, found = gradients(objective("kto", beta=0.5).loss, hand_pairs())

    def slope(x):
        return 1 / (2 + math.exp(x) + math.exp(-x))

    torch.testing.assert_close(found["policy_chosen"], tensor(-0.25 * slope(0.375), -0.25 * slope(-1.125)))
    torch.testing.assert_close(found["policy_rejected"], tensor(0.25 * slope(0.25), 0.25 * slope(-0.5)))


def test_bco_gradient_treats_the_shift_as_a_constant():
    # d/d r_w = -beta S(d - beta r_w),  d/d r_l = beta S(beta r_l - d),  d = -0.0625
    _, found = gradients(objective("bco", beta=0.5).loss, hand_pairs())
    torch.testing.assert_close(found["policy_chosen"], -0.5 * torch.sigmoid(tensor(-0.5625, 0.9375)))
    torch.testing.assert_close(found["policy_rejected"], 0.5 * torch.sigmoid(tensor(-0.1875, 0.5625)))


def test_alpha_dpo_2410_gradient_treats_the_margin_as_a_constant():
    # d/d log pi(y_w) = -beta / |y_w| S(-x),  x = -1.5 - 0.2/sqrt 2, 3 + 0.2/sqrt 2
    loss = objective("alpha_dpo_2410", beta=2.0, margin=0.5, spread_weight=0.1).loss
    _, found = gradients(loss, hand_pairs())
    pull = torch.sigmoid(tensor(1.5 + 0.2 / math.sqrt(2), -3 - 0.2 / math.sqrt(2)))
    torch.testing.assert_close(found["policy_chosen"], -2 * pull / tensor(5, 10))
    torch.testing.assert_close(found["policy_rejected"], 2 * pull / tensor(8, 4))


def test_aot_matches_sorted_margins_not_pairs():
    # The references of A and B exchanged: the sorted margins stay what they were, so the losses do, while DPO's change.
    pairs = hand_pairs()
    exchanged = replace(
        pairs,
        reference_chosen=pairs.reference_chosen.flip(0),
        reference_rejected=pairs.reference_rejected.flip(0),
    )
    aot, dpo = objective("aot", beta=0.5).loss, objective("dpo", beta=0.5).loss
    torch.testing.assert_close(aot(exchanged).loss, tensor(0.38687100611489994, 1.7014132779827524))
    # 0.5 (2 + 2) = 2, 0.5 (-5 - 0.5) = -2.75
    torch.testing.assert_close(dpo(exchanged).loss, tensor(math.log1p(math.exp(-2)), math.log1p(math.exp(2.75))))


def test_alpha_dpo_2410_without_spread_is_simpo():
    pairs = hand_pairs()
    simpo = objectives.simpo(pairs, beta=2.5, margin=0.375).loss
    # a batch of one has no spread; at step 0 (policy = reference up to rounding) there is none to speak of
    first = replace(pairs, **{name: value[:1] for name, value in vars(pairs).items()})
    alone = objectives.alpha_dpo_2410(first, beta=2.5, margin=0.375, spread_weight=0.05).loss
    torch.testing.assert_close(alone, simpo[:1], rtol=0, atol=0)
    start = replace(pairs, reference_chosen=pairs.policy_chosen + 1e-7, reference_rejected=pairs.policy_rejected)
    same = objectives.alpha_dpo_2410(start, beta=2.5, margin=0.375, spread_weight=0.05).loss
    torch.testing.assert_close(same, simpo, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["dpo", "robust_dpo", "discopop", "ld_dpo", "dpo_norm", "aot", "r_dpo"])
def test_step_zero_of_margin_losses(name):
    # policy = reference: every margin is 0. ln 2, but discopop (1/2 ln 2 + 1/2); r_dpo with its length weight at 0
    pairs = hand_pairs()
    start = replace(
        pairs,
        **{
            field: getattr(pairs, field.replace("reference", "policy"))
            for field in (
                "reference_chosen",
                "reference_rejected",
                "reference_chosen_prefix",
                "reference_rejected_prefix",
            )
        },
    )
    loss = objective(name, **({"length_weight": 0.0} if name == "r_dpo" else {})).loss(start).loss
    expected = 0.5 * math.log(2) + 0.5 if name == "discopop" else math.log(2)
    torch.testing.assert_close(loss, tensor(expected, expected), rtol=1e-14, atol=0)
