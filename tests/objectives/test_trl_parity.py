"""Value and gradient against TRL's own loss code, run on constructed log-probs: no model, no data set.

`DPOTrainer._compute_loss` and `KTOTrainer._compute_loss` are called on a stand-in trainer whose "model" returns a table
of per-token log-probs; `CPOTrainer.cpo_loss` and `ORPOTrainer.odds_ratio_loss` are called directly. The gradient is the
one with respect to every single token's log-prob.
"""

from __future__ import annotations

import os
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from toy_pairs import objective

from aipo.objectives import PairLogps

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytest.importorskip("trl", reason="TRL is in the dev extra: pip install -e '.[dev]'")
from trl.experimental.cpo import CPOTrainer  # noqa: E402
from trl.experimental.orpo import ORPOTrainer  # noqa: E402
from trl.trainer.dpo_trainer import DPOTrainer  # noqa: E402
from trl.trainer.kto_trainer import KTOTrainer  # noqa: E402

PROMPT, LONGEST = 3, 9
CHOSEN_TOKENS, REJECTED_TOKENS = (5, 9, 4, 7), (8, 3, 4, 6)
PARITY: dict[str, str] = {
    "dpo": "full",
    "robust_dpo": "full",
    "hinge": "full",
    "identity_po": "full",
    "exo": "full",
    "discopop": "full",
    "dpo_norm": "full",
    "ld_dpo": "full",
    "nca": "full",
    "sppo_hard": "full",
    "apo_zero": "full",
    "apo_down": "full",
    "aot": "full",
    "simpo": "full",
    "dpo_nll": "equal chosen lengths",
    "cpo": "preference term",
    "cpo_simpo": "preference term",
    "orpo": "odds-ratio term",
    "kto": "equal mean log-ratios",
    "bco": "centred rewards",
}
"""Where TRL has the objective, and under which condition the two definitions coincide."""


def token_logps(seed: int, chosen_tokens=CHOSEN_TOKENS, rejected_tokens=REJECTED_TOKENS):
    """Per-token log-probs of policy and reference, (2 x pairs, prompt + tokens - 1), zero off the completion; mask."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([*chosen_tokens, *rejected_tokens])
    positions = torch.arange(PROMPT + LONGEST)
    mask = (positions >= PROMPT) & (positions < PROMPT + lengths[:, None])
    shape = (len(lengths), PROMPT + LONGEST - 1)
    policy, reference = (-2 * torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    shifted = mask[:, 1:]
    return (policy * shifted).requires_grad_(), reference * shifted, mask.long()


def our_pairs(policy: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> PairLogps:
    lengths = mask.sum(1)
    chosen, rejected = lengths.chunk(2)
    shared = torch.minimum(chosen, rejected).repeat(2)
    position = mask[:, 1:].cumsum(1)
    in_prefix = (position > 0) & (position <= shared[:, None])

    def halves(table):
        return table.sum(1).chunk(2)

    totals = [*halves(policy), *halves(reference), *halves(policy * in_prefix), *halves(reference * in_prefix)]
    return PairLogps(
        policy_chosen=totals[0],
        policy_rejected=totals[1],
        reference_chosen=totals[2],
        reference_rejected=totals[3],
        chosen_tokens=chosen,
        rejected_tokens=rejected,
        policy_chosen_prefix=totals[4],
        policy_rejected_prefix=totals[5],
        reference_chosen_prefix=totals[6],
        reference_rejected_prefix=totals[7],
    )


class TableModel(torch.nn.Module):
    """Answers TRL's forward call with given per-token log-probs."""

    is_gradient_checkpointing = False

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, **_: object) -> SimpleNamespace:
        zeros = torch.zeros_like(self.table)
        return SimpleNamespace(log_probs=self.table, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


class OneProcess:
    """The few methods of an accelerator that TRL's loss code calls."""

    device = torch.device("cpu")

    def gather(self, value):
        return value

    gather_for_metrics = gather


def trl_dpo_loss(policy, reference, mask, loss_type="sigmoid", **settings) -> torch.Tensor:
    trainer = SimpleNamespace(
        model=TableModel(policy),
        ref_model=TableModel(reference),
        accelerator=OneProcess(),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=settings.pop("tau", 0.05)),
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        f_divergence_type="reverse_kl",
        use_weighting=False,
        loss_types=[loss_type] if isinstance(loss_type, str) else loss_type,
        loss_weights=settings.pop("loss_weights", [1.0]),
        ld_alpha=settings.pop("tail_weight", None),
        beta=settings.pop("beta"),
        label_smoothing=settings.pop("label_smoothing", 0.0),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    assert not settings, settings
    inputs = {"input_ids": torch.zeros_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask}
    return DPOTrainer._compute_loss(trainer, trainer.model, inputs, return_outputs=False)


def assert_parity(ours: torch.Tensor, theirs: torch.Tensor, table: torch.Tensor, mask: torch.Tensor) -> None:
    """Batch means and their derivatives with respect to every completion token's log-prob agree to 1e-6."""
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    our_gradient, their_gradient = (torch.autograd.grad(loss, table)[0] * mask[:, 1:] for loss in (ours, theirs))
    assert their_gradient.abs().max() > 1e-6
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-6, atol=1e-6)


DPO_CASES = [
    ("dpo", "sigmoid", {"beta": 0.3}),
    ("robust_dpo", "robust", {"beta": 0.3, "label_smoothing": 0.1}),
    ("hinge", "hinge", {"beta": 0.1}),
    ("identity_po", "ipo", {"beta": 0.3}),
    ("exo", "exo_pair", {"beta": 0.3, "label_smoothing": 0.05}),
    ("discopop", "discopop", {"beta": 0.3, "tau": 0.3}),
    ("dpo_norm", "sigmoid_norm", {"beta": 5.0}),
    ("ld_dpo", "sigmoid", {"beta": 0.3, "tail_weight": 0.4}),
    ("nca", "nca_pair", {"beta": 0.3}),
    ("sppo_hard", "sppo_hard", {"beta": 0.3}),
    ("apo_zero", "apo_zero", {"beta": 0.3}),
    ("apo_down", "apo_down", {"beta": 0.3}),
    ("aot", "aot", {"beta": 0.3}),
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "loss_type", "coefficients"), DPO_CASES, ids=[case[0] for case in DPO_CASES])
def test_dpo_trainer(name, loss_type, coefficients, seed):
    policy, reference, mask = token_logps(seed)
    ours = objective(name, **coefficients).loss(our_pairs(policy, reference, mask)).loss.mean()
    assert_parity(ours, trl_dpo_loss(policy, reference, mask, loss_type, **coefficients), policy, mask)


def test_dpo_nll_where_chosen_lengths_are_equal():
    # TRL averages the NLL over the batch's tokens, we over each completion's: the same at equal lengths.
    policy, reference, mask = token_logps(2, chosen_tokens=(6, 6, 6, 6))
    ours = objective("dpo_nll", beta=0.3, nll_weight=0.2).loss(our_pairs(policy, reference, mask)).loss.mean()
    theirs = trl_dpo_loss(policy, reference, mask, ["sigmoid", "sft"], beta=0.3, loss_weights=[1.0, 0.2])
    assert_parity(ours, theirs, policy, mask)


def test_bco_where_rewards_are_centred():
    # TRL's pairwise form has no reward shift: the same where the batch's mean reward is 0.
    policy, reference, mask = token_logps(3)
    mean_ratio = (policy - reference).detach().sum() / len(mask)
    reference = reference + mask[:, 1:] * (mean_ratio / mask.sum(1, keepdim=True))
    ours = objective("bco", beta=0.3).loss(our_pairs(policy, reference, mask)).loss.mean()
    assert_parity(ours, trl_dpo_loss(policy, reference, mask, "bco_pair", beta=0.3), policy, mask)


@pytest.mark.parametrize("mean_ratio", [1.5, -1.5], ids=["positive KL", "KL clamped at 0"])
def test_kto_where_both_sides_have_the_same_mean_log_ratio(mean_ratio):
    # KTO has one KL estimate, pairs offer two: the same where they are equal. TRL's is given its value.
    policy, reference, mask = token_logps(4)
    chosen_half, rejected_half = (policy - reference).detach().sum(1).chunk(2)
    shift = torch.cat([half.mean().expand_as(half) for half in (chosen_half, rejected_half)]) - mean_ratio
    reference = reference + mask[:, 1:] * (shift[:, None] / mask.sum(1, keepdim=True))
    pairs = our_pairs(policy, reference, mask)
    ours = objective("kto", beta=0.3).loss(pairs).loss.mean()

    kl_logps = iter([torch.tensor([mean_ratio], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    trainer = SimpleNamespace(
        model=TableModel(policy),
        ref_model=TableModel(reference),
        accelerator=OneProcess(),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        calculate_KL=True,
        loss_type="kto",
        beta=0.3,
        desirable_weight=1.0,
        undesirable_weight=1.0,
        _compute_kl_logps=lambda model, batch: next(kl_logps),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    pairs_count = len(mask) // 2
    inputs = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "label": torch.tensor([True] * pairs_count + [False] * pairs_count),
    }
    theirs = KTOTrainer._compute_loss(trainer, trainer.model, inputs, return_outputs=False)
    assert_parity(ours, theirs, policy, mask)


def cpo_loss(pairs, chosen, rejected, loss_type, beta, margin=0.0, label_smoothing=0.0):
    trainer = SimpleNamespace(
        alpha=0.0,
        accelerator=OneProcess(),
        loss_type=loss_type,
        simpo_gamma=margin,
        beta=beta,
        label_smoothing=label_smoothing,
    )
    return CPOTrainer.cpo_loss(trainer, chosen, rejected)[0].mean()


def test_dpo_label_smoothing_against_cpo_with_a_flat_reference():
    # TRL's DPO has no smoothing left, its CPO has: DPO with a reference of log-prob 0 everywhere.
    policy, reference, mask = token_logps(5)
    pairs = our_pairs(policy, torch.zeros_like(reference), mask)
    ours = objective("dpo", beta=0.3, label_smoothing=0.1).loss(pairs).loss.mean()
    theirs = cpo_loss(pairs, pairs.policy_chosen, pairs.policy_rejected, "sigmoid", 0.3, label_smoothing=0.1)
    assert_parity(ours, theirs, policy, mask)


def test_cpo_preference_term():
    # The NLL of TRL's CPO runs over prompt and completion of the whole batch: another quantity, compared by hand only.
    policy, reference, mask = token_logps(6)
    pairs = our_pairs(policy, reference, mask)
    ours = objective("cpo", beta=0.3, nll_weight=0.0).loss(pairs).loss.mean()
    assert_parity(ours, cpo_loss(pairs, pairs.policy_chosen, pairs.policy_rejected, "sigmoid", 0.3), policy, mask)


@pytest.mark.parametrize("name", ["simpo", "cpo_simpo"])
def test_simpo(name):
    policy, reference, mask = token_logps(7)
    pairs = our_pairs(policy, reference, mask)
    nll = {"nll_weight": 0.0} if name == "cpo_simpo" else {}
    ours = objective(name, beta=2.0, margin=0.5, **nll).loss(pairs).loss.mean()
    chosen, rejected = pairs.policy_chosen / pairs.chosen_tokens, pairs.policy_rejected / pairs.rejected_tokens
    assert_parity(ours, cpo_loss(pairs, chosen, rejected, "simpo", 2.0, margin=0.5), policy, mask)


def test_orpo_odds_ratio_term():
    # TRL computes this term in float32 and its NLL over prompt and completion; ours minus its NLL, by weight.
    policy, reference, mask = token_logps(8)
    pairs = our_pairs(policy, reference, mask)
    nll = -(pairs.policy_chosen / pairs.chosen_tokens)
    ours = (objective("orpo", odds_weight=0.3).loss(pairs).loss - nll).mean()
    chosen, rejected = pairs.policy_chosen / pairs.chosen_tokens, pairs.policy_rejected / pairs.rejected_tokens
    theirs = ORPOTrainer.odds_ratio_loss(SimpleNamespace(beta=0.3, accelerator=OneProcess()), chosen, rejected)[0]
    assert_parity(ours, -theirs.mean().double(), policy, mask)


def test_every_claim_of_parity_is_tested():
    tested = {case[0] for case in DPO_CASES} | {"dpo_nll", "bco", "kto", "cpo", "simpo", "cpo_simpo", "orpo"}
    assert set(PARITY) == tested
