"""DPO and the objectives that put another function on its margin.

All but `identity_po`, `dpop` and `wpo` are functions of one number per pair, DPO's margin of summed log-ratios
h = log[pi(y_w)/ref(y_w)] - log[pi(y_l)/ref(y_l)], in nats.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aipo.objectives.pair_logps import PairLogps, PairLoss
from aipo.objectives.terms import (
    log_ratios,
    log_sigmoid,
    logistic,
    mean_log_ratios,
    pair_loss,
    policy_margin,
    reference_margin,
    require,
    require_non_negative,
    require_positive,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["discopop", "dpo", "dpop", "exo", "hinge", "identity_po", "robust_dpo", "wpo"]


def _with_log_ratio_rewards(loss: Tensor, logps: PairLogps, beta: float) -> PairLoss:
    chosen, rejected = log_ratios(logps)
    return pair_loss(loss, beta * chosen, beta * rejected)


def _margin(logps: PairLogps) -> Tensor:
    # Policy margin minus reference margin, in the order aipo adds them up: so the two agree bit for bit.
    return policy_margin(logps) - reference_margin(logps)


def dpo(logps: PairLogps, /, *, beta: float, label_smoothing: float = 0.0) -> PairLoss:
    """Direct preference optimization (arXiv 2305.18290, Eq. 7), sums.

        -(1 - s) * log sigmoid(beta * h) - s * log sigmoid(-beta * h)

    beta (> 0): reward per nat. label_smoothing s in [0, 0.5): the assumed share of swapped labels; above 0 this is
    the authors' conservative DPO. Reward of y: beta * log[pi(y)/ref(y)].
    """
    require_positive(beta=beta)
    require("label_smoothing", label_smoothing, 0 <= label_smoothing < 0.5, "in [0, 0.5)")
    return _with_log_ratio_rewards(logistic(beta * _margin(logps), label_smoothing), logps, beta)


def dpop(logps: PairLogps, /, *, beta: float, drop_weight: float) -> PairLoss:
    """DPO-Positive (DPOP, the Smaug models, arXiv 2402.13228, section 4), sums.

        -log sigmoid(beta * (h - drop_weight * max(0, log[ref(y_w)/pi(y_w)])))

    beta (> 0): reward per nat. drop_weight (>= 0; lambda in the paper): what each nat counts that the chosen completion
    has lost against the reference, beside the nat in h itself. The penalty stands inside beta and sigmoid, as the paper
    writes it. With drop_weight 0 it is DPO. Reward of y_w: beta * (r - drop_weight * max(0, -r)),
    r = log[pi(y_w)/ref(y_w)]; of y_l: beta * log[pi(y_l)/ref(y_l)].
    """
    require_positive(beta=beta)
    require_non_negative(drop_weight=drop_weight)
    chosen, rejected = log_ratios(logps)
    kept = chosen - drop_weight * (-chosen).relu()
    return pair_loss(logistic(beta * (kept - rejected)), beta * kept, beta * rejected)


def robust_dpo(logps: PairLogps, /, *, beta: float, label_smoothing: float) -> PairLoss:
    """Robust DPO (rDPO, arXiv 2403.00409, section 3.1), sums: unbiased when a share s of the labels is swapped.

        [-(1 - s) * log sigmoid(beta * h) + s * log sigmoid(-beta * h)] / (1 - 2 s)

    label_smoothing s in [0, 0.5). Unbounded below as h grows: the gradient tends to -s * beta / (1 - 2 s), not to 0.
    Reward of y: beta * log[pi(y)/ref(y)].
    """
    require_positive(beta=beta)
    require("label_smoothing", label_smoothing, 0 <= label_smoothing < 0.5, "in [0, 0.5)")
    logit = beta * _margin(logps)
    clean, swapped = -log_sigmoid(logit), -log_sigmoid(-logit)
    loss = ((1 - label_smoothing) * clean - label_smoothing * swapped) / (1 - 2 * label_smoothing)
    return _with_log_ratio_rewards(loss, logps, beta)


def wpo(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Weighted preference optimization (WPO, arXiv 2406.11827, Eq. 2, sampled alignment), sums: DPO times a weight.

        -w * log sigmoid(beta * h),    w = min(1, exp(a(y_w) + a(y_l)))
        a(y) = mean over its tokens of log pi(y_t) - log sum_v pi(v)^2

    beta (> 0): reward per nat. a compares each token with what the policy itself would draw, so pairs that it would not
    write count less; w is a constant in the gradient. The cap at 1 is the authors' code's (wzhouad/WPO, run_wpo.py).
    Reward of y: beta * log[pi(y)/ref(y)].
    """
    require_positive(beta=beta)
    if logps.chosen_alignment is None or logps.rejected_alignment is None:
        raise ValueError(
            "alignments are needed, but PairLogps has none; declare uses_alignment: true in the objective's YAML so "
            "that they are computed"
        )
    weight = (logps.chosen_alignment + logps.rejected_alignment).exp().clamp(max=1).detach()
    return _with_log_ratio_rewards(weight * logistic(beta * _margin(logps)), logps, beta)


def hinge(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Hinge loss on DPO's margin (SLiC-HF, arXiv 2305.10425, as normalised by the reference in RSO, 2309.06657). Sums.

        max(0, 1 - beta * h)

    Reward of y: beta * log[pi(y)/ref(y)].
    """
    require_positive(beta=beta)
    return _with_log_ratio_rewards((1 - beta * _margin(logps)).relu(), logps, beta)


def identity_po(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Identity preference optimization (arXiv 2310.12036, Eq. 17), means: its authors confirmed per-token averages.

        (m - 1 / (2 beta))^2,    m = log[pi(y_w)/ref(y_w)] / |y_w| - log[pi(y_l)/ref(y_l)] / |y_l|

    beta (> 0; tau in the paper), per nat per token. Reward of y: beta * log[pi(y)/ref(y)] / |y|; the loss is least at
    a reward margin of 1/2. Never called by its initials here: "iterative preference optimization" shares them.
    """
    require_positive(beta=beta)
    chosen, rejected = mean_log_ratios(logps)
    loss = (chosen - rejected - 1 / (2 * beta)) ** 2
    return pair_loss(loss, beta * chosen, beta * rejected)


def exo(logps: PairLogps, /, *, beta: float, label_smoothing: float) -> PairLoss:
    """Efficient exact optimization from pairs (EXO-pref, arXiv 2402.00856, Eq. 16), sums. A reverse KL.

        q * (log q - log(1 - s)) + (1 - q) * (log(1 - q) - log s),    q = sigmoid(beta * h)

    beta (> 0; beta_pi in the paper). label_smoothing s in (0, 0.5): with 0 the KL would be infinite. Reward of y:
    beta * log[pi(y)/ref(y)].
    """
    require_positive(beta=beta)
    require("label_smoothing", label_smoothing, 0 < label_smoothing < 0.5, "in (0, 0.5)")
    logit = beta * _margin(logps)
    chosen = logit.sigmoid() * (log_sigmoid(logit) - math.log1p(-label_smoothing))
    rejected = (-logit).sigmoid() * (log_sigmoid(-logit) - math.log(label_smoothing))
    return _with_log_ratio_rewards(chosen + rejected, logps, beta)


def discopop(logps: PairLogps, /, *, beta: float, tau: float) -> PairLoss:
    """DiscoPOP's log-ratio modulated loss (arXiv 2406.08414, Eq. 5), sums.

        (1 - w) * (-log sigmoid(beta * h)) + w * exp(-beta * h),    w = sigmoid(beta * h / tau)

    tau in (0, 1): the blend's temperature; at 1 and above w would not tame the exponential for negative margins. Not
    monotone: with tau 0.05 it rises from beta * h = -0.119 to 0.072. Reward of y: beta * log[pi(y)/ref(y)].
    """
    require_positive(beta=beta)
    require("tau", tau, 0 < tau < 1, "in (0, 1)")
    logit = beta * _margin(logps)
    # w * exp(-logit) as one exponential: the factors alone overflow to 0 * inf at large negative margins.
    exponential = (log_sigmoid(logit / tau) - logit).exp()
    loss = -(-logit / tau).sigmoid() * log_sigmoid(logit) + exponential
    return _with_log_ratio_rewards(loss, logps, beta)
