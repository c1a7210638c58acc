"""Runs that no other shares a seed and base model with: they narrow nothing for the others, and are named."""

from __future__ import annotations

import dataclasses

import pytest

from analysis import findings
from analysis.collect import collect
from analysis.contrasts import compared, contrasts, every_pair, levels, subject_contrasts
from analysis.replicates import Curves, left_out
from analysis.report import analyse

from test_uneven_runs import replicate, run, series  # isort: skip


def _groups() -> list[Curves]:
    """DPO and AIPO on seeds 0 to 2, lines of slope 1 / 100, AIPO's 0.1 above."""
    dpo = [replicate(s, [10, 20, 40 + s], [0.1, 0.2, 0.4 + s / 100]) for s in range(3)]
    aipo = [replicate(s, [12, 20, 30 + s], [0.22, 0.3, 0.4 + s / 100]) for s in range(3)]
    return [series("dpo", *dpo), series("aipo", *aipo)]


def _by_name(found) -> dict:
    return {(c.objective, c.quantity, c.horizon): dataclasses.replace(c, p_holm=0.0) for c in found}


@pytest.mark.parametrize("lengths", [[100, 200, 300], [15, 16, 17]], ids=["wipes the range", "narrows it"])
def test_a_run_that_is_compared_with_nothing_leaves_all_else(lengths):
    groups = _groups()
    alone = series("simpo", replicate(7, lengths, [0.1, 0.2, 0.3]))
    alone_too = series("aipo", *groups[1].replicates, replicate(8, lengths, [0.1, 0.2, 0.3]))
    expected = _by_name(contrasts(groups))
    where = expected["aipo", "score_at_equal_length", 3].where
    assert (where.low, where.high) == (12, 30)
    assert _by_name(contrasts([*groups, alone])) == expected
    assert _by_name(contrasts([groups[0], alone_too])) == expected
    (pair,) = every_pair([*groups, alone])
    assert _by_name(pair[2]) == _by_name(every_pair(groups)[0][2])
    assert levels([*groups, alone], 3) == levels(groups, 3)
    assert [one.series for one in compared([*groups, alone])] == [("dpo", ""), ("aipo", "")]
    third = series("alpha_dpo", *groups[0].replicates)
    assert _by_name(subject_contrasts([*groups, third, alone])) == _by_name(subject_contrasts([*groups, third]))


def test_who_shares_nothing_with_the_control_is_named_in_the_report(fake_sweep):
    for seed in (0, 1):
        run(fake_sweep, "dpo", seed, [14, 20, 40 + seed], [0.6, 0.7, 0.8])
        run(fake_sweep, "aipo", seed, [13, 18, 30 + seed], [0.6, 0.71, 0.82])
    run(fake_sweep, "simpo", 5, [90, 100, 110], [0.6, 0.7, 0.8])
    told = "Not compared with DPO, for they share no seed and base model: SimPO."
    sweep = collect(fake_sweep.folder)
    assert left_out(sweep, "gold") == [told]
    assert told in findings.verdict(sweep, ["gold"])
    table = findings.contrasts_table(sweep, "gold", "contrasts_gold")
    assert told in table.notes and table.data["score_at_equal_length_to"].tolist() == [30.0]
    analyse(fake_sweep.folder)
    assert told in (fake_sweep.folder / "report.md").read_text(encoding="utf-8")
    assert told in (fake_sweep.folder / "verdict.json").read_text(encoding="utf-8")
    assert told in (fake_sweep.folder / "index.html").read_text(encoding="utf-8")


def test_scores_at_equal_length_say_over_how_many_seeds_they_are(fake_sweep):
    """DPO and SimPO have three seeds, AIPO two of them; only these two enter, at the lengths of the contrasts."""
    for seed in (0, 1, 2):
        run(fake_sweep, "dpo", seed, [14, 20, 40 + seed], [0.6, 0.7, 0.8 + seed / 10])
        run(fake_sweep, "simpo", seed, [15, 20, 36 - 5 * seed], [0.6, 0.7, 0.8])
    for seed in (0, 1):
        run(fake_sweep, "aipo", seed, [13, 18, 30 + seed], [0.6, 0.71, 0.82])
    sweep = collect(fake_sweep.folder)
    table = findings.curves_table(sweep, "gold", "curves_gold")
    assert dict(zip(table.data["objective"], table.data["n_seeds"], strict=True)) == {"dpo": 3, "simpo": 3, "aipo": 2}
    assert table.data["score_at_equal_length_n_seeds"].tolist() == [2, 2, 2]
    assert (
        "Equal length: from 15.0 to 26.0, which all curves that are compared pass; of each over the 2 seeds that all "
        "of these have (score_at_equal_length_n_seeds in the CSV)." in table.notes
    )
    against = findings.contrasts_table(sweep, "gold", "contrasts_gold").data
    assert {*against["score_at_equal_length_from"], *against["score_at_equal_length_to"]} == {15.0, 26.0}


def test_equal_seeds_are_not_told_of(fake_sweep):
    for seed in (0, 1):
        run(fake_sweep, "dpo", seed, [14, 20, 40], [0.6, 0.7, 0.8])
        run(fake_sweep, "aipo", seed, [13, 18, 30], [0.6, 0.71, 0.82])
    table = findings.curves_table(collect(fake_sweep.folder), "gold", "curves_gold")
    assert "Equal length: from 14.0 to 30.0, which all curves pass." in table.notes
    assert table.data["score_at_equal_length_n_seeds"].tolist() == [2, 2]
