"""Objectives without a reference model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aipo.objectives.pair_logps import PairLogps, PairLoss
from aipo.objectives.terms import (
    logistic,
    mean_policy_logps,
    pair_loss,
    plus_chosen_nll,
    policy_margin,
    require,
    require_non_negative,
    require_positive,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["cpo", "cpo_simpo", "orpo", "simper", "simpo"]

LARGEST_MEAN_LOGP = -1e-6
"""Nats per token. ORPO's odds p / (1 - p) have a pole at log p = 0; its gradient is bounded by 1e6 per nat here."""


def simpo(logps: PairLogps, /, *, beta: float, margin: float) -> PairLoss:
    """SimPO (arXiv 2405.14734, Eq. 6), means.

        -log sigmoid(beta * (log pi(y_w) / |y_w| - log pi(y_l) / |y_l|) - margin)

    beta (> 0): reward per nat per token. margin (>= 0; gamma in the paper): target reward margin, in reward units,
    not the later ratio gamma / beta. Reward of y: beta * log pi(y) / |y|.
    """
    require_positive(beta=beta)
    require_non_negative(margin=margin)
    chosen, rejected = mean_policy_logps(logps)
    return pair_loss(logistic(beta * (chosen - rejected) - margin), beta * chosen, beta * rejected)


def simper(logps: PairLogps, /) -> PairLoss:
    """SimPER (arXiv 2502.00883), means: inverse perplexities, and no coefficient at all.

        exp(log pi(y_l) / |y_l|) - exp(log pi(y_w) / |y_w|)

    Bounded between -1 and 1; its gradient is largest where a completion is likely. Reward of y: exp(log pi(y) / |y|).
    """
    chosen, rejected = (mean_logp.exp() for mean_logp in mean_policy_logps(logps))
    return pair_loss(rejected - chosen, chosen, rejected)


def cpo(logps: PairLogps, /, *, beta: float, nll_weight: float) -> PairLoss:
    """Contrastive preference optimization (CPO, arXiv 2401.08417, Eq. 3 plus its NLL term), sums, but mean NLL.

        -log sigmoid(beta * (log pi(y_w) - log pi(y_l))) - (nll_weight / |y_w|) * log pi(y_w)

    The paper writes the NLL as a sum; its code, and ours, average over tokens (the code over the batch's tokens, ours
    over each completion's, so that pairs stay independent). Reward of y: beta * log pi(y).
    """
    require_positive(beta=beta)
    require_non_negative(nll_weight=nll_weight)
    loss = plus_chosen_nll(logistic(beta * policy_margin(logps)), logps, nll_weight)
    return pair_loss(loss, beta * logps.policy_chosen, beta * logps.policy_rejected)


def cpo_simpo(logps: PairLogps, /, *, beta: float, margin: float, nll_weight: float) -> PairLoss:
    """CPO-SimPO (the CPO authors' combination, repository fe1ixxu/CPO_SIMPO), means.

        -log sigmoid(beta * (log pi(y_w) / |y_w| - log pi(y_l) / |y_l|) - margin) - (nll_weight / |y_w|) * log pi(y_w)

    Reward of y: beta * log pi(y) / |y|.
    """
    require_non_negative(nll_weight=nll_weight)
    preference = simpo(logps, beta=beta, margin=margin)
    return preference._replace(loss=plus_chosen_nll(preference.loss, logps, nll_weight))


def _log_odds(mean_logp: Tensor) -> Tensor:
    """log[p / (1 - p)] of p = exp(mean_logp).

    Above LARGEST_MEAN_LOGP the value is held and the gradient is the one there: finite, and still pushing. A clamp
    would give a model that is certain of a rejected completion no gradient at all.
    """
    held = mean_logp - (mean_logp - LARGEST_MEAN_LOGP).relu().detach()
    # log(1 - p) through expm1: 1 - exp(x) loses all digits near 0, and two branches under `where` give 0 * inf = NaN.
    return held - (-held.expm1()).log()


def orpo(logps: PairLogps, /, *, odds_weight: float) -> PairLoss:
    """Odds-ratio preference optimization (ORPO, arXiv 2403.07691, Eq. 6 and 7), means.

        -log pi(y_w) / |y_w| - odds_weight * log sigmoid(log odds(y_w) - log odds(y_l)),
        odds(y) = p / (1 - p),  p = pi(y)^(1 / |y|)

    odds_weight (> 0; lambda in the paper). Reward of y: log odds(y), unweighted.
    """
    require("odds_weight", odds_weight, odds_weight > 0, "above 0")
    chosen, rejected = (_log_odds(mean_logp) for mean_logp in mean_policy_logps(logps))
    loss = plus_chosen_nll(odds_weight * logistic(chosen - rejected), logps, 1.0)
    return pair_loss(loss, chosen, rejected)
