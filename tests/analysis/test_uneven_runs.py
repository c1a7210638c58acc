"""Sweeps whose runs are not all alike: one that collapsed, one with fewer seeds, a base model without a score."""

from __future__ import annotations

import dataclasses
import hashlib
import math

import numpy as np
import pytest

from aipo.records import Metric
from analysis import closing, findings, page, tables
from analysis.collect import collect
from analysis.contrasts import contrasts, every_pair, order_agreement
from analysis.every_pair import table_of
from analysis.overoptimization import _can_be_fitted
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


def test_the_seeds_of_a_table_are_those_of_every_row(fake_sweep):
    """AIPO has three seeds, alpha-DPO, which comes first in no order, one: neither count is said of the other."""
    for seed in (0, 1, 2):
        run(fake_sweep, "dpo", seed, [14, 20, 30 + seed], [0.6, 0.7, 0.8 + seed / 100])
        run(fake_sweep, "simpo", seed, [15, 23, 36 - seed], [0.6, 0.7, 0.8 - seed / 50])
    run(fake_sweep, "aipo", 0, [13, 18, 27], [0.6, 0.71, 0.81])
    sweep = collect(fake_sweep.folder)
    over = "95 % interval over 1 to 3 seeds (n_seeds in the CSV); p"
    assert over in findings.contrasts_table(sweep, "gold", "contrasts_gold").notes[0]
    assert "intervals over 1 to 3 seeds" in findings.curves_table(sweep, "gold", "curves_gold").notes[0]
    sentences = findings.verdict(sweep, ["gold"])
    assert "There is one seed of AIPO: the intervals are not known. One seed decides nothing" in " ".join(sentences)
    assert not any("In order of" in sentence for sentence in sentences), "one seed has all three"
    (note,) = page.verdict(sweep, ["gold"]).notes
    assert note.endswith("paired by seed and base model. Where there is one seed, intervals are over questions alone.")
    assert (
        table_of(sweep).notes[0].startswith("By seed and base model; in brackets the 95 % interval over 1 to 3 seeds")
    )


def test_one_seed_without_single_questions_is_compared_and_has_no_interval(fake_sweep):
    """The length-controlled rate is no mean over questions; both objectives are in the sweep all the same."""
    for objective, end in (("dpo", 30), ("aipo", 24)):
        run(fake_sweep, objective, 0, [14, end], [60.0, 70.0], "alpaca_eval", "lc_win_rate")
    sweep = collect(fake_sweep.folder)
    assert findings.contrasts_table(sweep, "alpaca_eval", "contrasts").cells[0][2] == "0.80"
    shown = closing.closing(page.verdict(sweep, ["alpaca_eval"]))
    assert not any("No objective is compared" in sentence for sentence in shown.sentences)
    assert any("AIPO, after round 2: answers are 0.80 times as long as DPO's." == line for line in shown.sentences)
    assert "This is one seed: the intervals are not known. One seed decides nothing" in " ".join(shown.sentences)


def test_no_objective_is_said_to_be_missing_that_is_there(fake_sweep):
    for objective, seed in (("dpo", 0), ("aipo", 1)):
        run(fake_sweep, objective, seed, [14, 20], [0.6, 0.7])
    sentences = closing.closing(page.verdict(collect(fake_sweep.folder), ["gold"])).sentences
    assert "No objective is compared with the control here: none has all rounds on a seed and base model of the " in (
        " ".join(sentences)
    )


def test_equal_means_are_in_no_order():
    """On a benchmark that all answer perfectly nothing is the best."""
    groups = [series(name, *[replicate(s, [10, 20], [1.0, 1.0]) for s in (0, 1)]) for name in ("dpo", "aipo", "simpo")]
    assert order_agreement(groups, lambda _, scores: float(scores[-1]), rising=False) is None


def test_the_order_counts_each_base_model_the_same_as_the_contrasts_do():
    """Five seeds on one base model and one on another: of all runs alike DPO would come first."""
    ends = {"aipo": (0.60, 0.80), "dpo": (0.62, 0.70), "simpo": (0.50, 0.50)}
    groups = []
    for name, (first, second) in ends.items():
        runs = [replicate(seed, [10, 20], [0.4, first + seed / 1e4]) for seed in range(5)]
        other = dataclasses.replace(replicate(5, [10, 20], [0.4, second]), base_model="other")
        groups.append(series(name, *runs, other))
    found = order_agreement(groups, lambda _, scores: float(scores[-1]), rising=False)
    assert found is not None and found.order == ("aipo", "dpo", "simpo") and found.tau == 1.0
    # The seeds of a base model hardly differ, and every redraw has both base models: the order is the same in each.
    assert (found.low, found.high, found.share_equal) == (1.0, 1.0, 1.0)
    by_score = next(
        one for one in contrasts(groups) if (one.objective, one.quantity, one.horizon) == ("aipo", "score", 2)
    )
    assert by_score.estimate.value == pytest.approx((-0.02 + 0.1) / 2)


def test_a_base_model_without_a_score_costs_the_fit_alone():
    """Its artifact may be damaged: gains are then not known, and no fit is."""
    scored = dataclasses.replace(replicate(0, [10, 20, 30], [0.5, 0.6, 0.7]), kl_base=np.array([1.0, 2.0, 3.0]))
    assert _can_be_fitted(series("dpo", scored))
    assert not _can_be_fitted(series("dpo", scored, dataclasses.replace(scored, base_score=math.nan)))


@pytest.mark.parametrize(
    ("p", "told"),
    [
        (0.0496, "p = 0.0496: a difference"),
        (0.0522, "p = 0.052: no difference shown"),
        (0.03, "p = 0.03: a difference"),
    ],
)
def test_a_p_beside_the_level_is_told_with_the_digits_that_decide(p, told):
    """Rounded to one digit both would be 0.05, one a difference and the other none."""
    groups = [series(name, *[replicate(s, [10, 20 + s], [0.1, 0.2]) for s in (0, 1)]) for name in ("dpo", "aipo")]
    contrast = dataclasses.replace(contrasts(groups)[0], p_holm=p)
    assert findings._sentence(contrast, "Gold", "DPO").endswith(f"; {told}.")


def test_a_benchmark_is_expected_as_far_as_a_job_that_has_it_went(fake_sweep):
    """Four rounds with gold, two with MT-Bench beside it, of one training: nobody asked for MT-Bench in round 3."""
    fake_sweep.job("dpo", iterations=4, benchmarks=("gold",), diagnostic=False)
    short = fake_sweep.job("dpo", iterations=2, benchmarks=("gold", "mt_bench"), diagnostic=False)
    (joined,) = collect(fake_sweep.folder).runs
    assert len(joined.points) == 5 and set(joined.primary) == {"gold", "mt_bench"}
    assert collect(fake_sweep.folder).problems == ()
    del short["points"][-1]["scores"]["mt_bench"]
    fake_sweep.write(short, "1")
    told = [(one.iteration, one.what) for one in collect(fake_sweep.folder).problems]
    assert told == [(1, "mt_bench: no score, though the job is done")]
    fake_sweep.job("dpo", iterations=1, benchmarks=("arena_hard",), diagnostic=False)
    told = [(one.iteration, one.what) for one in collect(fake_sweep.folder).problems]
    assert told == [(1, "mt_bench: no score, though the job is done")]


def test_a_footer_counts_the_comparisons_that_were_tested(fake_sweep):
    """AIPO has three seeds and SimPO one, which gives no p: one comparison is tested, not two, and no pair of three."""
    for seed in (0, 1, 2):
        run(fake_sweep, "dpo", seed, [14, 20, 30 + seed], [0.6, 0.7, 0.8 + seed / 100])
        run(fake_sweep, "aipo", seed, [13, 18, 27 - seed], [0.6, 0.71, 0.81 + seed / 70])
    run(fake_sweep, "simpo", 0, [15, 23, 36], [0.6, 0.7, 0.8])
    sweep = collect(fake_sweep.folder)
    told = "; p corrected by Holm for the 1 comparison of a column."
    assert findings.contrasts_table(sweep, "gold", "contrasts_gold").notes[0].endswith(told)
    assert table_of(sweep).notes[0].endswith(told)


def test_a_footer_of_single_seeds_claims_no_correction(fake_sweep):
    for objective, end in (("dpo", 30), ("aipo", 24)):
        run(fake_sweep, objective, 0, [14, end], [0.6, 0.7])
    sweep = collect(fake_sweep.folder)
    assert "Holm" not in findings.contrasts_table(sweep, "gold", "contrasts_gold").notes[0]
    assert "Holm" not in table_of(sweep).notes[0]
