"""Win rates, the length model and Bradley-Terry: by hand, and against the official values."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aipo.stats import (
    bootstrap_interval,
    bootstrap_mean_interval,
    bradley_terry,
    length_controlled,
    pooled_bootstrap,
    win_rate,
    win_rate_against,
)
from aipo.stats.l1_logistic import fit_exactly

CASES = ["a_full805", "b_special300", "c_small60"]
MODELS = ["length_controlled_v1", "length_controlled_noreg", "length_controlled_minimal"]


def test_win_rate_by_hand() -> None:
    rates = win_rate([1.0, 0.0, 0.5, math.nan, 0.9])
    assert rates.win_rate == pytest.approx(60.0)
    # mean 0.6; squared deviations 0.16 + 0.36 + 0.01 + 0.09 = 0.62; sqrt(0.62 / 3 / 4) = 0.227303...
    assert rates.standard_error == pytest.approx(100 * math.sqrt(0.62 / 12))
    assert rates.discrete_win_rate == pytest.approx(62.5)
    assert (rates.n_wins, rates.n_losses, rates.n_ties, rates.n_scored, rates.n_unscored) == (2, 1, 1, 4, 1)


@pytest.mark.parametrize("bad", [[], [math.nan], [1.5], [-0.1, 0.5]])
def test_win_rate_refuses(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="expected at least one scored|in \\[0, 1\\]"):
        win_rate(bad)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_swapping_sides_mirrors_the_win_rate(preferences: list[float]) -> None:
    ours, theirs = win_rate(preferences), win_rate([1 - value for value in preferences])
    assert ours.win_rate + theirs.win_rate == pytest.approx(100)
    assert ours.standard_error == pytest.approx(theirs.standard_error, abs=1e-9)


def test_official_win_rates(data: Path) -> None:
    cases = json.loads((data / "fixtures/alpaca_parser_prompt.json").read_text())["win_rate"]
    for case in cases:
        official = [math.nan if value is None else value for value in case["preference"]]
        rates = win_rate([0.5 if value == 0 else value - 1 for value in official])
        expected = case["expected"]
        assert rates.win_rate == pytest.approx(expected["win_rate"], abs=1e-12)
        assert rates.standard_error == pytest.approx(expected["standard_error"], abs=1e-12)
        assert rates.discrete_win_rate == pytest.approx(expected["discrete_win_rate"], abs=1e-12)
        assert (rates.n_wins, rates.n_losses, rates.n_ties, rates.n_scored) == tuple(
            expected[key] for key in ("n_wins", "n_wins_base", "n_draws", "n_total")
        )


def test_mean_interval_matches_theory() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    low, high = bootstrap_mean_interval(values, rounds=4000)
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert bootstrap_mean_interval([2.0, 2.0, math.nan]) == (2.0, 2.0)


def test_weighted_mean_interval_keeps_items_whole() -> None:
    # Item 0 weighs three times item 1: a draw has both, or one of them twice.
    low, high = bootstrap_mean_interval([1.0, 0.0], weights=[3, 1], rounds=500)
    assert (low, high) == (0.0, 1.0)
    assert bootstrap_interval(lambda picks: float((picks == 0).mean()), 1) == (1.0, 1.0)


def test_interval_leaves_out_undefined_draws() -> None:
    def correlation(picks: np.ndarray) -> float:
        chosen = np.array([0.0, 1.0])[picks]
        return float("nan") if chosen.std() == 0 else 1.0

    assert bootstrap_interval(correlation, 2) == (1.0, 1.0)


def _case(data: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    folder = data / "fixtures/alpaca_lc"
    expected = json.loads((folder / "expected.json").read_text())[name]
    return pd.read_csv(folder / f"{name}_table.csv"), pd.read_csv(folder / f"{name}_gamed.csv"), expected


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", CASES)
def test_official_length_control(data: Path, name: str, model: str) -> None:
    items, gamed, cases = _case(data, name)
    expected = cases[model]
    fit = length_controlled(
        items.preference.replace({0.0: 1.5}) - 1,
        items.len_output,
        items.len_baseline,
        difficulty=None if model.endswith("minimal") else gamed.instruction_difficulty[: len(items)],
        gamed=(gamed.preference, gamed.std_delta_len, gamed.instruction_difficulty) if model.endswith("v1") else None,
    )
    metrics = expected["metrics"]
    assert fit.strength == pytest.approx(expected["C"], rel=1e-12)
    assert fit.lc_win_rate == pytest.approx(metrics["length_controlled_winrate"], abs=1e-9)
    assert fit.standard_error == pytest.approx(metrics["lc_standard_error"], abs=1e-9)
    assert fit.lc_win_rate == pytest.approx(expected["lc_exact_optimum_at_C"], abs=0.003)
    assert fit.predictions == pytest.approx(expected["glm_preference"], abs=1e-12)
    assert fit.cv_scores == pytest.approx(expected["cv_mean_neg_logloss"], abs=1e-12)
    assert list(fit.coefficients.values()) == pytest.approx(list(expected["coef"].values()), abs=1e-10)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", CASES)
def test_exact_solver_finds_the_exact_optimum(data: Path, name: str, model: str) -> None:
    items, gamed, cases = _case(data, name)
    expected = cases[model]
    hardness = gamed.instruction_difficulty[: len(items)].to_numpy()
    difference = (items.len_baseline - items.len_output).to_numpy()
    ones = np.ones(len(items))
    features = np.column_stack([np.tanh(difference / difference.std(ddof=1)), hardness, ones])
    preferences = (items.preference.replace({0.0: 1.5}) - 1).to_numpy()
    weights = ones
    if model.endswith("v1"):
        rows = np.column_stack([np.tanh(gamed.std_delta_len), gamed.instruction_difficulty, 0 * gamed.preference])
        features = np.concatenate([rows, features])
        preferences = np.concatenate([gamed.preference, preferences])
        weights = np.concatenate([np.full(len(gamed), 0.1), weights])
    columns = [0, 2] if model.endswith("minimal") else [0, 1, 2]
    kept = ~np.isnan(preferences)
    found = fit_exactly(features[kept][:, columns], preferences[kept], weights[kept][None], expected["C"])[0]
    assert found == pytest.approx(list(expected["coef_exact_optimum_at_C"].values()), abs=1e-10)
    at_equal_length = np.column_stack([0 * ones, hardness, ones])[:, columns] @ found
    rate = 100 * np.mean(1 / (1 + np.exp(-at_equal_length)))
    assert rate == pytest.approx(expected["lc_exact_optimum_at_C"], abs=1e-9)


def test_exact_solver_by_hand() -> None:
    features, preferences = np.ones((4, 1)), np.array([1.0, 1.0, 1.0, 0.0])
    # Without a penalty the optimum is logit(3/4) = log 3; a strong penalty keeps the coefficient at zero.
    weights = np.array([[1.0, 1, 1, 1], [1, 0, 0, 1], [2, 2, 2, 2]])
    found = fit_exactly(features, preferences, weights, 1e9)
    assert found[:, 0] == pytest.approx([math.log(3), 0.0, math.log(3)], abs=1e-7)
    # |gradient at zero| = C |sum(1/2 - p)| = C, which must exceed the penalty's 1.
    assert fit_exactly(features, preferences, weights[:1], 0.9) == pytest.approx(0.0)
    # In between: C (4 sigmoid(w) - 3) + 1 = 0 at C = 2 is sigmoid(w) = 5/8.
    assert fit_exactly(features, preferences, weights[:1], 2.0)[0, 0] == pytest.approx(math.log(5 / 3), abs=1e-10)


def _biased_items(n_items: int = 600, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A judge that only likes length: P(win) = sigmoid(2 tanh((chars - baseline) / sd))."""
    generator = np.random.default_rng(seed)
    baseline = generator.integers(200, 2000, size=n_items)
    chars = baseline + generator.normal(300, 500, size=n_items)
    spread = (baseline - chars).std(ddof=1)
    return 1 / (1 + np.exp(2 * np.tanh((baseline - chars) / spread))), chars, baseline


def test_length_control_takes_away_what_length_alone_buys() -> None:
    preferences, chars, baseline = _biased_items()
    assert win_rate(preferences).win_rate > 57
    fit = length_controlled(preferences, chars, baseline)
    assert fit.lc_win_rate == pytest.approx(50, abs=0.05)
    assert fit.coefficients["length"] == pytest.approx(-2, abs=0.02)
    assert list(fit.coefficients) == ["length", "policy"]


def test_length_control_interval_covers_and_is_reproducible() -> None:
    generator = np.random.default_rng(0)
    preferences, chars, baseline = _biased_items()
    noisy = (generator.random(600) < preferences).astype(float)
    fits = [length_controlled(noisy, chars, baseline, bootstrap_rounds=40, seed=5) for _ in range(2)]
    low, high = fits[0].ci95
    assert fits[0].ci95 == fits[1].ci95
    assert low < fits[0].lc_win_rate < high
    # A share of 600 coin flips has a standard error of 2 points; the length term makes it a little wider.
    assert 7 < high - low < 12


@pytest.mark.slow
def test_length_control_interval_covers_the_truth() -> None:
    covered = 0
    for sample in range(100):
        preferences, chars, baseline = _biased_items(400, seed=sample)
        won = (np.random.default_rng(1000 + sample).random(400) < preferences).astype(float)
        low, high = length_controlled(won, chars, baseline, bootstrap_rounds=200, seed=sample).ci95
        covered += low < 50 < high
    assert 86 <= covered <= 100


def test_equal_lengths_leave_the_win_rate() -> None:
    fit = length_controlled([1.0, 0.0, 1.0, 1.0] * 30, [7] * 120, [7] * 120)
    assert fit.lc_win_rate == pytest.approx(75, abs=0.1)


def test_unscored_items_leave_the_fit_but_not_the_average() -> None:
    preferences, chars, baseline = _biased_items(300)
    preferences[:20] = np.nan
    fit = length_controlled(preferences, chars, baseline)
    assert len(fit.predictions) == 300
    assert fit.coefficients["length"] == pytest.approx(-2, abs=0.1)
    with pytest.raises(ValueError, match="at least 5 scored items, got 0"):
        length_controlled([math.nan] * 5, [1] * 5, [2] * 5)


def test_bradley_terry_by_hand() -> None:
    # 3 wins to 1 are odds of 3: 400 log10(3) points. A tie is half of each.
    battles = [("base", "x", 0.0)] * 3 + [("base", "x", 1.0)] + [("base", "y", 0.5)] * 2
    ratings = bradley_terry(battles, baseline="base")
    assert ratings == pytest.approx({"base": 1000.0, "x": 1000 + 400 * math.log10(3), "y": 1000.0}, abs=0.01)
    assert win_rate_against(ratings, "base") == pytest.approx({"base": 50.0, "x": 75.0, "y": 50.0}, abs=0.01)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=4, max_size=40))
def test_bradley_terry_equals_the_plain_rate_against_one_baseline(outcomes: list[float]) -> None:
    outcomes = [0.0, 1.0, *outcomes]
    rates = win_rate_against(bradley_terry([("b", "x", o) for o in outcomes], baseline="b"), "b")
    assert rates["x"] == pytest.approx(100 * (1 - sum(outcomes) / len(outcomes)), abs=1e-9)


def test_two_models_in_closed_form_equal_the_official_fit() -> None:
    """The official fit stops close by; a third model, which only ties, leaves the other two where they are."""
    battles = [("b", "x", 0.0)] * 7 + [("b", "x", 1.0)] * 3 + [("x", "b", 1.0)] * 4 + [("x", "b", 0.5)] * 5
    closed = bradley_terry(battles, baseline="b")
    fitted = bradley_terry([*battles, ("b", "y", 0.5)], baseline="b")
    # x: 7 + 4 wins and 5 ties in 19 battles, odds 13.5 to 5.5.
    assert closed == pytest.approx({"b": 1000.0, "x": 1000 + 400 * math.log10(13.5 / 5.5)}, abs=1e-9)
    assert fitted["x"] == pytest.approx(closed["x"], abs=1e-4)


def test_bradley_terry_refuses_what_has_no_answer() -> None:
    with pytest.raises(ValueError, match="no finite value"):
        bradley_terry([("b", "x", 0.0)] * 5, baseline="b")
    with pytest.raises(ValueError, match="no finite value"):  # whoever is named first
        bradley_terry([("b", "x", 0.0), ("x", "b", 1.0)], baseline="b")
    with pytest.raises(ValueError, match="in no battle"):
        bradley_terry([("b", "x", 0.5)], baseline="c")
    with pytest.raises(ValueError, match="at least one battle"):
        bradley_terry([], baseline="b")


def test_real_battles(data: Path) -> None:
    expected = json.loads((data / "arena_hard/real_battles_expected.json").read_text())
    lines = (data / "arena_hard/real_battles_claude3haiku_baseline.jsonl").read_text().splitlines()
    outcome = {"model_a": 1.0, "model_b": 0.0}
    rows = map(json.loads, lines)
    battles = [(row["model_a"], row["model_b"], outcome.get(row["winner"], 0.5)) for row in rows]
    ratings = bradley_terry(battles, baseline=expected["baseline"])
    assert ratings == pytest.approx(expected["elo"], abs=1e-8)
    assert win_rate_against(ratings, expected["baseline"]) == pytest.approx(expected["win_rate_bt_pct"], abs=1e-10)


def test_pooled_bootstrap_draws_as_pandas_does() -> None:
    generator = np.random.default_rng(0)
    battles = [("b", name, float(outcome)) for name in "xy" for outcome in generator.choice([0, 0.5, 1], size=30)]
    frame = pd.DataFrame(battles)
    np.random.seed(42)
    rounds = [
        bradley_terry(list(frame.sample(frac=1.0, replace=True).itertuples(index=False, name=None)), baseline="b")
        for _ in range(20)
    ]
    expected = {
        name: tuple(np.percentile([round_[name] for round_ in rounds], [2.5, 97.5])) for name in ("b", "x", "y")
    }
    found = pooled_bootstrap(battles, baseline="b", rounds=20)
    for name, interval in expected.items():
        assert found[name] == pytest.approx(interval, abs=1e-6)


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_exact_solver_where_nearly_everything_is_won(lost: int) -> None:
    """A judge that goes by length alone, and answers that are nearly all far longer than the baseline's."""
    preferences = np.ones(200)
    preferences[:lost] = 0
    features = np.column_stack([np.ones(200), np.tanh(np.random.default_rng(0).normal(3, 1, 200))])
    (found,) = fit_exactly(features, preferences, np.ones((1, 200)), 1e4)
    gradient = 1e4 * (1 / (1 + np.exp(-features @ found)) - preferences) @ features
    active = found != 0
    assert active[0] and np.allclose(gradient[active], -np.sign(found[active]), atol=1e-4)
    assert (np.abs(gradient[~active]) <= 1 + 1e-4).all()
