"""Quantities that several objectives are built from. All tensors have shape (batch,); log-probs are in nats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aipo.objectives.pair_logps import PairLogps, PairLoss

if TYPE_CHECKING:
    from torch import Tensor


def reference_logps(logps: PairLogps) -> tuple[Tensor, Tensor]:
    """Summed reference log-probs of chosen and rejected. ValueError where they were not computed."""
    if logps.reference_chosen is None or logps.reference_rejected is None:
        raise ValueError(
            "reference log-probs are needed, but PairLogps has none; declare uses_reference: true in the objective's "
            "YAML so that they are computed"
        )
    return logps.reference_chosen, logps.reference_rejected


def log_ratios(logps: PairLogps) -> tuple[Tensor, Tensor]:
    """log policy(y|x) - log reference(y|x), summed over tokens, of chosen and rejected."""
    reference_chosen, reference_rejected = reference_logps(logps)
    return logps.policy_chosen - reference_chosen, logps.policy_rejected - reference_rejected


def mean_log_ratios(logps: PairLogps) -> tuple[Tensor, Tensor]:
    """`log_ratios` per token: each side divided by its own token count."""
    chosen, rejected = log_ratios(logps)
    return chosen / logps.chosen_tokens, rejected / logps.rejected_tokens


def mean_policy_logps(logps: PairLogps) -> tuple[Tensor, Tensor]:
    """The policy's log-probs per token, of chosen and rejected."""
    return logps.policy_chosen / logps.chosen_tokens, logps.policy_rejected / logps.rejected_tokens


def policy_margin(logps: PairLogps) -> Tensor:
    """log policy(chosen|x) - log policy(rejected|x), sums."""
    return logps.policy_chosen - logps.policy_rejected


def reference_margin(logps: PairLogps) -> Tensor:
    """log reference(chosen|x) - log reference(rejected|x), sums."""
    chosen, rejected = reference_logps(logps)
    return chosen - rejected


def log_sigmoid(values: Tensor) -> Tensor:
    """log sigmoid(values), without overflow."""
    # Here, not above: a job that finds every stage done names its objective and computes nothing with it.
    from torch.nn.functional import logsigmoid

    return logsigmoid(values)


def logistic(logit: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-(1 - s) log sigmoid(logit) - s log sigmoid(-logit): the cross-entropy when a share s of the labels is wrong."""
    if label_smoothing == 0:
        return -log_sigmoid(logit)  # the same bits as the unsmoothed loss, not a sum with a zero
    return -(1 - label_smoothing) * log_sigmoid(logit) - label_smoothing * log_sigmoid(-logit)


def plus_chosen_nll(loss: Tensor, logps: PairLogps, nll_weight: float) -> Tensor:
    """`loss` + nll_weight x mean negative log-prob per token of the chosen completion."""
    if nll_weight == 0:
        return loss  # bit for bit, signed zeros included
    return loss - nll_weight * (logps.policy_chosen / logps.chosen_tokens)


def pair_loss(loss: Tensor, chosen_reward: Tensor, rejected_reward: Tensor) -> PairLoss:
    """The three as a PairLoss, rewards detached."""
    return PairLoss(loss, chosen_reward.detach(), rejected_reward.detach())


def require(name: str, value: float, good: bool, expected: str) -> None:
    """ValueError unless `good`."""
    if not good:
        raise ValueError(f"{name} must be {expected}, got {value}")


def require_positive(**coefficients: float) -> None:
    """ValueError unless every coefficient is above 0."""
    for name, value in coefficients.items():
        require(name, value, value > 0, "above 0")


def require_non_negative(**coefficients: float) -> None:
    """ValueError unless every coefficient is at least 0."""
    for name, value in coefficients.items():
        require(name, value, value >= 0, "at least 0")
