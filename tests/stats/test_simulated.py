"""Simulated sweeps whose truth is known: do intervals cover it, do tests err as often as they say?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from aipo.stats import Range, common_lengths, estimate, holm, mean_score_over, question_draws

pytestmark = pytest.mark.slow

N_QUESTIONS = 128


def planted(
    rng: np.random.Generator, *, seeds: int, bases: int, sd: dict[str, float], truth: float = 0.0
) -> tuple[np.ndarray, list[int]]:
    """Values of every replicate on every question, (replicates, questions), and each replicate's base model."""
    labels = [number * bases // seeds for number in range(seeds)]
    base = rng.normal(0, sd["base"], bases)
    return (
        truth
        + base[labels][:, None]
        + rng.normal(0, sd["seed"], (seeds, 1))
        + rng.normal(0, sd["question"], (1, N_QUESTIONS))
        + rng.normal(0, sd["answer"], (seeds, N_QUESTIONS)),
        labels,
    )


def interval(values: np.ndarray, labels: list[int], draws: np.ndarray, **options):
    redrawn = draws @ values.T / N_QUESTIONS
    return estimate(values.mean(axis=1), redrawn=redrawn, n_questions=N_QUESTIONS, base_models=labels, **options)


def pigeonhole(values: np.ndarray, rng: np.random.Generator, rounds: int = 200) -> tuple[float, float]:
    """The plain percentile bootstrap over seeds and questions at once, for comparison."""
    seeds, questions = values.shape
    means = [
        values[rng.integers(seeds, size=seeds)][:, rng.integers(questions, size=questions)].mean()
        for _ in range(rounds)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


# What dominates: the seeds (differences in length), the questions (a score's own level), the noise of answers.
DESIGNS = {
    "seeds": ({"base": 0.0, "seed": 0.05, "question": 0.1, "answer": 0.3}, 10, 10, False),
    "questions": ({"base": 0.0, "seed": 0.01, "question": 0.4, "answer": 0.3}, 10, 10, False),
    "answers": ({"base": 0.0, "seed": 0.005, "question": 0.02, "answer": 0.5}, 10, 10, False),
    "three seeds": ({"base": 0.0, "seed": 0.05, "question": 0.1, "answer": 0.3}, 3, 3, False),
    "new base models": ({"base": 0.05, "seed": 0.03, "question": 0.1, "answer": 0.3}, 9, 3, True),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_intervals_cover_the_truth(name, record_property):
    sd, seeds, bases, new = DESIGNS[name]
    rng = np.random.default_rng(1)
    draws = question_draws(N_QUESTIONS, rounds=200)
    covered = plain = 0
    for _ in range(1000):
        truth = rng.normal()
        values, labels = planted(rng, seeds=seeds, bases=bases, sd=sd, truth=truth)
        found = interval(values, labels, draws, new_base_models=new)
        covered += found.low <= truth <= found.high
        low, high = pigeonhole(values, rng)
        plain += low <= truth <= high
    record_property("coverage_pct", covered / 10)
    print(f"\n{name}: covered {covered / 10} % (a plain bootstrap of seeds and questions: {plain / 10} %)")
    assert 930 <= covered <= 970


def test_intervals_about_these_base_models_cover_their_mean():
    rng = np.random.default_rng(2)
    draws = question_draws(N_QUESTIONS, rounds=200)
    covered = 0
    for _ in range(1000):
        values, labels = planted(rng, seeds=10, bases=3, sd={"base": 0.0, "seed": 0.05, "question": 0.1, "answer": 0.3})
        shifts = rng.normal(0, 0.5, 3)
        found = interval(values + shifts[labels][:, None], labels, draws)
        covered += found.low <= shifts.mean() <= found.high
    print(f"\nthese base models: covered {covered / 10} %")
    assert 930 <= covered <= 970


@pytest.mark.parametrize("seeds", [3, 10])
def test_the_paired_test_errs_in_five_of_a_hundred(seeds):
    rng = np.random.default_rng(3)
    draws = question_draws(N_QUESTIONS, rounds=200)
    wrong, n = 0, 2000
    sd = {"base": 0.0, "seed": 0.03, "question": 0.0, "answer": 0.3}
    for _ in range(n):
        # Both objectives answer the same questions and share most of their difficulty, not all.
        shared, own = rng.normal(0, 0.3, (1, N_QUESTIONS)), rng.normal(0, 0.05, (1, N_QUESTIONS))
        control, labels = planted(rng, seeds=seeds, bases=seeds, sd=sd)
        other, _ = planted(rng, seeds=seeds, bases=seeds, sd=sd)
        wrong += interval(other + shared + own - control - shared, labels, draws).p < 0.05
    print(f"\npaired test, {seeds} seeds: {100 * wrong / n:.2f} % false positives")
    assert 0.035 <= wrong / n <= 0.065


def test_holm_errs_in_at_most_six_families_of_a_hundred():
    rng = np.random.default_rng(4)
    draws = question_draws(N_QUESTIONS, rounds=200)
    sd = {"base": 0.0, "seed": 0.03, "question": 0.05, "answer": 0.3}
    wrong, n = 0, 1000
    for _ in range(n):
        control, labels = planted(rng, seeds=10, bases=10, sd=sd)
        ps = [interval(planted(rng, seeds=10, bases=10, sd=sd)[0] - control, labels, draws).p for _ in range(4)]
        wrong += min(holm(ps)) < 0.05
    print(f"\nHolm, four comparisons with one control: {100 * wrong / n:.1f} % of families wrong")
    assert wrong / n <= 0.06


def saturating(length: np.ndarray, gain: float = 0.45, rate: float = 9.0, fall: float = 0.0) -> np.ndarray:
    """A concave score over length, as the miniature's: steep at first, flat or falling at the end."""
    return 0.55 + gain * (1 - np.exp(-(length - 14) / rate)) - fall * np.maximum(length - 40, 0) ** 2


def test_equal_length_contrast_is_unbiased_on_concave_curves():
    """Two objectives on planted curves; the second stays shorter. The line's bias stands beside it."""
    rng = np.random.default_rng(5)
    rounds = np.arange(1, 16)
    truths = {
        "same curve": (lambda x: saturating(x), lambda x: saturating(x)),
        "better by 0.02": (lambda x: saturating(x), lambda x: saturating(x) + 0.02 * (x - 14) / 20),
        "control falls": (lambda x: saturating(x, fall=5e-5), lambda x: saturating(x)),
    }
    for name, (control, other) in truths.items():
        contrasts, lines, planted_values = [], [], []
        for _ in range(1000):
            per_seed, per_seed_line, per_seed_truth = [], [], []
            paths = []
            for _seed in range(10):
                pair = []
                for final, curve in ((62.0, control), (48.0, other)):
                    growth = (final - 14) * (1 - np.exp(-rounds / 8)) / (1 - math.exp(-15 / 8)) * rng.normal(1, 0.05)
                    length = 14 + growth + np.cumsum(rng.normal(0, 0.2, 15))
                    pair.append((length, curve(length) + rng.normal(0, 0.012, 15)))
                paths.append(pair)
            where = common_lengths([length for pair in paths for length, _ in pair])
            grid = where.grid()
            for pair in paths:
                read = [mean_score_over(length, score, where) for length, score in pair]
                per_seed.append(read[1] - read[0])
                centre = (where.low + where.high) / 2
                fitted = [np.polyval(np.polyfit(length, score, 1), centre) for length, score in pair]
                per_seed_line.append(fitted[1] - fitted[0])
                per_seed_truth.append(float(np.trapezoid(other(grid) - control(grid), grid) / (grid[-1] - grid[0])))
            contrasts.append(estimate(per_seed).value)
            lines.append(float(np.mean(per_seed_line)))
            planted_values.append(float(np.mean(per_seed_truth)))
        error = np.std(contrasts, ddof=1)
        bias = float(np.mean(np.subtract(contrasts, planted_values)))
        line_bias = float(np.mean(np.subtract(lines, planted_values)))
        print(f"\n{name}: bias {bias:+.5f} = {bias / error:+.3f} SE; the line's", end=" ")
        print(f"{line_bias:+.5f} = {line_bias / error:+.1f} SE")
        assert abs(bias) <= 0.1 * error
        assert abs(line_bias) > abs(bias)


def test_an_empty_range_gives_no_number():
    assert math.isnan(mean_score_over([1, 2], [0, 1], Range(5, 5)))
