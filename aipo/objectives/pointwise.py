"""Objectives that hold each completion against the reference by itself, rather than the two against each other.

r(y) = log[pi(y)/ref(y)], summed over tokens, in nats. The reward of y is beta * r(y) throughout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aipo.objectives.pair_logps import PairLogps, PairLoss
from aipo.objectives.terms import log_ratios, log_sigmoid, pair_loss, require_positive

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["apo_down", "apo_zero", "nca", "sppo", "sppo_hard", "sppo_pairwise"]


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
    loss = -log_sigmoid(chosen) - 0.5 * log_sigmoid(-chosen) - 0.5 * log_sigmoid(-rejected)
    return pair_loss(loss, chosen, rejected)


def sppo(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Self-play preference optimization (SPPO, arXiv 2405.00675, Algorithm 1), sums: the authors' main form.

        (r(y_w) - (Q_w - 1/2) / beta)^2 + (r(y_l) - (Q_l - 1/2) / beta)^2
        Q_w, Q_l: mean probability that the completion beats a candidate of its prompt

    beta > 0 is 1 / eta of the paper. Q estimates P(y beats the policy) and is the mean over all N candidates, the
    completion itself among them at 1/2, as in the authors' scripts/compute_prob.py. Their code halves the sum; this one
    does not, as the paper.
    """
    if logps.chosen_win_share is None or logps.rejected_win_share is None:
        raise ValueError(
            "win shares are needed, but PairLogps has none; declare uses_win_shares: true in the objective's YAML and "
            "choose a ranker that gives win probabilities, or use sppo_hard"
        )
    return _sppo(logps, beta, logps.chosen_win_share - 0.5, logps.rejected_win_share - 0.5)


def sppo_pairwise(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """SPPO's pairwise variant (arXiv 2405.00675, Eq. 4.7 for two candidates; the authors' sppo_single), sums.

        (r(y_w) - (P - 1/2) / beta)^2 + (r(y_l) + (P - 1/2) / beta)^2,    P = P(y_w beats y_l)

    beta > 0 is 1 / eta of the paper. P is the ranker's own probability for the pair, so the prompt's other candidates
    do not count. Not halved, as `sppo`.
    """
    if logps.win_probability is None:
        raise ValueError(
            "win probabilities are needed, but PairLogps has none; declare uses_win_probability: true in the "
            "objective's YAML and choose a ranker that gives them, or use sppo_hard"
        )
    lead = logps.win_probability - 0.5
    return _sppo(logps, beta, lead, -lead)


def sppo_hard(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """SPPO's pairwise variant with every win taken as certain: P = 1 (arXiv 2405.00675, Eq. 4.7), sums.

        (r(y_w) - 1 / (2 beta))^2 + (r(y_l) + 1 / (2 beta))^2

    beta > 0 is 1 / eta of the paper. Needs no probability of the ranker.
    """
    lead = logps.policy_chosen.new_full(logps.policy_chosen.shape, 0.5)
    return _sppo(logps, beta, lead, -lead)


def _sppo(logps: PairLogps, beta: float, chosen_lead: Tensor, rejected_lead: Tensor) -> PairLoss:
    """A lead is a win probability minus 1/2."""
    require_positive(beta=beta)
    chosen, rejected = log_ratios(logps)
    loss = (chosen - chosen_lead / beta) ** 2 + (rejected - rejected_lead / beta) ** 2
    return pair_loss(loss, beta * chosen, beta * rejected)


def apo_zero(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Anchored preference optimization, zero (APO-zero, arXiv 2408.06266, Eq. 7), sums.

        [1 - sigmoid(beta r(y_w))] + sigmoid(beta r(y_l))

    Chosen up, rejected down: for chosen completions that are better than what the model would say.
    """
    chosen, rejected = _rewards(logps, beta)
    return pair_loss((-chosen).sigmoid() + rejected.sigmoid(), chosen, rejected)


def apo_down(logps: PairLogps, /, *, beta: float) -> PairLoss:
    """Anchored preference optimization, down (APO-down, arXiv 2408.06266, Eq. 8), sums.

        sigmoid(beta r(y_w)) + [1 - sigmoid(beta (r(y_w) - r(y_l)))]

    Both down, rejected more: for chosen completions that are worse than what the model would say.
    """
    chosen, rejected = _rewards(logps, beta)
    return pair_loss(chosen.sigmoid() + (rejected - chosen).sigmoid(), chosen, rejected)
