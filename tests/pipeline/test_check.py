"""Every mistake in a config is found before the first stage, and all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from composing import composed
from omegaconf import DictConfig, open_dict

from aipo.pipeline.check import ConfigError, check
from aipo.pipeline.missing import missing_needs
from aipo.pipeline.run import build_run

ROOT = Path(__file__).resolve().parents[2]


def _problems(config: DictConfig) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(config)
    return caught.value.problems


def test_a_sweep_lies_in_no_other_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its jobs were taken for those of the other."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "smoke" / "jobs").mkdir(parents=True)
    with pytest.raises(ConfigError) as caught:
        check(composed("sweep=smoke/deeper/one"))
    assert caught.value.problems == [
        "sweep: 'smoke/deeper/one' lies inside the sweep results/smoke; choose a name beside it"
    ]
    for good in ("smoke", "group/one", "smoke2/one"):
        check(composed(f"sweep={good}"))


def test_the_default_passes_and_is_plain() -> None:
    plain = check(composed())
    assert plain["objective"]["name"] == "aipo" and type(plain["objective"]["loss"]) is dict


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf" / "objective").glob("*.yaml")))
def test_every_objective_passes(name: str) -> None:
    assert check(composed(f"objective={name}"))["objective"]["name"] == name


@pytest.mark.parametrize("recipe", ["uf", "pairrm_uf", "pairrm_gen_uf", "pairrm_gen_si_uf"])
def test_every_recipe_passes(recipe: str) -> None:
    check(composed(f"data={recipe}"))


def test_unknown_keys_at_every_depth_are_listed_together() -> None:
    config = composed()
    with open_dict(config):
        config.sede = 1
        config.objective.loss.bta = 0.2
        config.trainer.learning_rte = 1e-3
        config.iteration.decoding.temprature = 0.3
    problems = _problems(config)
    assert [problem.split(":")[0] for problem in problems] == [
        "sede",
        "objective.loss.bta",
        "iteration.decoding.temprature",
        "trainer.learning_rte",
    ]
    assert "aipo.objectives.aipo takes" in problems[1] and "beta" in problems[1]


def test_missing_values_name_the_key() -> None:
    config = composed()
    config.objective.loss.beta = "???"
    config.trainer = "???"
    problems = _problems(config)
    assert len(problems) == 2 and problems[0].startswith("objective.loss.beta: a value is required")


def test_a_target_that_does_not_exist() -> None:
    config = composed()
    config.ranker = {"_target_": "aipo.rankers.nothing.Ranker"}
    (problem,) = _problems(config)
    assert problem.startswith("ranker._target_: cannot import 'aipo.rankers.nothing.Ranker'")


def test_bad_values_are_refused_by_the_constructors() -> None:
    config = composed("iteration.reference=latest", "iteration.decoding.top_p=1.5", "seed=zero")
    problems = _problems(config)
    assert any("seed: expected a whole number from 0 to 4294967295, got 'zero'" in problem for problem in problems)
    assert any("iteration" in problem and "top_p must be in (0, 1], got 1.5" in problem for problem in problems)
    (problem,) = _problems(composed("iteration.reference=latest"))
    assert "previous, initial or ema, got 'latest'" in problem


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("iteration.prompts=many", "iteration.prompts: expected a whole number or null, got 'many'"),
        ("iteration.prompts=2.5", "iteration.prompts: expected a whole number or null, got 2.5"),
        ("iteration.decoding.temperature=hot", "iteration.decoding.temperature: expected a number, got 'hot'"),
        ("trainer.learning_rate=true", "trainer.learning_rate: expected a number, got True"),
        ("trainer.max_grad_norm=off", "trainer.max_grad_norm: expected a number or null, got 'off'"),
        ("trainer.gradient_checkpointing=1", "trainer.gradient_checkpointing: expected true or false, got 1"),
        ("objective.loss.beta=big", "objective.loss.beta: expected a number, got 'big'"),
        ("store.root=/etc/hostname/store", "missing store.root=/etc/hostname/store: /etc/hostname is not a folder"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_in_yamls_terms(override: str, problem: str) -> None:
    config = composed(override)
    if problem.startswith("missing"):
        assert [f"missing {need}" for need in missing_needs(build_run(check(config)))] == [f"{problem}; choose another"]
    else:
        assert _problems(config) == [problem]


def test_all_prompts_are_those_of_a_pool() -> None:
    assert check(composed("iteration.prompts=null", "data=pairrm_gen_uf"))
    (problem,) = _problems(composed("iteration.prompts=null"))
    assert problem == (
        "iteration.prompts: null is the whole pool, but data.prompts=self_instruct makes new ones; give a number"
    )


def test_truth_of_the_miniature_is_refused_elsewhere(tmp_path: Path) -> None:
    rows = tmp_path / "prompts.jsonl"
    rows.write_text('{"prompt": "Hello?"}\n')
    problems = _problems(composed("data/source=local", f"data.source.path={rows}"))
    assert any(problem.startswith("ranker: aipo.miniature.ProxyRanker knows the truth") for problem in problems)
    assert any(problem.startswith("judge: ") for problem in problems)
    assert any(problem.startswith("benchmark.gold: ") for problem in problems)


def test_one_candidate_makes_no_pair() -> None:
    (problem,) = _problems(composed("iteration.candidates=1"))
    assert problem == "iteration.candidates: a pair needs at least 2 candidates, got 1"


def test_the_samplers_log_probs_need_a_sampler_that_is_the_reference() -> None:
    drawn = "iteration.reference_logps=sampler"
    assert check(composed(drawn))
    (problem,) = _problems(composed(drawn, "objective=ld_dpo"))
    assert "objective ld_dpo needs log-probs of prefixes" in problem
    (problem,) = _problems(composed(drawn, "data=uf"))
    assert "no policy draws completions" in problem
    (problem,) = _problems(composed(drawn, "iteration.reference=initial"))
    assert "needs iteration.reference=previous" in problem


@pytest.mark.parametrize("name", ["sppo", "sppo_pairwise"])
def test_an_objective_that_needs_a_probability_needs_a_ranker_that_gives_one(name: str) -> None:
    problems = _problems(composed(f"objective={name}", "ranker=length_only"))
    needed = f"objective {name} needs the ranker's win probability, which aipo.rankers.LengthOnlyRanker"
    assert any(problem.startswith(needed) for problem in problems)
    check(composed(f"objective={name}"))
