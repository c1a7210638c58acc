"""Recipes and the paper's numbers beside measured ones, in sweeps that vary more than the recipe or the model."""

from __future__ import annotations

import pytest

from analysis import comparisons
from analysis.collect import collect


def test_an_ablation_is_not_averaged_into_the_number_held_against_the_papers(fake_sweep):
    """Three alphas of one seed are three rows, not one mean "over seeds"."""
    for alpha in ("0.03", "0.07", "0.3"):
        fake_sweep.job(
            "aipo", overrides=[f"objective.loss.alpha={alpha}"], iterations=1, model="mistral_nemo",
            benchmarks=("alpaca_eval",), official=True, diagnostic=False,
        )  # fmt: skip
    sweep = collect(fake_sweep.folder)
    table = comparisons.paper_table(sweep, ["alpaca_eval"])
    rows = table.data[table.data["metric"] == "lc_win_rate"]
    assert list(rows["variant"]) == [f"objective.loss.alpha={alpha}" for alpha in ("0.03", "0.07", "0.3")]
    measured = sweep.scores.query("metric == 'lc_win_rate' and iteration == 0").set_index("variant")["value"]
    assert list(rows["measured"]) == [pytest.approx(measured[variant]) for variant in rows["variant"]]
    assert table.header[2] == "variant" and table.text_columns == 5


def test_settings_within_a_recipe_are_rows_of_their_own(fake_sweep):
    """Two thresholds of one filter are no seeds of it."""
    for recipe, share in (("uf", "0.1"), ("uf", "0.2"), ("pairrm_uf", "0.1")):
        overrides = [f"data={recipe}", f"data.filters.share={share}"]
        fake_sweep.job("dpo", overrides=overrides, recipe=recipe, iterations=1, benchmarks=("gold",))
    table = comparisons.recipes_table(collect(fake_sweep.folder), ["gold"])
    found = list(zip(table.data["recipe"], table.data["variant"], strict=True))
    assert found == [("uf", "data.filters.share=0.1"), ("uf", "data.filters.share=0.2"), ("pairrm_uf", "")]
    assert table.data["gold_score_sd"].isna().all()


def test_the_last_round_says_how_many_of_the_seeds_it_is_of(fake_sweep):
    """One of three seeds has come to round 2, and of the other recipe all two."""
    options = {"benchmarks": ("alpaca_eval",), "official": True, "diagnostic": False, "model": "mistral_7b"}
    for seed, rounds in ((0, 2), (1, 1), (2, 1)):
        fake_sweep.job("dpo", seed, iterations=rounds, recipe="uf", overrides=["data=uf"], **options)
    for seed in (0, 1):
        fake_sweep.job("dpo", seed, iterations=2, recipe="pairrm_uf", overrides=["data=pairrm_uf"], **options)
    sweep = collect(fake_sweep.folder)
    table = comparisons.recipes_table(sweep, ["alpaca_eval"])
    place = table.header.index("seeds")
    assert [cell[place - 1 : place + 1] for cell in table.cells] == [("2", "1 / 3"), ("2", "2 / 2")]
    assert table.data["alpaca_eval_n_seeds"].tolist() == [1, 2] and table.data["n_seeds_expected"].tolist() == [3, 2]
    paper = comparisons.paper_table(sweep, ["alpaca_eval"])
    shown = {(cell[1], cell[paper.header.index("seeds")]) for cell in paper.cells}
    assert shown == {("uf", "1 / 3"), ("pairrm_uf", "2 / 2")}
    assert set(zip(paper.data["n_seeds"], paper.data["n_seeds_expected"], strict=True)) == {(1, 3), (2, 2)}
    for one in (table, paper):
        assert any(note.startswith("seeds: those scored after this round / all of the sweep.") for note in one.notes)
