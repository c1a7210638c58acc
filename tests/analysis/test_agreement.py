"""Reference-ranker agreement against the length gap."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.agreement import BINS, agreement, bin_edges, read_pairs, wilson
from analysis.collect import collect


def job_with(fake_sweep, rows, *, objective="dpo", key=("rows",)):
    pairs, reference = fake_sweep.pairs(key, rows, {})
    point = {"iteration": 0, "policy": "f", "pairs": pairs, "reference": reference, "train": "t", "scores": {}}
    fake_sweep.job(objective, points=[point], benchmarks=())
    return pairs, reference


def test_gap_counts_visible_tokens_and_joins_by_pair(fake_sweep):
    rows = [(5, 3, 0.5), (2, 9, -1.0), (4, 4, 0.0)]
    gap, margin = read_pairs(fake_sweep.store, *job_with(fake_sweep, rows))
    assert sorted(zip(gap, margin, strict=True)) == [(-7, -1.0), (0, 0.0), (2, 0.5)]


def test_share_per_bin(fake_sweep):
    # Gaps -20 .. 20 in steps of 4; the reference agrees where the chosen one is shorter; a margin of 0 does not agree.
    rows = [(30 + gap, 30, 1.0 if gap < 0 else 0.0) for gap in range(-20, 21, 4) for _ in range(10)]
    job_with(fake_sweep, rows)
    frame, problems = agreement(collect(fake_sweep.folder))
    assert not problems and len(frame) == BINS
    assert frame["n_pairs"].sum() == 110 and frame["n_agreeing"].sum() == 50
    filled = frame[frame["n_pairs"] > 0]
    assert ((filled["share"] == 1.0) == (filled["gap_mean"] < 0)).all()
    assert ((filled["share"] == 0.0) == (filled["gap_mean"] >= 0)).all()
    assert filled["ci95_low"].between(0, 1).all() and (filled["ci95_low"] <= filled["share"] + 1e-12).all()


def test_a_shared_artifact_counts_once_in_a_group(fake_sweep):
    for seed in range(2):
        pairs, reference = fake_sweep.pairs(("rows",), [(5, 3, 0.5)] * 6, {})
        point = {"iteration": 0, "policy": "f", "pairs": pairs, "reference": reference, "train": "t", "scores": {}}
        fake_sweep.job("dpo", seed, points=[point], benchmarks=())
    frame, _ = agreement(collect(fake_sweep.folder))
    assert frame["n_pairs"].sum() == 6


def test_reference_of_other_pairs_is_listed(fake_sweep):
    pairs, _ = fake_sweep.pairs(("a",), [(5, 3, 0.5)] * 3, {})
    _, reference = fake_sweep.pairs(("b",), [(5, 3, 0.5)] * 4, {})
    point = {"iteration": 0, "policy": "f", "pairs": pairs, "reference": reference, "train": "t", "scores": {}}
    fake_sweep.job("dpo", points=[point], benchmarks=())
    frame, problems = agreement(collect(fake_sweep.folder))
    assert frame.empty and len(problems) == 1
    assert f"reference/{reference} holds 4 rows that are not the 3 of pairs/{pairs}" in problems[0].what


def test_wilson():
    # 8 of 10: (8 + z^2/2 -+ z sqrt(8*2/10 + z^2/4)) / (10 + z^2), z = 1.959964.
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert wilson(0, 5)[0] == pytest.approx(0) and wilson(5, 5)[1] == pytest.approx(1)
    # A plot's error bars are differences from the share and must not be negative, not even by rounding.
    for n in range(1, 600):
        for k in (0, n):
            low, high = wilson(k, n)
            assert low <= k / n <= high


@given(st.lists(st.integers(-3000, 3000), min_size=1, max_size=50))
def test_bins_are_symmetric_and_between_whole_numbers(gaps):
    edges = bin_edges(gaps)
    assert len(edges) == BINS + 1 and edges == [-edge for edge in reversed(edges)]
    assert edges[0] == -math.inf and edges == sorted(edges)
    assert all((2 * edge) % 2 == 1 for edge in edges[1:-1])
    assert 10 * sum(edges[1] < gap < edges[-2] for gap in gaps) >= 9 * len(gaps)
