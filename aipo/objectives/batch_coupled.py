"""Objectives in which a pair's loss depends on the other pairs of its batch, through a mean, a spread or a sort.

"The batch" is what is passed in. So four micro-batches of 8 are another objective than one batch of 32, and these
declare `batch_coupled: true`: a trainer then hands over all log-probs of an optimizer step at once
(`aipo.objectives.coupling`). Published code computes the statistics on whatever lies on one device, or as running
averages over past steps; here they are functions of the current batch alone, so that a step has no hidden state and a
resumed run equals an uninterrupted one. Means and spreads are detached.
"""

from __future__ import annotations

from aipo.objectives.pair_logps import PairLogps, PairLoss
from aipo.objectives.terms import (
    log_ratios,
    log_sigmoid,
    logistic,
    mean_log_ratios,
    mean_policy_logps,
    pair_loss,
    policy_margin,
    reference_margin,
    require_non_negative,
    require_positive,
)

__all__ = ["alpha_dpo_2410", "aot", "bco", "kto"]

SMALLEST_SPREAD = 1e-4
"""Nats per token. Below it AlphaDPO's margins differ by rounding only, as at step 0, and must not be blown up to unit
spread."""


def kto(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Kahneman-Tversky optimization on pairs (KTO, arXiv 2402.01306, Eq. 7), sums.

        1/2 [1 - sigmoid(beta (r(y_w) - z_l))] + 1/2 [1 - sigmoid(beta (z_w - r(y_l)))],    r(y) = log[pi(y)/ref(y)]
        z_w = max(0, batch mean of r(y_w)),  z_l = max(0, batch mean of r(y_l))

    beta > 0. z estimates KL(pi || ref). The paper estimates it from mismatched prompts and completions; pairs offer
    the other side's completions instead, as the first paired implementations did, and the same detached estimate serves
    the whole batch. The two halves are averaged: a pair is two of KTO's examples, with the weights of desirable and
    undesirable ones both 1, as there are equally many. Reward of y: beta * r(y).
    """
    require_positive(beta=beta)
    chosen, rejected = log_ratios(logps)
    chosen_kl, rejected_kl = (ratio.detach().mean().clamp(min=0) for ratio in (chosen, rejected))
    loss = 0.5 * (-beta * (chosen - rejected_kl)).sigmoid() + 0.5 * (-beta * (chosen_kl - rejected)).sigmoid()
    return pair_loss(loss, beta * chosen, beta * rejected)


def bco(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Binary classifier optimization on pairs (BCO, arXiv 2404.04656, section 4), sums.

        -log sigmoid(beta r(y_w) - d) - log sigmoid(d - beta r(y_l)),    r(y) = log[pi(y)/ref(y)]
        d = 1/2 (batch mean of beta r(y_w) + batch mean of beta r(y_l))

    beta > 0. d is the reward shift, detached. The paper follows it by a running mean over steps; here it is the mean
    of the current batch. Reward of y: beta * r(y).
    """
    require_positive(beta=beta)
    chosen, rejected = (beta * ratio for ratio in log_ratios(logps))
    shift = 0.5 * (chosen.detach().mean() + rejected.detach().mean())
    return pair_loss(-log_sigmoid(chosen - shift) - log_sigmoid(shift - rejected), chosen, rejected)


def aot(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Alignment via optimal transport, paired (AOT, arXiv 2406.05882, section 3, with the logistic loss), sums.

        -log sigmoid(beta * (u_(i) - v_(i))),    u = log[pi(y_w)/pi(y_l)],  v = log[ref(y_w)/ref(y_l)]

    where u_(i) and v_(i) are the i-th smallest of the batch: the policy's margins should dominate the reference's as
    distributions, not pair by pair. The loss of rank i is returned at the pair whose policy margin has that rank (ties
    in batch order). A batch of one is DPO. Reward of y: beta * log[pi(y)/ref(y)].
    """
    require_positive(beta=beta)
    margins = policy_margin(logps)
    ranks = margins.detach().argsort(stable=True).argsort()
    loss = logistic(beta * (margins - reference_margin(logps).sort().values[ranks]))
    chosen, rejected = log_ratios(logps)
    return pair_loss(loss, beta * chosen, beta * rejected)


def alpha_dpo_2410(logps: PairLogps, /, *, beta: float, margin: float, spread_weight: float) -> PairLoss:
    """AlphaDPO, the adaptive reward margin of arXiv 2410.10148, means. Not the AIPO paper's alpha-DPO.

        -log sigmoid(beta * (log pi(y_w) / |y_w| - log pi(y_l) / |y_l|) - margin - beta * spread_weight * z)
        z = (m - batch mean of m) / batch standard deviation of m,
        m = log[pi(y_w)/ref(y_w)] / |y_w| - log[pi(y_l)/ref(y_l)] / |y_l|

    SimPO with a target margin that is larger for pairs on which the policy has already moved far. z is detached.
    beta > 0: reward per nat per token. margin >= 0 (beta times the official code's gamma_beta_ratio): reward units.
    spread_weight >= 0 (alpha in the paper and code): nats per token and standard deviation; multiplied by beta, as the
    official code has it. That code standardises by running averages (decay 0.9) over steps; here mean and standard
    deviation (n - 1) are the current batch's, and z is 0 for a batch of one. Reward of y: beta * log pi(y) / |y|.
    """
    require_positive(beta=beta)
    require_non_negative(margin=margin, spread_weight=spread_weight)
    ratio_chosen, ratio_rejected = mean_log_ratios(logps)
    moved = (ratio_chosen - ratio_rejected).detach()
    centred = moved - moved.mean()
    spread = (centred.square().sum() / max(1, len(moved) - 1)).sqrt().clamp(min=SMALLEST_SPREAD)
    chosen, rejected = mean_policy_logps(logps)
    target = margin + beta * spread_weight * centred / spread
    return pair_loss(logistic(beta * (chosen - rejected) - target), beta * chosen, beta * rejected)
