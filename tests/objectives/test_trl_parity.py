"""Value and gradient against TRL's own loss code, run on constructed log-probs: no model, no data set.

`DPOTrainer._compute_loss` and `KTOTrainer._compute_loss` are called on a stand-in trainer whose "model" returns a table
of per-token log-probs, and the gradient compared is the one with respect to every token's log-prob. The CPO and ORPO
trainers' `get_batch_loss_metrics` get a table of logits, and the gradient is the one with respect to every logit.
"""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from dataclasses import replace
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
    "wpo": "weights of at most 1",
    "apo_zero": "full",
    "apo_down": "full",
    "aot": "full",
    "simpo": "full",
    "dpo_nll": "equal chosen lengths",
    "cpo": "equal chosen lengths",
    "cpo_simpo": "equal chosen lengths",
    "orpo": "equal chosen lengths, NLL of the completion only",
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

    def __init__(self, table: torch.Tensor, log_sum_sq_probs: torch.Tensor | None = None) -> None:
        super().__init__()
        self.table, self.log_sum_sq_probs = table, log_sum_sq_probs

    def forward(self, **_: object) -> SimpleNamespace:
        zeros = torch.zeros_like(self.table)
        return SimpleNamespace(
            log_probs=self.table,
            entropy=zeros,
            mean_logits=zeros,
            is_top1=zeros.bool(),
            log_sum_sq_probs=self.log_sum_sq_probs,
        )


class OneProcess:
    """The few methods of an accelerator that TRL's loss code calls."""

    device = torch.device("cpu")

    def gather(self, value):
        return value

    gather_for_metrics = gather


def trl_dpo_loss(policy, reference, mask, loss_type="sigmoid", **settings) -> torch.Tensor:
    trainer = SimpleNamespace(
        model=TableModel(policy, settings.get("log_sum_sq_probs")),
        ref_model=TableModel(reference),
        accelerator=OneProcess(),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=settings.pop("tau", 0.05)),
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        f_divergence_type="reverse_kl",
        use_weighting=settings.pop("log_sum_sq_probs", None) is not None,
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


def test_wpo_where_weights_are_at_most_1():
    # TRL does not cap the weight at 1, the authors' code does.
    policy, reference, mask = token_logps(5)
    squares = -torch.rand(policy.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 0.1
    aligned = ((policy.detach() - squares) * mask[:, 1:]).sum(1) / mask.sum(1)
    chosen, rejected = aligned.chunk(2)
    assert (chosen + rejected < 0).all()
    pairs = replace(our_pairs(policy, reference, mask), chosen_alignment=chosen, rejected_alignment=rejected)
    ours = objective("wpo", beta=0.3).loss(pairs).loss.mean()
    assert_parity(ours, trl_dpo_loss(policy, reference, mask, beta=0.3, log_sum_sq_probs=squares), policy, mask)


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


def reference_free_batch(seed: int):
    """Logits of a made-up model with 5 tokens in its vocabulary, TRL's batch for them, and our log-probs of the same.

    Prompts have one token, so that an NLL over "prompt and completion" has no prompt token to predict; all chosen
    completions have 6 tokens, so that a mean over the batch's tokens is the mean of the completions' means.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths, pairs_count, longest = torch.tensor([6, 6, 6, 3, 8, 5]), 3, 9
    ids = torch.randint(0, 5, (len(lengths), longest), generator=generator)
    attended = torch.arange(longest) < 1 + lengths[:, None]
    labels = torch.where(attended & (torch.arange(longest) >= 1), ids, -100)
    batch = {}
    for side, rows in (("chosen", slice(0, pairs_count)), ("rejected", slice(pairs_count, None))):
        batch |= {f"{side}_input_ids": ids[rows], f"{side}_labels": labels[rows]}
        batch[f"{side}_attention_mask"] = attended[rows].long()
    logits = torch.randn(*ids.shape, 5, generator=generator, dtype=torch.float64).requires_grad_()
    per_token = logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1) * attended[:, 1:]
    chosen, rejected = per_token.sum(1).chunk(2)
    pairs = PairLogps(chosen, rejected, None, None, *lengths.chunk(2))
    return logits, batch, pairs


def trl_reference_free_loss(kind, logits, batch, **settings) -> torch.Tensor:
    trainer = SimpleNamespace(
        accelerator=OneProcess(),
        is_encoder_decoder=False,
        aux_loss_enabled=False,
        pad_token_id=0,
        padding_value=0,
        alpha=0.0,
        concatenated_inputs=kind.concatenated_inputs,
        get_batch_logps=kind.get_batch_logps,
        **settings,
    )
    for method in ("concatenated_forward", "cpo_loss", "odds_ratio_loss"):
        if hasattr(kind, method):
            setattr(trainer, method, functools.partial(getattr(kind, method), trainer))

    def model(*_, **__):
        return SimpleNamespace(logits=logits)

    return kind.get_batch_loss_metrics(trainer, model, batch)[0]


CPO_CASES = [
    # ours, TRL's trainer, its settings
    ("simpo", {"beta": 2.0, "margin": 0.5}, CPOTrainer, {"loss_type": "simpo", "cpo_alpha": 0.0}),
    ("cpo", {"beta": 0.3, "nll_weight": 1.0}, CPOTrainer, {"loss_type": "sigmoid", "cpo_alpha": 1.0}),
    (
        "cpo_simpo",
        {"beta": 2.0, "margin": 0.5, "nll_weight": 0.2},
        CPOTrainer,
        {"loss_type": "simpo", "cpo_alpha": 0.2},
    ),
    ("orpo", {"odds_weight": 0.3}, ORPOTrainer, {"beta": 0.3}),
]


@pytest.mark.parametrize(("name", "coefficients", "kind", "settings"), CPO_CASES, ids=[case[0] for case in CPO_CASES])
def test_cpo_and_orpo_trainers(name, coefficients, kind, settings):
    logits, batch, pairs = reference_free_batch(6)
    ours = objective(name, **coefficients).loss(pairs).loss.mean()
    if kind is CPOTrainer:
        settings = {
            "beta": coefficients["beta"],
            "simpo_gamma": coefficients.get("margin"),
            "label_smoothing": 0.0,
            **settings,
        }
    theirs = trl_reference_free_loss(kind, logits, batch, **settings)
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-6, atol=1e-6)
    our_gradient, their_gradient = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs))
    assert their_gradient.abs().max() > 1e-3
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-6, atol=1e-6)


def test_dpo_label_smoothing_against_cpo_with_a_flat_reference():
    # TRL's DPO has no smoothing left, its CPO has: DPO with a reference of log-prob 0 everywhere.
    logits, batch, pairs = reference_free_batch(7)
    zeros = torch.zeros_like(pairs.policy_chosen)
    pairs = replace(pairs, reference_chosen=zeros, reference_rejected=zeros)
    ours = objective("dpo", beta=0.3, label_smoothing=0.1).loss(pairs).loss.mean()
    settings = {"loss_type": "sigmoid", "cpo_alpha": 0.0, "beta": 0.3, "label_smoothing": 0.1}
    theirs = trl_reference_free_loss(CPOTrainer, logits, batch, **settings)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    our_gradient, their_gradient = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs))
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-6, atol=1e-6)


def test_every_claim_of_parity_is_tested():
    tested = {case[0] for case in (*DPO_CASES, *CPO_CASES)} | {"dpo_nll", "bco", "kto", "wpo"}
    assert set(PARITY) == tested
