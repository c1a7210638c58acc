"""The league: the choice on tuning seeds, the commands of the confirming runs, and its table."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pytest
import torch

from aipo.objectives import PairLogps
from aipo.objectives.length import r_dpo
from analysis import league
from analysis.collect import AnalysisError, collect
from analysis.league import Choice, choose, commands, league_table, main
from experiments.planted_faults import r_dpo_flipped

RATES = ("0.0001", "0.0003", "0.001")
SEEDS = (1000, 1001)


def tuning(fake_sweep, objectives=("dpo", "aipo", "simpo"), rates=RATES, seeds=SEEDS):
    for name, rate, seed in itertools.product(objectives, rates, seeds):
        fake_sweep.job(
            name,
            seed,
            iterations=3,
            benchmarks=("gold",),
            overrides=[f"trainer.learning_rate={rate}"],
            diagnostic=False,
        )
    return collect(fake_sweep.folder)


def test_the_best_rate_is_the_one_with_most_score_at_the_controls_lengths(fake_sweep) -> None:
    sweep = tuning(fake_sweep)
    chosen = choose(sweep)
    assert [choice.objective for choice in chosen] == ["aipo", "dpo", "simpo"]
    assert {choice.settings for choice in chosen} == {3} and all(choice.by_length for choice in chosen)
    by_setting = {(one.series[0], rate): one for one, rate in league._with_rates(sweep)}
    control = by_setting["dpo", 0.0003]
    for choice in chosen:
        values = {
            rate: league._equal_length(by_setting[choice.objective, rate], control) for rate in (1e-4, 3e-4, 1e-3)
        }
        assert choice.learning_rate == max(values, key=values.__getitem__)
        assert choice.value == pytest.approx(max(values.values()), abs=1e-12)
    assert league._equal_length(control, control) == pytest.approx(0.0, abs=1e-12)


def test_an_unequal_budget_is_refused(fake_sweep) -> None:
    tuning(fake_sweep, rates=RATES)
    fake_sweep.job("kto", 1000, iterations=3, benchmarks=("gold",), overrides=["trainer.learning_rate=0.001"])
    with pytest.raises(AnalysisError, match="missing: kto at 0.0001, kto at 0.0003.*aipo rerun"):
        choose(collect(fake_sweep.folder))


def test_other_seeds_are_an_unequal_budget_too(fake_sweep) -> None:
    tuning(fake_sweep, objectives=("dpo",))
    tuning(fake_sweep, objectives=("aipo",), seeds=(1000,))
    with pytest.raises(AnalysisError, match="aipo at 0.0001 has other seeds than dpo"):
        choose(collect(fake_sweep.folder))


def test_commands_cover_every_arm_once_and_each_compose() -> None:
    rates = {"aipo": 1e-3, "dpo": 3e-4, "r_dpo": 1e-4, "simpo": 3e-4}
    lines = commands([Choice(name, rate, 0.0, True, 3) for name, rate in rates.items()], "0,1")
    assert lines == [
        "objective=r_dpo trainer.learning_rate=0.0001 seed=0,1",
        "objective=dpo,simpo trainer.learning_rate=0.0003 seed=0,1",
        "objective=aipo trainer.learning_rate=0.001 seed=0,1",
        "objective=dpo objective.name=dpo_placebo objective.loss.beta=0.100001 trainer.learning_rate=0.0003 seed=0,1",
        "objective=r_dpo objective.name=r_dpo_flipped objective.loss._target_=experiments.planted_faults.r_dpo_flipped "
        "trainer.learning_rate=0.0001 seed=0,1",
        "objective=simpo objective.name=simpo_low_beta objective.loss.beta=0.1 trainer.learning_rate=0.0003 seed=0,1",
    ]


def final(fake_sweep, choices: list[Choice], seeds=range(4)) -> None:
    for choice, seed in itertools.product(choices, seeds):
        names = [choice.objective] + ["dpo_placebo"] * (choice.objective == "dpo")
        for name in names:
            fake_sweep.job(
                name, seed, iterations=3, benchmarks=("gold",), diagnostic=False,
                overrides=[f"trainer.learning_rate={choice.learning_rate:g}"],
            )  # fmt: skip


def test_the_table_holds_every_arm_against_dpo(fake_sweep) -> None:
    choices = [Choice("aipo", 1e-3, 0.1, True, 3), Choice("dpo", 3e-4, 0.0, True, 3), Choice("simpo", 3e-4, 0, True, 3)]
    final(fake_sweep, choices)
    table = league_table(collect(fake_sweep.folder), choices)
    assert sorted(table.data["objective"]) == ["aipo", "dpo_placebo", "simpo"]
    row = table.data.set_index("objective").loc["aipo"]
    # AIPO gains 3.6 tokens a round and DPO 6 (the fixture's numbers): shorter, whatever the noise of a tenth.
    assert row["log_length"] < -0.1 and row["log_length_p_holm"] < 0.05
    shown = {cells[0]: cells for cells in table.cells}
    assert shown["dpo_placebo"][-1] == "no different" and shown["AIPO"][-1] == "–"
    values = [row for row in table.data["score_at_equal_length"]]
    assert values == sorted(values, reverse=True)


def test_a_rate_that_was_not_chosen_is_refused(fake_sweep) -> None:
    final(fake_sweep, [Choice("aipo", 1e-3, 0.1, True, 3), Choice("dpo", 3e-4, 0.0, True, 3)])
    sweep = collect(fake_sweep.folder)
    with pytest.raises(AnalysisError, match="aipo ran at 0.001, the tuning seeds chose 0.0003"):
        league_table(sweep, [Choice("aipo", 3e-4, 0.1, True, 3), Choice("dpo", 3e-4, 0.0, True, 3)])


def test_a_league_without_its_control_is_refused(fake_sweep) -> None:
    choices = [Choice("aipo", 1e-3, 0.1, True, 3)]
    final(fake_sweep, choices)
    with pytest.raises(AnalysisError, match="expected dpo among its arms"):
        league_table(collect(fake_sweep.folder), choices)


def test_the_command_line_writes_the_table_and_refuses_tuning_seeds(fake_sweep, tmp_path: Path, capsys) -> None:
    tuning(fake_sweep)
    assert main([str(fake_sweep.folder), "--seeds", "0,1,2"]) == 0
    printed = capsys.readouterr()
    assert all(line.endswith("seed=0,1,2") for line in printed.out.splitlines()) and "at DPO's lengths" in printed.err
    assert main([str(fake_sweep.folder), "--seeds", "0,1001"]) == 1  # before anything is trained on it
    assert "--seeds: expected fresh seeds, but [1001] were tuning seeds" in capsys.readouterr().err
    assert main([str(fake_sweep.folder), str(fake_sweep.folder)]) == 1
    assert "expected fresh seeds, but [1000, 1001] were tuning seeds" in capsys.readouterr().err
    other = type(fake_sweep)(tmp_path / "league", fake_sweep.store)
    final(other, choose(collect(fake_sweep.folder)))
    assert main([str(fake_sweep.folder), str(other.folder)]) == 0
    with (other.folder / "tables" / "league.csv").open(newline="") as file:
        assert {row["objective"] for row in csv.DictReader(file)} == {"aipo", "simpo", "dpo_placebo"}


def test_the_flipped_length_term_is_r_dpos_with_a_negative_weight() -> None:
    numbers = torch.tensor([[-10.0, -12.0], [-11.0, -9.0], [-10.5, -12.0], [-11.0, -10.0]], dtype=torch.float64)
    batch = PairLogps(*numbers, chosen_tokens=torch.tensor([30, 5]), rejected_tokens=torch.tensor([10, 25]))
    flipped = r_dpo_flipped(batch, beta=0.1, length_weight=0.01)
    # -log sigmoid(0.1 * h - 0.01 * (chosen - rejected)): h = 0.5 - 0 = 0.5 and 0 - 1 = -1; gaps 20 and -20.
    expected = torch.nn.functional.softplus(-torch.tensor([0.05 - 0.2, -0.1 + 0.2], dtype=torch.float64))
    assert torch.allclose(flipped.loss, expected, atol=1e-12)
    assert not torch.allclose(r_dpo(batch, beta=0.1, length_weight=0.01).loss, expected, atol=1e-3)
