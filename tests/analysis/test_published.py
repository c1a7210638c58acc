"""The paper's numbers: the lines of its length figure come out of the read points again."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from analysis import published
from analysis.__main__ import main
from analysis.fits import fit_line


def test_slopes_equal_the_published_ones():
    """Every slope to the digits the drawn lines could be read to: 1e-5 points per token, 5e-6 per character."""
    checks = published.check_lines()
    assert len(checks) == 10
    for check in checks:
        tolerance = {"arena_hard": 1e-5, "alpaca_eval": 5e-6}[check.benchmark]
        assert check.line.slope == pytest.approx(check.published_slope, abs=tolerance), check
        assert check.error < 0.001 and check.good


def test_the_other_fit_misses_the_published_lines():
    """Each panel's method matters: least squares misses AlpacaEval's lines, the Huber fit Arena-Hard's."""
    points = published.read("length_vs_score")
    misses: dict[str, list[float]] = {"arena_hard": [], "alpaca_eval": []}
    for check in published.check_lines():
        mine = points[(points["method"] == check.method) & (points["benchmark"] == check.benchmark)]
        other = fit_line(mine["length"], mine["score"], "ols" if check.line.method == "huber" else "huber")
        ends = (check.line.x_min, check.line.x_max)
        miss = max(abs(other.at(x) - check.published_slope * x - check.published_intercept) for x in ends)
        assert miss > published.TOLERANCE[check.benchmark], check
        misses[check.benchmark].append(miss)
    assert all(max(panel) > 0.3 for panel in misses.values())


def test_order_at_equal_length_is_the_papers():
    """AIPO > alpha-DPO > DPO+NLL > DPO > SimPO at a length all lines cover, in both panels."""
    for benchmark, length in (("arena_hard", 609), ("alpaca_eval", 2100)):
        at = {check.method: check.line.at(length) for check in published.check_lines() if check.benchmark == benchmark}
        assert sorted(at, key=at.get, reverse=True) == ["AIPO", "alpha-DPO", "DPO+NLL", "DPO", "SimPO"]


def test_tables_agree_with_the_figure():
    """The headline's AIPO on Mistral-Nemo is one of the figure's AIPO points."""
    headline = published.read("headline").set_index("model").loc["AIPO (Mistral-Nemo-Instruct-2407)"]
    points = published.read("length_vs_score")
    for benchmark, tolerance in (("arena_hard", 0.05), ("alpaca_eval", 0.05)):
        mine = points[(points["method"] == "AIPO") & (points["benchmark"] == benchmark)]
        here = mine[mine["length"] == headline[f"{benchmark}_length"]]
        assert np.abs(here["score"] - headline[f"{benchmark}_score"]).min() <= tolerance
    assert set(published.read("recipes")["source"]) == set(published.read("headline")["source"]) == {"paper"}


def test_fit_matches_statsmodels():
    rng = np.random.default_rng(0)
    x = rng.uniform(500, 700, 20)
    y = 0.1 * x + rng.standard_t(2, 20)
    for method, model in (("ols", sm.OLS), ("huber", sm.RLM)):
        intercept, slope = model(y, sm.add_constant(x)).fit().params
        line = fit_line(x, y, method)
        assert (line.slope, line.intercept) == pytest.approx((slope, intercept), rel=1e-9)
        assert (line.x_min, line.x_max, line.n) == (x.min(), x.max(), 20)


@pytest.mark.parametrize("method", ["ols", "huber"])
def test_no_line_where_the_points_determine_none(method):
    assert fit_line([1, 2], [3, 4], method) is None
    assert fit_line([5, 5, 5], [1, 2, 3], method) is None
    exact = fit_line([0, 1, 2, 3], [1, 3, 5, 7], method)
    assert (exact.slope, exact.intercept) == pytest.approx((2, 1))


def test_command_draws_the_figure(tmp_path, capsys):
    assert main(["paper", "--out", str(tmp_path / "paper")]) == 0
    assert (tmp_path / "paper" / "length_vs_score.png").stat().st_size > 20_000
    printed = capsys.readouterr().out
    assert printed.count("equal") == 10 and "DIFFERENT" not in printed


def test_command_fails_when_a_line_differs(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(published.FIT_METHODS, "alpaca_eval", "ols")
    assert main(["paper", "--out", str(tmp_path)]) == 1
    assert "DIFFERENT" in capsys.readouterr().out
