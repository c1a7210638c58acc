"""AIPO and two of its paper's ablations (arXiv 2409.08845): the reference margin weighed in, and an NLL term."""

from __future__ import annotations

from aipo.objectives.pair_logps import PairLogps, PairLoss
from aipo.objectives.terms import (
    logistic,
    pair_loss,
    plus_chosen_nll,
    policy_margin,
    reference_logps,
    reference_margin,
    require_non_negative,
    require_positive,
)

__all__ = ["aipo", "alpha_dpo", "dpo_nll"]


def aipo(logps: PairLogps, /, *, beta: float, alpha: float, nll_weight: float) -> PairLoss:
    """AIPO (arXiv 2409.08845), sums in the sigmoid, mean in the NLL term.

        -log sigmoid(beta * log[pi(y_w)/pi(y_l)] - (1 + alpha) * beta * log[ref(y_w)/ref(y_l)])
            - (nll_weight / |y_w|) * log pi(y_w)

    beta (> 0): reward per nat. alpha (>= 0): extra weight of the reference margin. nll_weight (>= 0; lambda in the
    paper). Reward of y: beta * (log pi(y) - (1 + alpha) * log ref(y)). With alpha = nll_weight = 0 it equals `dpo`
    bit for bit.
    """
    require_positive(beta=beta)
    require_non_negative(alpha=alpha, nll_weight=nll_weight)
    loss = logistic(beta * (policy_margin(logps) - (1 + alpha) * reference_margin(logps)))
    reference_chosen, reference_rejected = reference_logps(logps)
    return pair_loss(
        plus_chosen_nll(loss, logps, nll_weight),
        beta * (logps.policy_chosen - (1 + alpha) * reference_chosen),
        beta * (logps.policy_rejected - (1 + alpha) * reference_rejected),
    )


def alpha_dpo(logps: PairLogps, /, *, beta: float, alpha: float) -> PairLoss:
    """alpha-DPO of the AIPO paper (arXiv 2409.08845): AIPO without its NLL term. Sums.

        -log sigmoid(beta * log[pi(y_w)/pi(y_l)] - (1 + alpha) * beta * log[ref(y_w)/ref(y_l)])

    Not the later paper AlphaDPO (arXiv 2410.10148): that is `alpha_dpo_2410`.
    """
    return aipo(logps, beta=beta, alpha=alpha, nll_weight=0.0)


def dpo_nll(logps: PairLogps, /, *, beta: float, nll_weight: float) -> PairLoss:
    """DPO plus the chosen completion's mean NLL, the AIPO paper's DPO+NLL. Sums in the sigmoid, mean in the NLL term.

        -log sigmoid(beta * (log[pi(y_w)/ref(y_w)] - log[pi(y_l)/ref(y_l)])) - (nll_weight / |y_w|) * log pi(y_w)

    The same combination as in arXiv 2404.19733, Eq. 1, where the weight is called alpha.
    """
    return aipo(logps, beta=beta, alpha=0.0, nll_weight=nll_weight)
