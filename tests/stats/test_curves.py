"""Curves of score over length: read at equal length and at equal score, and the fit over the distance travelled."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aipo.stats import (
    OveroptimizationFit,
    Range,
    common_lengths,
    common_scores,
    distance_travelled,
    fit_overoptimization,
    mean_log_length_over,
    mean_score_over,
)


def test_a_straight_curve_is_read_exactly():
    assert mean_score_over([10, 20, 40], [1, 2, 4], Range(10, 40)) == pytest.approx(2.5)
    assert mean_score_over([10, 20, 40], [1, 2, 4], Range(20, 40)) == pytest.approx(3)
    # The mean of ln(10 s) for s from 1 to 3 is ln 10 + (3 ln 3 - 2) / 2.
    expected = math.log(10) + (3 * math.log(3) - 2) / 2
    assert mean_log_length_over([10, 20, 30], [1, 2, 3], Range(1, 3)) == pytest.approx(expected, abs=2e-4)


def test_lengths_that_fall_back_are_pooled():
    # Rounds 2 and 3 (30, then 10) become one point at their mean: (20, 2).
    assert mean_score_over([10, 30, 10, 30], [1, 3, 1, 3], Range(10, 30)) == pytest.approx(2)


def test_length_at_a_score_is_read_before_the_peak():
    rising = mean_log_length_over([10, 20, 40], [1, 2, 3], Range(1, 3))
    assert mean_log_length_over([10, 20, 40, 80], [1, 2, 3, 2], Range(1, 3)) == pytest.approx(rising)


def test_common_ranges():
    curves = [np.array([10.0, 25, 60]), np.array([12.0, 30, 28])]
    assert common_lengths(curves) == Range(12, 30)
    assert common_scores(curves) == Range(12, 30)
    assert common_lengths([np.array([1.0, 2]), np.array([3.0, 4])]).is_empty
    assert math.isnan(mean_score_over([1, 2], [1, 2], Range(3, 2)))


def test_the_fit_gives_its_own_curve_back():
    truth = OveroptimizationFit(0.3, 0.1)
    kl = np.array([0.0, 0.5, 1, 4, 9, 25])
    found = fit_overoptimization(kl, truth.at(np.sqrt(kl)))
    assert (found.alpha, found.beta) == pytest.approx((0.3, 0.1))
    assert found.at(0) == 0 and found.at(1) == pytest.approx(0.3)
    # The derivative alpha - beta (ln d + 1) is 0 at exp(2).
    assert found.peak == pytest.approx(math.exp(2))
    assert OveroptimizationFit(0.3, -0.1).peak == math.inf
    with pytest.raises(ValueError, match="at least two points away from the base model, got 1"):
        fit_overoptimization([0.0, 1.0], [0.0, 1.0])


def test_an_estimate_of_kl_below_zero_is_no_distance():
    """KL is estimated from samples, so near 0 an estimate may be negative; its root would be NaN, or an error."""
    assert distance_travelled([-0.02, 0.0, 0.25]).tolist() == [0.0, 0.0, 0.5]
    truth = OveroptimizationFit(1.0, 0.2)
    kl = np.array([-0.01, 0.25, 1.0, 4.0])
    found = fit_overoptimization(kl, [0.3, *truth.at(np.sqrt(kl[1:]))])
    assert (found.alpha, found.beta) == pytest.approx((1.0, 0.2), abs=1e-9)
    with pytest.raises(ValueError, match="at least two points away from the base model, got 1"):
        fit_overoptimization([-1.0, 1.0], [0.0, 1.0])
