"""conf/objective: one YAML for each function and the other way round, each one usable, each mistake named at once."""

from __future__ import annotations

import functools
import inspect
from dataclasses import replace

import pytest
import torch
from composing import composed as compose
from hydra.errors import InstantiationException
from hydra.utils import get_method, instantiate
from toy_pairs import NAMES, POLICY_FIELDS, declares, hand_pairs, objective

import aipo.objectives as objectives
from aipo.objectives import Objective, PairLogps, PairLoss

FUNCTIONS = sorted(
    name
    for name, value in vars(objectives).items()
    if inspect.isfunction(value) and value.__module__.startswith("aipo.objectives.")
)


def composed(name: str, *overrides: str):
    return compose(*overrides, name=f"objective/{name}").objective


def test_functions_and_yaml_files_match():
    without_function, without_yaml = sorted(set(NAMES) - set(FUNCTIONS)), sorted(set(FUNCTIONS) - set(NAMES))
    assert not without_function, "write these functions in a module of aipo/objectives, and name them in its __all__"
    assert not without_yaml, "write conf/objective/<name>.yaml for each of these functions, like its neighbours"


@pytest.mark.parametrize("name", NAMES)
def test_yaml_composes_binds_runs_and_gives_finite_gradients(name):
    objective(name)
    config = composed(name)
    assert config.name == name == config.loss._target_.rpartition(".")[2]
    parameters = inspect.signature(get_method(config.loss._target_)).parameters
    given = set(config.loss) - {"_target_", "_partial_"}
    assert given == set(parameters) - {"logps"}, "every coefficient has a value in the YAML"

    built = instantiate(config, _convert_="all")
    assert isinstance(built, Objective)
    pairs = hand_pairs()
    absent = {}
    if not built.uses_reference:
        absent |= dict.fromkeys(("reference_chosen", "reference_rejected"))
    if not built.uses_win_probability:
        absent |= {"win_probability": None}
    if not built.uses_win_shares:
        absent |= dict.fromkeys(("chosen_win_share", "rejected_win_share"))
    if not built.uses_prefix:
        absent |= dict.fromkeys(name for name in vars(pairs) if name.endswith("_prefix"))
    needed = [name for name in POLICY_FIELDS[:2]]
    if not built.uses_sample:
        absent |= dict.fromkeys(name for name in vars(pairs) if name.endswith("_sample"))
    if not built.uses_alignment:
        absent |= dict.fromkeys(("chosen_alignment", "rejected_alignment"))
    if built.uses_sample:
        needed = ["policy_chosen_sample", "policy_rejected_sample"]
    leaves = {name: getattr(pairs, name).float().requires_grad_() for name in needed}
    result = built.loss(replace(pairs, **absent, **leaves))
    result.loss.mean().backward()
    for leaf in leaves.values():
        assert leaf.grad is not None and torch.isfinite(leaf.grad).all() and leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_pure_and_take_keyword_only_coefficients(name):
    objective(name)
    function = getattr(objectives, name)
    first, *coefficients = inspect.signature(function).parameters.values()
    assert first.kind is first.POSITIONAL_ONLY
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in coefficients)
    loss, pairs = objective(name).loss, hand_pairs()
    before = {field: value.clone() for field, value in vars(pairs).items()}
    one, other = loss(pairs), loss(pairs)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(torch.equal(value, before[field]) for field, value in vars(pairs).items())


PAPER_FIGURE = {
    "dpo": {"beta": 0.1, "label_smoothing": 0.0},
    "dpo_nll": {"beta": 0.1, "nll_weight": 0.2},
    "simpo": {"beta": 2.0, "margin": 0.5},
    "alpha_dpo": {"beta": 0.1, "alpha": 0.03},
    "aipo": {"beta": 0.1, "alpha": 0.07, "nll_weight": 0.2},
}


@pytest.mark.parametrize("name", sorted(PAPER_FIGURE))
def test_values_of_the_papers_figure(name):
    assert objective(name).loss.keywords == PAPER_FIGURE[name]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("aipo", {"beta": 0.0}, "objective aipo: beta must be above 0, got 0.0"),
        ("aipo", {"alpha": -0.1}, "alpha must be at least 0"),
        ("dpo", {"label_smoothing": 0.5}, r"label_smoothing must be in \[0, 0.5\)"),
        ("robust_dpo", {"label_smoothing": 0.5}, r"label_smoothing must be in \[0, 0.5\)"),
        ("exo", {"label_smoothing": 0.0}, r"label_smoothing must be in \(0, 0.5\)"),
        ("discopop", {"tau": 1.0}, r"tau must be in \(0, 1\)"),
        ("ld_dpo", {"tail_weight": 1.5}, r"tail_weight must be in \[0, 1\]"),
        ("r_dpo", {"length_weight": -1.0}, "length_weight must be at least 0"),
        ("simpo", {"margin": -0.5}, "margin must be at least 0"),
        ("orpo", {"odds_weight": 0.0}, "odds_weight must be above 0"),
        ("cpo_simpo", {"nll_weight": -1.0}, "nll_weight must be at least 0"),
        ("dpop", {"drop_weight": -1.0}, "drop_weight must be at least 0"),
        ("kto", {"beta": -1.0}, "beta must be above 0"),
        ("alpha_dpo_2410", {"spread_weight": -1.0}, "spread_weight must be at least 0"),
        ("dpo", {"gamma": 1.0}, "gamma"),
    ],
)
def test_a_bad_coefficient_is_refused_when_the_objective_is_built(name, changes, message):
    with pytest.raises(InstantiationException) as caught:
        objective(name, **changes)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(ValueError, match=message):
        raise caught.value.__cause__


def test_a_missing_coefficient_is_refused_when_the_objective_is_built():
    with pytest.raises(ValueError, match="objective mine: .*missing 1 required keyword-only argument: 'alpha'"):
        Objective(name="mine", loss=functools.partial(objectives.aipo, beta=0.1, nll_weight=0.0))


@pytest.mark.parametrize(
    ("name", "flag", "message"),
    [
        ("dpo", {"uses_reference": False}, "declare uses_reference: true"),
        ("sppo", {"uses_win_shares": False}, "declare uses_win_shares: true"),
        ("sppo_pairwise", {"uses_win_probability": False}, "declare uses_win_probability: true"),
        ("sampo", {"uses_sample": False}, "declare uses_sample: true"),
        ("wpo", {"uses_alignment": False}, "declare uses_alignment: true"),
        ("ld_dpo", {"uses_prefix": False}, "declare uses_prefix: true"),
        ("kto", {"batch_coupled": False}, "declare batch_coupled: true"),
        ("bco", {"batch_coupled": False}, "declare batch_coupled: true"),
        ("aot", {"batch_coupled": False}, "declare batch_coupled: true"),
        ("alpha_dpo_2410", {"batch_coupled": False}, "declare batch_coupled: true"),
    ],
)
def test_a_forgotten_declaration_is_refused_when_the_objective_is_built(name, flag, message):
    with pytest.raises(ValueError, match=message):
        replace(objective(name), **flag)


def test_a_reduced_loss_is_refused_when_the_objective_is_built():
    def reduced(logps: PairLogps, /) -> PairLoss:
        result = objectives.dpo(logps, beta=0.1)
        return result._replace(loss=result.loss.mean())

    with pytest.raises(ValueError, match="loss must have shape .3,., one value per pair.*do not reduce"):
        Objective(name="mine", loss=reduced)


def _margin(logps: PairLogps) -> torch.Tensor:
    return logps.policy_chosen - logps.policy_rejected


def _detached(logps: PairLogps, /) -> PairLoss:
    loss = -_margin(logps).detach().sigmoid()
    return PairLoss(loss, loss, loss)


def _counting(logps: PairLogps, /) -> PairLoss:
    """Whether the margin is above 0, as a number: flat wherever it is not a step."""
    margin = _margin(logps)
    return PairLoss((margin > 0).double() + 0 * margin, margin.detach(), margin.detach())


def _kinked(logps: PairLogps, /) -> PairLoss:
    """Finite at 0, where its slope is not."""
    margin = _margin(logps)
    return PairLoss((margin - margin.detach()).abs().sqrt(), margin.detach(), margin.detach())


def _in_place(logps: PairLogps, /) -> PairLoss:
    logps.policy_chosen.mul_(2.0)
    return PairLoss(-_margin(logps), logps.policy_chosen.detach(), logps.policy_rejected.detach())


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (_detached, "loss must have a gradient by the policy's log-probs, got none; leave out .detach"),
        (_counting, "loss must change with the policy's log-probs, got a gradient of 0 for three ordinary pairs; "),
        (_kinked, "loss must have a finite gradient, got .*nan.* for three ordinary pairs; "),
        (_in_place, "in-place operation"),
        (lambda logps, /: None, "expected a PairLoss.loss, chosen_reward, rejected_reward., got None; return one"),
        (lambda logps, /: (_margin(logps), _margin(logps)), "expected a PairLoss.*, got a tuple; return one"),
    ],
)
def test_a_loss_that_cannot_train_is_refused_when_the_objective_is_built(loss, said):
    with pytest.raises(ValueError, match=f"objective mine: .*{said}"):
        Objective(name="mine", loss=loss, uses_reference=False)


def test_a_hinge_that_some_pairs_have_left_behind_is_none():
    def hinge(logps: PairLogps, /) -> PairLoss:
        margin = _margin(logps)
        return PairLoss((1.0 - margin).relu(), margin.detach(), margin.detach())

    assert Objective(name="mine", loss=hinge, uses_reference=False).loss is hinge


@pytest.mark.parametrize("name", [name for name in NAMES if not declares(name, "uses_reference", True)])
def test_reference_free_objectives_ignore_a_reference(name):
    loss, pairs = objective(name).loss, hand_pairs()
    without = replace(pairs, reference_chosen=None, reference_rejected=None)
    assert torch.equal(loss(pairs).loss, loss(without).loss)
