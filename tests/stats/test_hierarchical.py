"""Estimates over seeds, base models and questions: by hand, and in agreement with the libraries' tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from aipo.stats import detectable_difference, estimate, holm, question_draws, seeds_needed, sign_flip_p


def test_without_questions_it_is_students_t():
    values = [1.0, 2.0, 4.0, 5.0]
    found = estimate(values)
    test = stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval(0.95)
    assert (found.value, found.df, found.n_replicates, found.n_questions) == (3, 3, 4, 0)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.p == pytest.approx(test.pvalue)


def test_one_seed_has_an_interval_over_questions_and_no_p():
    draws = np.array([[1.0], [2.0], [3.0], [4.0]])
    found = estimate([2.5], redrawn=draws, n_questions=4)
    # Variance of the draws 5/3; the normal quantile, for there is no seed to count.
    assert found.standard_error == pytest.approx(math.sqrt(5 / 3))
    assert found.high - found.value == pytest.approx(1.959964 * math.sqrt(5 / 3))
    assert math.isnan(found.p) and found.error_replicates == 0
    assert math.isnan(estimate([2.5]).low)


def test_draws_without_a_value_are_left_out():
    """A draw in which no question is scored says nothing; the others are what there is."""
    draws = np.array([[1.0, 1.5], [2.0, 2.5], [math.nan, 4.0], [3.0, 3.5], [-math.inf, 2.0]])
    found = estimate([2.0, 2.5], redrawn=draws, n_questions=4)
    assert found == estimate([2.0, 2.5], redrawn=draws[[0, 1, 3]], n_questions=4) and found.error_questions == 1
    assert estimate([2.0, 2.5], redrawn=draws[2:4], n_questions=4).n_questions == 0, "one draw has no spread"


def test_what_replicates_share_over_questions_is_added():
    # Both replicates move by the same -1, 0, 1 (variance 1); the second has noise that does not covary with it.
    shared, noise = np.array([-1.0, 0, 1, -1, 0, 1]), np.array([1.0, 1, 1, -1, -1, -1])
    draws = np.column_stack([1 + shared, 3 + shared + noise])
    found = estimate([1.0, 3.0], redrawn=draws, n_questions=101)
    covariance = float((shared**2).sum() / 5)
    assert (found.error_replicates, found.df) == (pytest.approx(math.sqrt(2 / 2)), 1)
    assert found.error_questions == pytest.approx(math.sqrt(covariance))
    # Half widths add in squares: 12.7062 of Student's t on one degree of freedom, 1.95996 of the normal.
    half = math.hypot(12.706205, 1.959964 * math.sqrt(covariance))
    assert found.high - found.value == pytest.approx(half, rel=1e-6)
    assert found.p > 0.05
    # The p-value is where the interval ends at 0: one that is shifted by its own half width has 0.05.
    shifted = estimate(np.array([1.0, 3.0]) - 2 + half, redrawn=draws, n_questions=101)
    assert shifted.p == pytest.approx(0.05, rel=1e-6)


def test_base_models_are_blocks_or_observations():
    values, bases = [1.0, 3.0, 11.0, 13.0, 22.0, 20.0], [0, 0, 1, 1, 2, 2]
    these = estimate(values, base_models=bases)
    # Within each base model the two seeds lie 2 apart: variance 2, over 6 seeds 1/3, on 3 degrees of freedom.
    assert (these.value, these.df) == (pytest.approx(35 / 3), 3)
    assert these.standard_error == pytest.approx(math.sqrt(2 / 6))
    others = estimate(values, base_models=bases, new_base_models=True)
    assert others.standard_error == pytest.approx(np.std([2, 12, 21], ddof=1) / math.sqrt(3)) and others.df == 2
    assert math.isnan(estimate([1.0, 2.0], base_models=[0, 0], new_base_models=True).low)
    # One seed on each base model: both kinds of spread are in the values, whichever is asked for.
    assert estimate(values, base_models=range(6)) == estimate(values)
    assert estimate(values, base_models=range(6), new_base_models=True) == estimate(values)


def test_sign_flips():
    # All six pairs point one way: only the pattern itself and its mirror are as extreme, of 64.
    assert sign_flip_p([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64)
    assert sign_flip_p([1, -1]) == 1
    assert math.isnan(sign_flip_p([1.0]))
    rng = np.random.default_rng(0)
    values = rng.normal(0.7, 1, size=20)
    exact = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=20000, rng=1).pvalue
    assert sign_flip_p(values) == pytest.approx(exact, abs=0.01)


def test_holm_leaves_out_what_was_not_tested():
    ps = [0.01, math.nan, 0.04, 0.03]
    corrected = holm(ps)
    # Steps: 3 * 0.01, then 2 * 0.03, then the larger of that and 0.04.
    assert [corrected[0], corrected[2], corrected[3]] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(corrected[1])
    tested = [0.01, 0.04, 0.03]
    assert holm(tested) == pytest.approx(list(multipletests(tested, method="holm")[1]))
    assert holm([]) == []


def test_power():
    found = estimate([1.0, 2.0, 4.0, 5.0])
    assert found.detectable == pytest.approx(found.standard_error * (3.182446 + 1.073453), rel=1e-5)
    # A difference of one standard deviation needs ten pairs (power 0.80 at 9.94).
    assert seeds_needed(1.0, 1.0) == 10
    assert seeds_needed(-0.5, 1.0) == 34
    assert seeds_needed(30.0, 1.0) == 2
    # Few seeds: by the noncentral t these need one more than by the sum of two quantiles of Student's t.
    assert [seeds_needed(difference, 1.0) for difference in (2.1, 3.1, 10.0)] == [5, 4, 3]
    # What is detectable with n pairs needs n pairs, with the questions' error, too.
    smallest = detectable_difference(1.0, 12, error_questions=0.1)
    assert seeds_needed(smallest * 1.0001, 1.0, error_questions=0.1) == 12
    assert seeds_needed(smallest * 0.9999, 1.0, error_questions=0.1) == 13
    # No number of seeds helps where the questions alone hide it, or where there is nothing to find.
    assert seeds_needed(0.2, 1.0, error_questions=0.1) is None
    assert seeds_needed(0, 1) is None
    with pytest.raises(ValueError, match="at least two seeds"):
        detectable_difference(1.0, 1)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 200])
def test_what_is_detectable_is_detected_in_four_of_five_repetitions(n):
    smallest = detectable_difference(1.0, n)
    assert stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, smallest * math.sqrt(n)) == pytest.approx(0.8, abs=1e-6)
    spread = [-1.0, 1.0] * (n // 2) + [0.0] * (n % 2)
    found = estimate([value / np.std(spread, ddof=1) for value in spread])
    assert found.detectable == pytest.approx(smallest)


def test_question_draws_are_counts():
    draws = question_draws(20, rounds=50)
    assert draws.shape == (50, 20) and set(draws.sum(axis=1)) == {20}
    assert np.array_equal(draws, question_draws(20, rounds=50))


@pytest.mark.parametrize("bad", [[], [math.nan, 1.0], [[1.0]]])
def test_values_must_be_finite(bad):
    with pytest.raises(ValueError, match="expected at least one finite value per replicate"):
        estimate(bad)
