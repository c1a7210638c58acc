"""The league where runs are missing: what its table tells of, and what it refuses."""

from __future__ import annotations

import shutil

import pytest

from analysis import every_pair
from analysis.collect import AnalysisError, collect
from analysis.findings import leading
from analysis.league import Choice, choose, league_table
from analysis.league import main as league_command


def test_an_arm_that_lacks_rounds_or_seeds_is_told_of(fake_sweep) -> None:
    """SimPO's runs all stopped, AIPO has one seed, the placebo three: nothing is left out in silence."""
    options = {"iterations": 3, "benchmarks": ("gold",), "diagnostic": False}
    for name, rate, seeds in (("dpo", "0.0003", 4), ("dpo_placebo", "0.0003", 3), ("aipo", "0.001", 1)):
        for seed in range(seeds):
            fake_sweep.job(name, seed, overrides=[f"trainer.learning_rate={rate}"], **options)
    stopped = options | {"iterations": 1, "status": "failed", "error": "stopped"}
    fake_sweep.job("simpo", 0, overrides=["trainer.learning_rate=0.0003"], **stopped)
    rates = {"aipo": 1e-3, "dpo": 3e-4, "simpo": 3e-4}
    choices = [Choice(name, rate, 0.0, True, 3) for name, rate in rates.items()]
    table = league_table(collect(fake_sweep.folder), choices)
    over = "the 95 % interval over 1 to 3 seeds (n_seeds in the CSV); p corrected"
    assert table.notes[0].startswith(f"After round 3, on fresh seeds; in brackets {over}")
    assert table.notes[-1].startswith("Not compared, for none of its runs has all 3 rounds scored so far: SimPO [")
    assert dict(zip(table.data["objective"], table.data["n_seeds"], strict=True)) == {"aipo": 1, "dpo_placebo": 3}
    aipo = next(cells for cells in table.cells if cells[0] == "AIPO")
    assert aipo[-2] == "not tested: one seed" and not any("nan" in cell or "p =" in cell for cell in aipo)


def test_a_league_by_a_rate_without_single_questions_counts_none(fake_sweep) -> None:
    """AlpacaEval's length-controlled rate is no mean over questions: the note names seeds alone, and no 0."""
    for name, seed in ((n, s) for n in ("dpo", "aipo") for s in (0, 1)):
        overrides = ["trainer.learning_rate=0.0003"]
        fake_sweep.job(name, seed, iterations=3, benchmarks=("alpaca_eval",), diagnostic=False, overrides=overrides)
    table = league_table(collect(fake_sweep.folder), [Choice(name, 3e-4, 0.0, True, 3) for name in ("dpo", "aipo")])
    assert "interval over 2 seeds; p corrected" in table.notes[0] and "0 questions" not in table.notes[0]


def test_arms_that_cannot_be_told_apart_or_held_against_dpo_are_refused(fake_sweep) -> None:
    choices = [Choice(name, 3e-4, 0.0, True, 3) for name in ("dpo", "simpo")]
    for name, seed, beta in (("dpo", 0, "0.1"), ("simpo", 1, "2"), ("simpo", 0, "9")):
        overrides = ["trainer.learning_rate=0.0003", f"objective.loss.beta={beta}"]
        fake_sweep.job(name, seed, iterations=3, benchmarks=("gold",), diagnostic=False, overrides=overrides)
    with pytest.raises(AnalysisError, match="several differ in more than the learning rate: simpo at 0.0003"):
        league_table(collect(fake_sweep.folder), choices)
    with pytest.raises(AnalysisError, match="several differ in more than the learning rate: simpo at 0.0003"):
        choose(collect(fake_sweep.folder))
    shutil.rmtree(fake_sweep.folder / "jobs" / "2")
    with pytest.raises(AnalysisError, match="expected seeds of dpo for every arm; none of: simpo"):
        league_table(collect(fake_sweep.folder), choices)


def test_the_benchmark_is_one_that_the_runs_have_in_common(fake_sweep) -> None:
    """The first run alone has gold, all have MT-Bench."""
    for objective, names in (("aipo", ("gold", "mt_bench")), ("dpo", ("mt_bench",)), ("simpo", ("mt_bench",))):
        fake_sweep.job(objective, iterations=2, benchmarks=names, diagnostic=False)
    sweep = collect(fake_sweep.folder)
    assert leading(sweep) == "mt_bench"
    assert [cell[:2] for cell in every_pair.table_of(sweep).cells] == [
        ("SimPO", "DPO"), ("AIPO", "DPO"), ("AIPO", "SimPO"),
    ]  # fmt: skip


@pytest.mark.parametrize("command", [every_pair.main, league_command])
def test_a_sweep_without_a_benchmark_or_with_a_torn_list_of_jobs_is_an_error(fake_sweep, capsys, command) -> None:
    for objective in ("dpo", "aipo"):
        fake_sweep.job(objective, iterations=1, benchmarks=(), diagnostic=False)
    assert command([str(fake_sweep.folder)]) == 1
    assert "expected runs with a benchmark, but none of its 2 has one" in capsys.readouterr().err
    (fake_sweep.folder / "submitted.json").write_text("{", encoding="utf-8")
    assert command([str(fake_sweep.folder)]) == 1
    assert "submitted.json" in capsys.readouterr().err
