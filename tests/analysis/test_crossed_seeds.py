"""Every seed on every base model: what pairs two objectives is the seed and the base model together."""

from __future__ import annotations

import json
import math
import statistics

import pandas as pd
import pytest

from aipo.records import Metric
from analysis import plots, tables
from analysis.collect import collect
from analysis.summary import of_each, points

GROWTH = {0: 10.0, 1: 20.0}
"""DPO's tokens a round on either base model; AIPO's answers grow half as fast, and its score by 0.06 for DPO's 0.05."""


def _job(fake_sweep, objective: str, seed: int, base: int) -> None:
    run_points = []
    growth = (GROWTH[base] + 0.1 * seed) * (0.5 if objective == "aipo" else 1.0)
    for iteration in range(-1, 4):
        score = 0.5 + (0.06 if objective == "aipo" else 0.05) * (iteration + 1)
        metrics = [Metric("rating", score, (score, score), 10, 0)]
        metrics += [Metric("mean_tokens", 15 + growth * (iteration + 1), None, 10, 0)]
        digest = fake_sweep.score((objective, seed, base, iteration), metrics)
        policy = f"{objective} {seed} {base} {iteration}" if iteration >= 0 else f"base {base}"
        keys = dict.fromkeys(("pairs", "reference", "train")) | {"policy": policy}
        run_points.append({"iteration": iteration, **keys, "scores": {"mt_bench": digest}})
    overrides = [f"model.seed={base}"]
    fake_sweep.job(objective, seed, benchmarks=("mt_bench",), points=run_points, overrides=overrides)


@pytest.fixture
def crossed(fake_sweep):
    for objective in ("dpo", "aipo"):
        for seed in (0, 1):
            for base in (0, 1):
                _job(fake_sweep, objective, seed, base)
    return fake_sweep


def _row(table, objective: str):
    (row,) = table.data[table.data["objective"] == objective].to_dict("records")
    return row


def test_the_length_ratio_pairs_seed_and_base_model(crossed) -> None:
    ratios = [35 / 55, 35.2 / 55.4, 55 / 95, 55.2 / 95.4]
    found = _row(tables.seeds_table(collect(crossed.folder), ["mt_bench"]), "aipo")
    assert (found["n_seeds"], found["n_seeds_expected"]) == (4, 4)
    assert found["length_over_dpo"] == pytest.approx(statistics.fmean(ratios), abs=1e-12)
    assert found["length_over_dpo_sd"] == pytest.approx(statistics.stdev(ratios), abs=1e-12)


def test_a_run_that_lacks_its_twin_enters_no_ratio(crossed) -> None:
    for file in crossed.folder.glob("jobs/*/run.json"):
        run = json.loads(file.read_text())
        if (run["objective"], run["seed"], str(run["settings"]["model"]["seed"])) == ("aipo", 1, "1"):
            file.unlink()
            file.parent.rmdir()
    found = _row(tables.seeds_table(collect(crossed.folder), ["mt_bench"]), "aipo")
    assert found["length_over_dpo"] == pytest.approx(statistics.fmean([35 / 55, 35.2 / 55.4, 55 / 95]), abs=1e-12)


def test_a_line_goes_through_one_runs_points(crossed) -> None:
    sweep = collect(crossed.folder)
    lines = {"mt_bench": plots.fit_lines(sweep, ["mt_bench"])["mt_bench"]}
    found = _row(tables.fits_table(sweep, lines, pd.DataFrame(columns=["benchmark", "objective", "slope"])), "aipo")
    at = found["common_length"]

    def on_its_line(seed: int, base: int, objective: str) -> float:
        growth, gain = GROWTH[base] + 0.1 * seed, 0.05
        if objective == "aipo":
            growth, gain = growth / 2, 0.06
        return 0.5 + gain * (at - 15) / growth

    runs = [(seed, base) for seed in (0, 1) for base in (0, 1)]
    gaps = [on_its_line(*run, "aipo") - on_its_line(*run, "dpo") for run in runs]
    assert found["over_dpo"] == pytest.approx(statistics.fmean(gaps), abs=1e-9)
    assert found["over_dpo_sd"] == pytest.approx(statistics.stdev(gaps), abs=1e-9)


def test_each_run_is_a_line_of_its_own(crossed) -> None:
    frame = points(collect(crossed.folder), "mt_bench")
    groups = list(of_each(frame[frame["objective"] == "dpo"]))
    assert [(seed, int(base)) for (seed, base), _ in groups] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(list(rows["iteration"]) == [0, 1, 2, 3] for _, rows in groups)
    assert not any(math.isnan(length) for _, rows in groups for length in rows["length"])


def _hub_job(fake_sweep, objective: str, model: str, growth: float, *more: str) -> None:
    """A job on a model that was not made here: its seed tells nothing of the model."""
    shared = [f"model={model}", *more]
    run = fake_sweep.job(objective, benchmarks=("alpaca_eval",), iterations=0, overrides=shared, official=True)
    run["points"] = []
    for iteration in range(-1, 3):
        score = 50 + growth * (iteration + 1)
        metrics = [Metric("lc_win_rate", score, (score, score), 10, 0)]
        metrics += [Metric("mean_chars", 100 + 10 * growth * (iteration + 1), None, 10, 0)]
        trained = (objective, *more) if iteration >= 0 else ()
        digest = fake_sweep.score((trained, model, iteration), metrics, assets="aipo.benchmarks.official.Official")
        point = {"iteration": iteration, "policy": f"{model} {trained} {iteration}"}
        run["points"].append(
            point | dict.fromkeys(("pairs", "reference", "train")) | {"scores": {"alpaca_eval": digest}}
        )
    fake_sweep.write(run, str(fake_sweep.jobs - 1))


def _over_dpo(sweep) -> dict[str, tuple[float, float]]:
    """Series -> its length over DPO's in seeds.csv, and its score minus DPO's in fits.csv."""
    lines = {"alpaca_eval": plots.fit_lines(sweep, ["alpaca_eval"])["alpaca_eval"]}
    fits = tables.fits_table(sweep, lines, pd.DataFrame(columns=["benchmark", "objective", "slope"])).data
    minus = {(row["objective"], row["variant"]): row["over_dpo"] for row in fits.to_dict("records")}
    rows = tables.seeds_table(sweep, ["alpaca_eval"]).data.to_dict("records")
    return {
        f"{row['objective']} {row['variant']}": (row["length_over_dpo"], minus[row["objective"], row["variant"]])
        for row in rows
        if row["objective"] not in ("dpo", "base model", "")
    }


def test_a_model_is_held_against_dpo_of_the_same_model_alone(fake_sweep) -> None:
    """DPO ran on mistral only, with the seed that AIPO has on both."""
    for objective, model, growth in (("dpo", "mistral", 10.0), ("aipo", "mistral", 5.0), ("aipo", "llama", 8.0)):
        _hub_job(fake_sweep, objective, model, growth)
    found = _over_dpo(collect(fake_sweep.folder))
    assert found["aipo model=mistral"] == (pytest.approx(250 / 400), pytest.approx(0.0, abs=1e-9))
    assert all(math.isnan(value) for value in found["aipo model=llama"])


def test_one_variant_of_dpo_on_a_model_serves_every_variant_there(fake_sweep) -> None:
    """AIPO has two alphas on either model and DPO none."""
    for model, growth in (("mistral", 10.0), ("llama", 20.0)):
        _hub_job(fake_sweep, "dpo", model, growth)
        for alpha in (1, 3):
            _hub_job(fake_sweep, "aipo", model, growth / 2 * alpha, f"objective.loss.alpha={alpha}")
    found = {name: ratio for name, (ratio, _) in _over_dpo(collect(fake_sweep.folder)).items()}
    assert found == {
        "aipo model=llama,objective.loss.alpha=1": pytest.approx(400 / 700),
        "aipo model=llama,objective.loss.alpha=3": pytest.approx(1000 / 700),
        "aipo model=mistral,objective.loss.alpha=1": pytest.approx(250 / 400),
        "aipo model=mistral,objective.loss.alpha=3": pytest.approx(550 / 400),
    }
