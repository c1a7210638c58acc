"""The planner reads how many seeds are needed from the tables of a finished sweep."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aipo.pipeline.check import ConfigError, check
from aipo.planning.seeds import print_seeds, read_pilot
from aipo.stats import seeds_needed
from analysis import findings
from analysis.collect import collect
from analysis.replicates import curves
from tests.composing import composed


@pytest.fixture
def pilot(paper_sweep):
    sweep = collect(paper_sweep(("dpo", "aipo"), (0, 1, 2), iterations=6, benchmarks=("gold",)).folder)
    (sweep.folder / "tables").mkdir(exist_ok=True)
    findings.contrasts_table(sweep, "gold", "contrasts_gold").write(sweep.folder / "tables")
    return sweep


def test_the_spread_is_that_of_the_seeds_paired_differences(pilot):
    group = {one.series[0]: one for one in curves(pilot, "gold")}
    differences = [
        math.log(mine.lengths[-1] / other.lengths[-1])
        for mine, other in zip(group["aipo"].replicates, group["dpo"].replicates, strict=True)
    ]
    read = read_pilot(pilot.folder, rounds=15)
    assert (read.benchmark, read.rounds, read.n_seeds) == ("gold", 6, 3)
    length = next(spread for spread in read.spreads if spread.quantity == "log_length")
    assert length.difference == pytest.approx(np.mean(differences))
    assert length.sd == pytest.approx(np.std(differences, ddof=1))
    # A plan of fewer rounds is told of the pilot's fewer rounds, as far as its tables have them.
    assert read_pilot(pilot.folder, rounds=5).rounds == read_pilot(pilot.folder, rounds=1).rounds == 5


def test_what_is_printed(pilot, capsys):
    print_seeds(pilot.folder, 15, 4)
    printed = capsys.readouterr().out
    spread = next(one for one in read_pilot(pilot.folder, 15).spreads if one.quantity == "log_length")
    needed = seeds_needed(spread.difference, spread.sd, error_questions=spread.error_questions)
    row = next(line for line in printed.splitlines() if "length / control's" in line)
    assert row.rstrip().endswith("more questions" if needed is None else f"{needed:,}")
    assert f"{math.exp(spread.difference):.2f}" in row.split()
    assert "Seeds: 4 here" in printed
    print_seeds(pilot.folder, 15, 1)
    assert "one seed shows none" in capsys.readouterr().out


def test_a_pilot_without_contrasts_is_refused_before_anything_is_planned(tmp_path):
    with pytest.raises(ConfigError, match="pilot: expected the folder of an analysed sweep"):
        check(composed("plan=true", f"pilot={tmp_path}"))
    check(composed(f"pilot={tmp_path}"))  # it is of no use outside a plan, and harms nothing
    with pytest.raises(ConfigError, match="pilot: expected the folder"):
        check(composed("pilot=3"))
