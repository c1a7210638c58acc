"""Variants come from what jobs compute, never from what was typed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aipo.jobs import JobRecord
from analysis.variants import variants


def _job(name: str = "aipo", choices: dict[str, str] | None = None, **settings: Any) -> JobRecord:
    return JobRecord(name, 0, "miniature", "uf", True, (), choices or {}, {"model": {"seed": 0}, **settings}, "outputs")


def test_a_difference_in_settings_is_a_variant_and_a_seed_is_none() -> None:
    jobs = [_job(trainer={"lr": rate}, model={"seed": seed}, seed=seed) for rate in (1e-4, 3e-4) for seed in (0, 1)]
    assert variants(jobs) == [("trainer.lr=0.0001",)] * 2 + [("trainer.lr=0.0003",)] * 2


def test_an_objectives_settings_are_compared_within_the_objective() -> None:
    jobs = [
        _job("aipo", objective={"name": "aipo", "loss": {"_target_": "x.aipo", "alpha": 0.07}}),
        _job("aipo", objective={"name": "aipo", "loss": {"_target_": "x.aipo", "alpha": 0.3}}),
        _job("dpo", objective={"name": "dpo", "loss": {"_target_": "x.dpo", "beta": 0.1}}),
    ]
    assert variants(jobs) == [("objective.loss.alpha=0.07",), ("objective.loss.alpha=0.3",), ()]


def test_a_choice_stands_for_all_its_settings() -> None:
    jobs = [
        _job(choices={"ranker": "proxy"}, ranker={"_target_": "x.Proxy", "noise": 0.1}),
        _job(choices={"ranker": "proxy"}, ranker={"_target_": "x.Proxy", "noise": 0.2}),
        _job(choices={"ranker": "length_only"}, ranker={"_target_": "x.Length"}),
    ]
    first, second, third = variants(jobs)
    assert first == ("ranker.noise=0.1", "ranker=proxy") and second == ("ranker.noise=0.2", "ranker=proxy")
    assert third == ("ranker=length_only",)


def test_more_rounds_and_another_benchmark_are_no_variant() -> None:
    jobs = [
        _job(iteration={"iterations": 5}, benchmark={"gold": {"n": 8}}),
        _job(iteration={"iterations": 15}, benchmark={"gold": {"n": 8}, "mt_bench": {"n": 80}}),
    ]
    assert variants(jobs) == [(), ()]


def test_benchmarks_that_nobody_chose_are_called_by_their_names() -> None:
    """It was "[benchmark=]", which reads as if nothing were evaluated."""
    few = replace(_job(benchmark={"gold": {"n": 8}}), choices={"benchmark": "gold"})
    many = replace(_job(benchmark={"gold": {"n": 8}, "mt_bench": {"n": 80}}), choices={})
    assert variants([few, many]) == [("benchmark=gold",), ("benchmark=gold,mt_bench",)]
