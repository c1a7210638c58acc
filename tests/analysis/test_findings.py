"""Contrasts with the control, their tests and the sentences made of them, on sweeps whose numbers are known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from aipo.stats import common_lengths, estimate, holm
from analysis import estimates, findings, page
from analysis.collect import collect
from analysis.contrasts import contrasts, every_pair, order_agreement, statistic_of, subject_contrasts
from analysis.overoptimization import largest_error
from analysis.replicates import Curves, Replicate, curves
from analysis.report import analyse


def replicate(seed, lengths, scores, *, base_model="m", draws=None) -> Replicate:
    """A curve; `draws`: (redrawn scores, redrawn lengths)."""
    unknown = np.full(len(scores), math.nan)
    redrawn = (None, None) if draws is None else draws
    return Replicate(
        f"job{seed}", seed, base_model, np.array(scores, float), np.array(lengths, float), unknown,
        unknown, unknown, unknown,
        0.5, 10.0, math.nan, *redrawn,
    )  # fmt: skip


def series(objective, *replicates, n_questions=0) -> Curves:
    return Curves((objective, ""), replicates, n_questions)


def test_the_error_of_kl_is_the_largest_of_any_policy():
    """Shares of 0.02, 0.05 and 0.04; at the base model itself, 0 nats, there is none."""
    first = dataclasses.replace(
        replicate(0, [1, 2, 3], [0, 0, 0]), kl_base=np.array([0.0, 2.0, 4.0]), kl_base_error=np.array([0.0, 0.04, 0.2])
    )
    second = dataclasses.replace(
        replicate(1, [1, 2], [0, 0]), kl_base=np.array([1.0, math.nan]), kl_base_error=np.array([0.04, math.nan])
    )
    assert largest_error([series("dpo", first), series("aipo", second)]) == pytest.approx(0.05)


def by_quantity(found, objective, horizon):
    return {c.quantity: c for c in found if c.objective == objective and c.horizon == horizon}


def test_contrasts_by_hand():
    """Both objectives on straight curves: DPO scores length / 100, AIPO that and 0.1, at four fifths of the length."""
    dpo = [replicate(seed, [20, 30, 40 + seed], [0.2, 0.3, 0.4 + seed / 100]) for seed in range(3)]
    aipo = [replicate(seed, [16, 24, 0.8 * (40 + seed)], [0.26, 0.34, 0.1 + 0.008 * (40 + seed)]) for seed in range(3)]
    found = by_quantity(contrasts([series("dpo", *dpo), series("aipo", *aipo)]), "aipo", 3)
    assert found["log_length"].estimate.value == pytest.approx(math.log(0.8))
    assert found["score"].estimate.value == pytest.approx(0.1 - 0.002 * 41)
    equal = found["score_at_equal_length"]
    # From DPO's longest first length to AIPO's shortest last one.
    assert (equal.where.low, equal.where.high) == (20, 32)
    assert equal.estimate.value == pytest.approx(0.1)
    # At equal score s the lengths are 100 s and 100 s - 10, for s from 0.26 to 0.4.
    grid = np.linspace(0.26, 0.4, 2001)
    expected = float(np.trapezoid(np.log((100 * grid - 10) / (100 * grid)), grid) / 0.14)
    assert found["log_length_at_equal_score"].estimate.value == pytest.approx(expected, abs=1e-3)


def test_the_test_is_paired_by_seed_and_base_model_and_corrected():
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 0.1, 6)

    def at(shift):
        return [
            replicate(seed, [10, 20], [0.5, 0.7 + luck[seed] + shift + rng.normal(0, 0.01)], base_model=f"m{seed}")
            for seed in range(6)
        ]

    groups = {"dpo": at(0), "aipo": at(0.02), "simpo": at(-0.005)}
    found = contrasts([series(name, *replicates) for name, replicates in groups.items()])
    last = {name: np.array([r.scores[-1] for r in replicates]) for name, replicates in groups.items()}
    ps = [stats.ttest_rel(last[name], last["dpo"]).pvalue for name in ("aipo", "simpo")]
    assert [by_quantity(found, name, 2)["score"].estimate.p for name in ("aipo", "simpo")] == pytest.approx(ps)
    assert [by_quantity(found, name, 2)["score"].p_holm for name in ("aipo", "simpo")] == pytest.approx(holm(ps))
    assert by_quantity(found, "aipo", 2)["score"].estimate == estimate(last["aipo"] - last["dpo"])


def test_an_objective_with_fewer_seeds_takes_none_from_the_others():
    dpo = [replicate(seed, [10, 20], [0.5, 0.6 + seed / 100]) for seed in range(4)]
    aipo = [replicate(seed, [10, 20], [0.5, 0.7]) for seed in range(4)]
    simpo = [replicate(seed, [10, 20], [0.5, 0.5]) for seed in (2, 9)]
    found = contrasts([series("dpo", *dpo), series("aipo", *aipo), series("simpo", *simpo)])
    assert by_quantity(found, "aipo", 2)["score"].estimate.n_replicates == 4
    shared = by_quantity(found, "simpo", 2)["score"].estimate
    assert (shared.n_replicates, shared.value) == (1, pytest.approx(0.5 - 0.62))
    assert contrasts([series("aipo", *aipo)]) == []


def test_the_subject_is_held_against_every_other_objective():
    """AIPO minus each, corrected over the two; the same numbers as the control's contrast with the sign turned."""
    rng = np.random.default_rng(1)

    def at(shift):
        return [replicate(seed, [10, 20 + rng.normal()], [0.5, 0.7 + shift + rng.normal(0, 0.02)]) for seed in range(5)]

    groups = [series("dpo", *at(0)), series("aipo", *at(0.02)), series("simpo", *at(-0.01))]
    found = subject_contrasts(groups)
    last = {group.series[0]: np.array([r.scores[-1] for r in group.replicates]) for group in groups}
    ps = [stats.ttest_rel(last["aipo"], last[name]).pvalue for name in ("dpo", "simpo")]
    mine = [by_quantity(found, name, 2)["score"] for name in ("dpo", "simpo")]
    assert [one.estimate.value for one in mine] == pytest.approx(
        [(last["aipo"] - last[name]).mean() for name in ("dpo", "simpo")]
    )
    assert [one.p_holm for one in mine] == pytest.approx(holm(ps))
    against_control = by_quantity(contrasts(groups), "aipo", 2)
    for quantity, one in by_quantity(found, "dpo", 2).items():
        assert one.estimate.value == pytest.approx(against_control[quantity].estimate.value)
    # With one other objective the control's table says it already; with two variants of AIPO there is no one subject.
    assert subject_contrasts(groups[:2]) == []
    assert subject_contrasts([*groups, Curves(("aipo", "alpha=0.3"), groups[1].replicates, 0)]) == []


def test_order_agreement_with_the_paper():
    def at(length):
        return [replicate(seed, [10, length + 0.1 * seed], [0.5, 0.6]) for seed in range(3)]

    lengths = {"simpo": 50, "dpo": 40, "dpo_nll": 35, "alpha_dpo": 36, "aipo": 30}
    found = order_agreement(
        [series(name, *at(length)) for name, length in lengths.items()], lambda x, _: float(x[-1]), rising=True
    )
    # One of the ten pairs is the other way round.
    assert found.tau == pytest.approx(0.8)
    assert found.order == ("aipo", "dpo_nll", "alpha_dpo", "dpo", "simpo")
    assert found.share_equal == 0


def test_the_order_at_equal_length_is_not_that_of_the_last_scores():
    """Every curve is a line; SimPO ends highest because it ends longest, and lies lowest at any given length."""
    offsets, ends = {"simpo": 0.0, "dpo": 0.05, "aipo": 0.1}, {"simpo": 60, "dpo": 40, "aipo": 30}
    groups = [
        series(name, *[replicate(seed, [10, end], [0.1 + shift, end / 100 + shift + seed / 1000]) for seed in range(3)])
        for (name, shift), end in zip(offsets.items(), ends.values(), strict=True)
    ]
    equal, where = statistic_of("score_at_equal_length", groups, 2)
    assert (where.low, where.high) == (10, 30)
    assert order_agreement(groups, equal, rising=False).order == ("aipo", "dpo", "simpo")
    assert order_agreement(groups, lambda _, y: float(y[-1]), rising=False).order[0] == "simpo"


def test_one_seed_is_told_that_it_decides_nothing(paper_sweep):
    sweep = collect(paper_sweep(("dpo", "aipo"), (0,), benchmarks=("gold",)).folder)
    sentences = findings.verdict(sweep, ["gold"])
    assert "One seed decides nothing" in sentences[-1]
    assert not any("p =" in sentence for sentence in sentences)


def test_tables_of_a_sweep(paper_sweep):
    sweep = collect(paper_sweep(("dpo", "aipo"), (0, 1, 2), iterations=6, benchmarks=("gold",)).folder)
    table = findings.contrasts_table(sweep, "gold", "contrasts_gold")
    assert [cells[:2] for cells in table.cells] == [("5", "AIPO"), ("6", "AIPO")]
    group = {one.series[0]: one for one in curves(sweep, "gold")}
    ratios = [
        mine.lengths[-1] / other.lengths[-1]
        for mine, other in zip(group["aipo"].replicates, group["dpo"].replicates, strict=True)
    ]
    assert table.data["log_length"].iloc[-1] == pytest.approx(np.log(ratios).mean())
    assert table.cells[1][2].startswith(f"{math.exp(np.log(ratios).mean()):.2f} (")
    ends = findings.curves_table(sweep, "gold", "curves_gold")
    assert [cells[0] for cells in ends.cells] == ["DPO", "AIPO"]
    assert ends.data["last_score"].iloc[0] == pytest.approx(np.mean([r.scores[-1] for r in group["dpo"].replicates]))
    assert "score, round 6 − round 1" in ends.header
    sentences = findings.verdict(sweep, ["gold"])
    assert sentences[0].startswith("AIPO, after round 6: answers are 0.") and "p " in sentences[0]


def test_a_partial_sweep_says_what_it_leaves_out(paper_sweep):
    """Seeds that finished differ between the objectives, one run is behind, and one objective has finished none."""
    fake = paper_sweep(("dpo",), (0,), iterations=4, benchmarks=("gold",), diagnostic=False)
    fake.job("aipo", 1, iterations=4, benchmarks=("gold",), diagnostic=False)
    fake.job("dpo", 2, iterations=2, benchmarks=("gold",), diagnostic=False, status="failed", error="stopped")
    fake.job("simpo", 0, iterations=1, benchmarks=("gold",), diagnostic=False, status="failed", error="stopped")
    fake.job("alpha_dpo", 0, iterations=-1, benchmarks=("gold",), diagnostic=False, status="failed", error="stopped")
    analyse(fake.folder)
    page = (fake.folder / "report.md").read_text(encoding="utf-8")
    assert "none of its runs has all 4 rounds scored so far: SimPO, α-DPO." in page.replace("\\", "")
    assert "do not have all 4 rounds scored so far: DPO 1." in page.replace("\\", "")
    assert "Nothing at equal length: the objectives share no finished seed" in page.replace("\\", "")
    assert common_lengths([]).is_empty


def test_length_control_beyond_its_data_is_warned_of(paper_sweep, monkeypatch):
    """9 of 10 last answers are longer than the base model's to the same question; then 8, which is not over 80 %."""
    fake = paper_sweep(("dpo",), (0,), iterations=1, benchmarks=("alpaca_eval",), diagnostic=False)
    sweep = collect(fake.folder)
    rows = sweep.scores[sweep.scores["metric"] == "lc_win_rate"].sort_values("iteration")
    base, last = rows["fingerprint"]
    for longer, warned in ((9, True), (8, False)):
        chars = {base: np.full(10, 50), last: np.array([60] * longer + [50] * (10 - longer))}
        monkeypatch.setattr(findings, "questions", lambda _, digest, c=chars: {"ids": "q", "chars": c[digest]})
        assert findings.share_longer_than_baseline(sweep, "alpaca_eval") == pytest.approx(longer / 10)
        found = [line for line in findings.warnings(sweep, ["alpaca_eval"]) if "extrapolated" in line]
        assert bool(found) == warned and all("90 % of the last policies' answers are longer" in line for line in found)


def test_of_several_controls_the_one_that_is_meant_is_named(fake_sweep):
    for beta, seed in ((b, s) for b in ("0.1", "0.5") for s in (0, 1)):
        fake_sweep.job("dpo", seed, iterations=2, benchmarks=("gold",), overrides=[f"objective.loss.beta={beta}"])
    fake_sweep.job("aipo", 0, iterations=2, benchmarks=("gold",))
    fake_sweep.job("aipo", 1, iterations=2, benchmarks=("gold",))
    sweep = collect(fake_sweep.folder)
    assert findings.control_name(sweep, "gold") == "DPO [beta=0.1]"
    sentences = findings.verdict(sweep, ["gold"])
    assert all("DPO [beta=0.1]'s" in sentence for sentence in sentences if "after round 2" in sentence)
    found = page.verdict(sweep, ["gold"])
    assert {row.series: row.ratio == "1 (control)" for row in found.rows} == {
        "base model": False, "DPO [beta=0.1]": True, "DPO [beta=0.5]": False, "AIPO": False,
    }  # fmt: skip
    assert "length / DPO [beta=0.1]’s" in found.header


def test_a_benchmark_that_is_no_usual_one_leads_where_there_is_no_other(fake_sweep, monkeypatch):
    """The real model's `constraints` is in no list of usual benchmarks; its sweeps have a verdict like any."""
    for name, seed in ((n, s) for n in ("dpo", "aipo") for s in (0, 1)):
        fake_sweep.job(name, seed, iterations=2, benchmarks=("gold",))
    monkeypatch.setattr(findings, "LEADING", ("alpaca_eval",))
    assert any("AIPO, after round 2" in sentence for sentence in findings.verdict(collect(fake_sweep.folder), ["gold"]))


def test_every_pair_once_and_corrected_together():
    """At equal length b is 0.1 and c 0.3 above a on every seed, give or take a little."""
    rng = np.random.default_rng(3)

    def at(shift):
        return [
            replicate(seed, [10, 20, 30], [0.1 + shift, 0.2 + shift, 0.3 + shift + rng.normal(0, 0.01)])
            for seed in range(5)
        ]

    found = every_pair([series(name, *at(shift)) for name, shift in (("a", 0.0), ("b", 0.1), ("c", 0.3))])
    assert [(one.series[0], other.series[0]) for one, other, _ in found] == [("b", "a"), ("c", "a"), ("c", "b")]
    equal = [next(c for c in mine if c.quantity == "score_at_equal_length") for *_, mine in found]
    assert [c.estimate.value for c in equal] == pytest.approx([0.1, 0.3, 0.2], abs=0.01)
    assert [c.p_holm for c in equal] == pytest.approx(holm([c.estimate.p for c in equal]))
    assert [len(mine) for *_, mine in found] == [3, 3, 3], "no score is passed by all three"
    assert every_pair([series("a", *at(0.0))]) == []


@pytest.mark.parametrize(
    ("p", "shown"),
    [(0.5, "0.5"), (0.0493, "0.049"), (0.0522, "0.052"), (0.0496, "0.0496"), (0.0504, "0.0504"), (9e-5, "< 0.0001")],
)
def test_a_p_is_told_with_as_many_digits_as_decide(p, shown):
    assert estimates.shown_p(p) == shown
