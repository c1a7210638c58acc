"""Sweeps whose runs are not all alike: one that collapsed, one with fewer seeds, a base model without a score."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from aipo.records import Metric
from analysis import findings, page, tables
from analysis.collect import collect
from analysis.contrasts import contrasts, every_pair
from analysis.replicates import Curves, Replicate


def replicate(seed, lengths, scores, draws=None) -> Replicate:
    """A curve on base model m; `draws`: (redrawn scores, redrawn lengths)."""
    unknown = np.full(len(scores), math.nan)
    measured = np.array(scores, float), np.array(lengths, float), *[unknown] * 4
    return Replicate(f"job{seed}", seed, "m", *measured, 0.5, 10.0, math.nan, *(draws or (None, None)))


def series(objective, *replicates, n_questions=0) -> Curves:
    return Curves((objective, ""), replicates, n_questions)


def run(fake_sweep, objective, seed, lengths, scores, benchmark="gold", metric="gold_score") -> None:
    """A job with these mean lengths and scores, a round each, from a base model of 12 tokens."""
    points = []
    for iteration, (length, score) in enumerate(zip((12.0, *lengths), (0.5, *scores), strict=True), -1):
        trained = objective if iteration >= 0 else ""
        found = [
            Metric(metric, score, (score - 0.02, score + 0.02), 100, 0),
            Metric("mean_tokens", length, None, 100, 0),
        ]
        digest = fake_sweep.score((trained, seed, iteration), found)
        policy = hashlib.sha256(repr((trained, seed, iteration)).encode()).hexdigest()[:16]
        keys = dict.fromkeys(("pairs", "reference", "train"))
        points.append({"iteration": iteration, "policy": policy, **keys, "scores": {benchmark: digest}})
    fake_sweep.job(objective, seed, benchmarks=(benchmark,), points=points)


def test_a_policy_that_says_nothing_has_no_ratio_of_lengths_and_all_else():
    """AIPO's second seed ends in empty answers: no ratio with it, every other number stands."""
    dpo = series("dpo", *[replicate(seed, [10, 20, 30 + seed], [0.2, 0.3, 0.4]) for seed in (0, 1)])
    ends = {0: 24, 1: 0}
    aipo = series("aipo", *[replicate(seed, [9, 16, end], [0.3, 0.4, 0.2]) for seed, end in ends.items()])
    simpo = series("simpo", *[replicate(seed, [11, 22, 40 + seed], [0.2, 0.3, 0.3 + seed / 10]) for seed in (0, 1)])
    found = {(c.objective, c.quantity): c for c in contrasts([dpo, aipo, simpo])}
    assert ("aipo", "log_length") not in found and ("simpo", "log_length") in found
    assert found["aipo", "score"].estimate.value == pytest.approx(-0.2)
    assert found["simpo", "log_length"].p_holm == found["simpo", "log_length"].estimate.p, "one ratio, one test"
    pairs = {
        (one.series[0], other.series[0]): [c.quantity for c in mine]
        for one, other, mine in every_pair([dpo, aipo, simpo])
    }
    assert "log_length" in pairs["simpo", "dpo"] and "log_length" not in pairs["aipo", "dpo"]
    assert "score" in pairs["simpo", "aipo"] and "log_length" not in pairs["simpo", "aipo"]


def test_a_draw_of_empty_answers_leaves_the_ratio_finite():
    """In one of three draws DPO's answers are all empty, in another no answer is scored."""
    scores = np.array([[0.5, 0.6], [0.5, 0.7], [math.nan, math.nan], [0.5, 0.65]])
    lengths = np.array([[10.0, 20], [10, 0], [10, 21], [10, 22]])
    dpo = series("dpo", *[replicate(seed, [10, 20], [0.5, 0.6], (scores, lengths)) for seed in (0, 1)], n_questions=9)
    moved = (scores + 0.1, lengths + 5)
    aipo = series("aipo", *[replicate(seed, [10, 25], [0.6, 0.7], moved) for seed in (0, 1)], n_questions=9)
    found = {c.quantity: c.estimate for c in contrasts([dpo, aipo])}
    assert math.isfinite(found["log_length"].low) and found["log_length"].n_questions == 9
    assert math.isfinite(found["score"].low) and found["score"].n_questions == 9


def test_a_collapsed_run_is_told_of_and_the_report_stands(fake_sweep):
    for seed in (0, 1):
        run(fake_sweep, "dpo", seed, [14, 20 + seed], [0.6, 0.7])
        run(fake_sweep, "aipo", seed, [13, 0.0], [0.6, 0.0])
    sweep = collect(fake_sweep.folder)
    table = findings.contrasts_table(sweep, "gold", "contrasts_gold")
    assert table.cells[0][2] == "–" and table.cells[0][3].startswith("−0.700")
    told = "No ratio of lengths, for the last answers of a run are all empty: AIPO."
    assert told in table.notes and told in findings.verdict(sweep, ["gold"])
    assert {row.series: row.ratio for row in page.verdict(sweep, ["gold"]).rows}["AIPO"] == "–"
    assert set(tables.seeds_table(sweep, ["gold"]).data["length_over_dpo"].dropna()) == {0.0, 1.0}
