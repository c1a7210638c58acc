"""Every objective against numbers derived by hand, in float64. The pairs A and B are in `toy_pairs.hand_pairs`.

The numbers were computed from the formula beside them with 30 digits, not with the code under test. Abbreviations:
S(x) = 1 / (1 + e^-x), L(x) = -ln S(x), r = log[pi/ref], h = r_w - r_l, m = r_w/|y_w| - r_l/|y_l|.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from toy_pairs import NAMES, gradients, hand_pairs, objective, tensor

import aipo.objectives as objectives

# name, coefficients, loss of A, loss of B
BY_HAND = [
    # L(0.75), L(-1.5)
    ("dpo", {"beta": 0.5}, 0.38687100611489994, 1.7014132779827524),
    # 0.9 L(0.75) + 0.1 L(-0.75); the same at -1.5
    ("dpo", {"beta": 0.5, "label_smoothing": 0.1}, 0.46187100611489994, 1.5514132779827524),
    # [0.9 L(0.75) - 0.1 L(-0.75)] / 0.8
    ("robust_dpo", {"beta": 0.5, "label_smoothing": 0.1}, 0.29312100611489994, 1.8889132779827524),
    # 1 - 0.75; 1 + 1.5
    ("hinge", {"beta": 0.5}, 0.25, 2.5),
    # m = 1/5 + 0.5/8 = 0.2625, -2/10 - 1/4 = -0.45; (m - 1)^2
    ("identity_po", {"beta": 0.5}, 0.54390625, 2.1025),
    # q = S(0.75): q ln(q / 0.9) + (1 - q) ln((1 - q) / 0.1)
    ("exo", {"beta": 0.5, "label_smoothing": 0.1}, 0.18278998102927435, 1.426703684860999),
    # w = S(0.75 / 0.25): (1 - w) L(0.75) + w e^-0.75
    ("discopop", {"beta": 0.5, "tau": 0.25}, 0.46831185178947784, 1.7082878522887613),
    # L(0.5 (2 - 1.1 * 0.5)), L(0.5 (-5 + 1.1 * 2))
    ("alpha_dpo", {"beta": 0.5, "alpha": 0.1}, 0.39495983306522658, 1.6204174099184509),
    # the same + 0.2 * 10/5, + 0.2 * 20/10
    ("aipo", {"beta": 0.5, "alpha": 0.1, "nll_weight": 0.2}, 0.79495983306522658, 2.0204174099184509),
    # L(0.75) + 0.2 * 2, L(-1.5) + 0.2 * 2
    ("dpo_nll", {"beta": 0.5, "nll_weight": 0.2}, 0.78687100611489994, 2.1014132779827524),
    # L(0.75 + 0.1 (5 - 8)), L(-1.5 + 0.1 (10 - 4))
    ("r_dpo", {"beta": 0.5, "length_weight": 0.1}, 0.49324894599745487, 1.2411538747320878),
    ("ilr_dpo", {"beta": 0.5, "length_weight": 0.1}, 0.49324894599745487, 1.2411538747320878),
    # tails: A rejected -5 and -5.5, B chosen -13 and -10. h = 1 - (-1 + 0.25 * 0.5) = 1.875, (1 - 0.25 * 3) - 1 = -0.75
    ("ld_dpo", {"beta": 0.5, "tail_weight": 0.25}, 0.33045820760222063, 0.89812326413984004),
    # L(2 * 0.2625), L(2 * -0.45)
    ("dpo_norm", {"beta": 2.0}, 0.46471175467299344, 1.2411538747320878),
    # means: A -2, -1.5; B -2, -3.75. L(2 * -0.5 - 0.5), L(2 * 1.75 - 0.5)
    ("simpo", {"beta": 2.0, "margin": 0.5}, 1.7014132779827524, 0.048587351573742059),
    # L(0.5 * 2) + 2, L(0.5 * -5) + 2
    ("cpo", {"beta": 0.5, "nll_weight": 1.0}, 2.3132616875182228, 4.5788897342925496),
    # simpo + 0.05 * 2
    ("cpo_simpo", {"beta": 2.0, "margin": 0.5, "nll_weight": 0.05}, 1.8014132779827524, 0.14858735157374206),
    # o(a) = a - ln(1 - e^a): 2 + 0.1 L(o(-2) - o(-1.5)), 2 + 0.1 L(o(-2) - o(-3.75))
    ("orpo", {"odds_weight": 0.1}, 2.1042057807927134, 2.0143125835108018),
    # L(0.5) + L(-0.5)/2 + L(0.25)/2; L(-1) + L(1)/2 + L(-0.5)/2
    ("nca", {"beta": 0.5}, 1.2490851862095818, 1.9569310233673876),
    # (1 - 1)^2 + (-0.5 + 1)^2, (-2 - 1)^2 + (1 + 1)^2
    ("sppo_hard", {"beta": 0.5}, 0.25, 13.0),
    # targets 2 * 0.3 and 2 * 0.1: (1 - 0.6)^2 + (-0.5 + 0.6)^2, (-2 - 0.2)^2 + (1 + 0.2)^2
    ("sppo", {"beta": 0.5}, 0.17, 6.28),
    # 1 - S(0.5) + S(-0.25), 1 - S(-1) + S(0.5)
    ("apo_zero", {"beta": 0.5}, 0.81536416791234733, 1.3535179098318594),
    # S(0.5) + 1 - S(0.75), S(-1) + 1 - S(-1.5)
    ("apo_down", {"beta": 0.5}, 0.94328063202646159, 1.0865158975636388),
    # z_w = max(0, (1 - 2)/2) = 0, z_l = (-0.5 + 1)/2 = 0.25. [1 - S(0.375)]/2 + [1 - S(0.25)]/2, ... -1.125, -0.5
    ("kto", {"beta": 0.5}, 0.42257844958006607, 0.68868715903474143),
    # d = [(0.5 - 1)/2 + (-0.25 + 0.5)/2]/2 = -0.0625. L(0.5 - d) + L(d + 0.25), L(-1 - d) + L(d - 0.5)
    ("bco", {"beta": 0.5}, 1.0547225711507197, 2.2813954891973456),
    # ranks of policy and reference margins agree (B before A), so each meets its own: DPO
    ("aot", {"beta": 0.5}, 0.38687100611489994, 1.7014132779827524),
    # m = 0.2625, -0.45: z = +-1/sqrt 2 (n - 1). L(2 * -0.5 - 0.5 - 0.2 z), L(2 * 1.75 - 0.5 - 0.2 z)
    ("alpha_dpo_2410", {"beta": 2.0, "margin": 0.5, "spread_weight": 0.1}, 1.818482872742887, 0.042313350370583098),
]

# name, coefficients, (chosen reward, rejected reward) of A and of B
REWARDS_BY_HAND = [
    ("dpo", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    ("robust_dpo", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    ("hinge", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    ("identity_po", {"beta": 0.5}, (0.1, -0.03125), (-0.1, 0.125)),
    ("exo", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    ("discopop", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    # 0.5 (-10 + 1.1 * 11), 0.5 (-12 + 1.1 * 11.5); 0.5 (-20 + 1.1 * 18), 0.5 (-15 + 1.1 * 16)
    ("alpha_dpo", {"beta": 0.5, "alpha": 0.1}, (1.05, 0.325), (-0.1, 1.3)),
    ("aipo", {"beta": 0.5, "alpha": 0.1}, (1.05, 0.325), (-0.1, 1.3)),
    ("dpo_nll", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    # + 0.1 per token
    ("r_dpo", {"beta": 0.5, "length_weight": 0.1}, (1.0, 0.55), (0.0, 0.9)),
    ("ilr_dpo", {"beta": 0.5, "length_weight": 0.1}, (1.0, 0.55), (0.0, 0.9)),
    # A rejected: 0.5 (-0.875); B chosen: 0.5 (0.25)
    ("ld_dpo", {"beta": 0.5, "tail_weight": 0.25}, (0.5, -0.4375), (0.125, 0.5)),
    ("dpo_norm", {"beta": 2.0}, (0.4, -0.125), (-0.4, 0.5)),
    ("simpo", {"beta": 2.0}, (-4.0, -3.0), (-4.0, -7.5)),
    ("cpo", {"beta": 0.5}, (-5.0, -6.0), (-10.0, -7.5)),
    ("cpo_simpo", {"beta": 2.0}, (-4.0, -3.0), (-4.0, -7.5)),
    # o(-2), o(-1.5); o(-2), o(-3.75)
    ("orpo", {}, (-1.8545865421311409, -1.247517541074546), (-1.8545865421311409, -3.7262012982498469)),
    ("nca", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    ("sppo_hard", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    ("sppo", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    ("apo_zero", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    ("apo_down", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    ("kto", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    ("bco", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    ("aot", {"beta": 0.5}, (0.5, -0.25), (-1.0, 0.5)),
    ("alpha_dpo_2410", {"beta": 2.0}, (-4.0, -3.0), (-4.0, -7.5)),
]


def _ids(cases):
    return ["-".join([case[0], *(f"{key}={value}" for key, value in case[1].items())]) for case in cases]


@pytest.mark.parametrize(("name", "coefficients", "loss_a", "loss_b"), BY_HAND, ids=_ids(BY_HAND))
def test_loss_by_hand(name, coefficients, loss_a, loss_b):
    loss = objective(name, **coefficients).loss(hand_pairs()).loss
    torch.testing.assert_close(loss, tensor(loss_a, loss_b), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(("name", "coefficients", "a", "b"), REWARDS_BY_HAND, ids=_ids(REWARDS_BY_HAND))
def test_rewards_by_hand(name, coefficients, a, b):
    result = objective(name, **coefficients).loss(hand_pairs())
    torch.testing.assert_close(result.chosen_reward, tensor(a[0], b[0]), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(result.rejected_reward, tensor(a[1], b[1]), rtol=1e-13, atol=1e-14)


def test_every_objective_is_derived_by_hand():
    assert {case[0] for case in BY_HAND} == {case[0] for case in REWARDS_BY_HAND} == set(NAMES)


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
