"""Objectives that hold each completion against the reference by itself, rather than the two against each other.

r(y) = log[pi(y)/ref(y)], summed over tokens, in nats. The reward of y is beta * r(y) throughout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aipo.objectives.pair_logps import PairLogps, PairLoss
from aipo.objectives.terms import log_ratios, pair_loss, require_positive

__all__ = ["apo_down", "apo_zero", "nca", "sppo", "sppo_hard"]


def _rewards(logps: PairLogps, beta: float) -> tuple[Tensor, Tensor]:
    require_positive(beta=beta)
    chosen, rejected = log_ratios(logps)
    return beta * chosen, beta * rejected


def nca(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Noise contrastive alignment from pairs (NCA, arXiv 2402.05369, section 4.1), sums.

        -log sigmoid(beta r(y_w)) - 1/2 log sigmoid(-beta r(y_w)) - 1/2 log sigmoid(-beta r(y_l))

    beta > 0 (alpha in the paper). Pulls the chosen likelihood up in absolute terms; least at a chosen reward of ln 2.
    """
    chosen, rejected = _rewards(logps, beta)
    loss = -F.logsigmoid(chosen) - 0.5 * F.logsigmoid(-chosen) - 0.5 * F.logsigmoid(-rejected)
    return pair_loss(loss, chosen, rejected)


def sppo(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Self-play preference optimization (SPPO, arXiv 2405.00675, Eq. 4.7), sums, with soft win probabilities.

        (r(y_w) - (P - 1/2) / beta)^2 + (r(y_l) + (P - 1/2) / beta)^2,    P = P(y_w beats y_l)

    beta > 0 is 1 / eta of the paper. P is the ranker's own probability for the pair. The authors' code halves the sum;
    this one does not, as the paper.
    """
    if logps.win_probability is None:
        raise ValueError(
            "win probabilities are needed, but PairLogps has none; declare uses_win_probability: true in the "
            "objective's YAML and choose a ranker that gives them, or use sppo_hard"
        )
    return _sppo(logps, beta, logps.win_probability)


def sppo_hard(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """SPPO (arXiv 2405.00675, Eq. 4.7) with every win taken as certain: P = 1. Sums.

    (r(y_w) - 1 / (2 beta))^2 + (r(y_l) + 1 / (2 beta))^2
    """
    return _sppo(logps, beta, torch.ones_like(logps.policy_chosen))


def _sppo(logps: PairLogps, beta: float, win_probability: Tensor) -> PairLoss:
    require_positive(beta=beta)
    chosen, rejected = log_ratios(logps)
    target = (win_probability - 0.5) / beta
    return pair_loss((chosen - target) ** 2 + (rejected + target) ** 2, beta * chosen, beta * rejected)


def apo_zero(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Anchored preference optimization, zero (APO-zero, arXiv 2408.06266, Eq. 7), sums.

        [1 - sigmoid(beta r(y_w))] + sigmoid(beta r(y_l))

    Chosen up, rejected down: for chosen completions that are better than what the model would say.
    """
    chosen, rejected = _rewards(logps, beta)
    return pair_loss(torch.sigmoid(-chosen) + torch.sigmoid(rejected), chosen, rejected)


def apo_down(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Anchored preference optimization, down (APO-down, arXiv 2408.06266, Eq. 8), sums.

        sigmoid(beta r(y_w)) + [1 - sigmoid(beta (r(y_w) - r(y_l)))]

    Both down, rejected more: for chosen completions that are worse than what the model would say.
    """
    chosen, rejected = _rewards(logps, beta)
    return pair_loss(torch.sigmoid(chosen) + torch.sigmoid(rejected - chosen), chosen, rejected)
