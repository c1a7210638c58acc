"""DPO with the completions' lengths taken into account: by a margin, by a tail weight, or by averaging."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aipo.objectives.pair_logps import PairLogps, PairLoss
from aipo.objectives.terms import (
    log_ratios,
    logistic,
    mean_log_ratios,
    pair_loss,
    reference_logps,
    require,
    require_non_negative,
    require_positive,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["dpo_norm", "ilr_dpo", "ld_dpo", "r_dpo", "sampo"]


def r_dpo(logps: PairLogps, /, *, beta: float, length_weight: float) -> PairLoss:
    """Length-regularised DPO (R-DPO, arXiv 2403.19159), sums.

        -log sigmoid(beta * h + length_weight * (|y_w| - |y_l|)),    h: DPO's margin

    length_weight (>= 0; alpha in the paper), reward per token: what one more token must be worth. A longer chosen
    completion so needs a smaller margin and pulls less. Reward of y: beta * log[pi(y)/ref(y)] + length_weight * |y|,
    the quality left once the length penalty is undone.
    """
    require_positive(beta=beta)
    require_non_negative(length_weight=length_weight)
    chosen, rejected = log_ratios(logps)
    # Tokens in the log-probs' dtype first: a Python float times an int64 tensor would be float32 even in float64.
    chosen_reward = beta * chosen + length_weight * logps.chosen_tokens.to(chosen.dtype)
    rejected_reward = beta * rejected + length_weight * logps.rejected_tokens.to(rejected.dtype)
    return pair_loss(logistic(chosen_reward - rejected_reward), chosen_reward, rejected_reward)


def ilr_dpo(logps: PairLogps, /, *, beta: float, length_weight: float) -> PairLoss:
    """Iterative length-regularised DPO (iLR-DPO, arXiv 2406.11817), sums: a length penalty as a second objective.

        -log sigmoid(beta * h + length_weight * (|y_w| - |y_l|)),    h: DPO's margin

    The multi-objective derivation ends at the loss of `r_dpo`; what differs is its use, iteration after iteration with
    a moving reference, and the coefficients that go with it.
    """
    return r_dpo(logps, beta=beta, length_weight=length_weight)


def _down_weight_tail(total: Tensor, prefix: Tensor | None, tail_weight: float) -> Tensor:
    if prefix is None:
        raise ValueError(
            "log-probs of the shared prefix are needed, but PairLogps has none; declare uses_prefix: true in the "
            "objective's YAML so that they are computed"
        )
    return prefix + tail_weight * (total - prefix)


def ld_dpo(logps: PairLogps, /, *, beta: float, tail_weight: float) -> PairLoss:
    """Length-desensitised DPO (LD-DPO, arXiv 2409.06411), sums over the shared length plus a weighted tail.

        DPO with log p(y) replaced by  sum_{i <= k} log p(y_i) + tail_weight * sum_{i > k} log p(y_i)

    for policy and reference, k = min(|y_w|, |y_l|). tail_weight in [0, 1] (alpha in the paper): 1 is DPO, 0 cuts the
    longer completion. Needs prefix log-probs. Reward of y: beta * (that sum of the policy - that of the reference).
    """
    require_positive(beta=beta)
    require("tail_weight", tail_weight, 0 <= tail_weight <= 1, "in [0, 1]")
    reference_chosen, reference_rejected = reference_logps(logps)
    chosen = _down_weight_tail(logps.policy_chosen, logps.policy_chosen_prefix, tail_weight) - _down_weight_tail(
        reference_chosen, logps.reference_chosen_prefix, tail_weight
    )
    rejected = _down_weight_tail(logps.policy_rejected, logps.policy_rejected_prefix, tail_weight) - _down_weight_tail(
        reference_rejected, logps.reference_rejected_prefix, tail_weight
    )
    return pair_loss(logistic(beta * (chosen - rejected)), beta * chosen, beta * rejected)


def sampo(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """SamPO, DPO on down-sampled tokens (arXiv 2406.10957, section 3.3), sums over as many tokens of both sides.

        -log sigmoid(beta * (r'(y_w) - r'(y_l))),    r'(y) = sum of log[pi(y_t)/ref(y_t)] over k sampled tokens

    k = min(|y_w|, |y_l|): all tokens of the shorter completion, k of the longer drawn without replacement, so length
    adds nothing to the margin. beta (> 0): reward per nat. The authors' code draws anew in every pass, for policy and
    reference apart (LuJunru/SamPO, dpo_trainer.py); here the draw is the pair's own, the same for both, so that the
    first margin is 0 and a resumed run equals an uninterrupted one. Needs sums over sampled tokens. Reward of y:
    beta * r'(y).
    """
    require_positive(beta=beta)
    sums = (logps.policy_chosen_sample, logps.policy_rejected_sample)
    frozen = (logps.reference_chosen_sample, logps.reference_rejected_sample)
    if sums[0] is None or sums[1] is None or frozen[0] is None or frozen[1] is None:
        raise ValueError(
            "log-probs of sampled tokens are needed, but PairLogps has none; declare uses_sample: true in the "
            "objective's YAML so that they are computed"
        )
    chosen, rejected = sums[0] - frozen[0], sums[1] - frozen[1]
    return pair_loss(logistic(beta * (chosen - rejected)), beta * chosen, beta * rejected)


def dpo_norm(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Length-normalised DPO (Tulu 3, arXiv 2411.15124, section 5.1), means.

        -log sigmoid(beta * (log[pi(y_w)/ref(y_w)] / |y_w| - log[pi(y_l)/ref(y_l)] / |y_l|))

    beta (> 0), reward per nat per token: much larger than DPO's. Reward of y: beta * log[pi(y)/ref(y)] / |y|.
    """
    require_positive(beta=beta)
    chosen, rejected = mean_log_ratios(logps)
    return pair_loss(logistic(beta * (chosen - rejected)), beta * chosen, beta * rejected)
