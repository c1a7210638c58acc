"""The tables: exact values, means over seeds, honest denominators, one judge each."""

from __future__ import annotations

import html
import io
import math
import re
import shutil
import subprocess
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo.records import Metric
from analysis import comparisons, escape, findings, plots, published, tables
from analysis.collect import AnalysisError, collect
from analysis.summary import over_seeds, points, student_t
from analysis.table import Table, number


def scored(fake_sweep, values, *, seed=0, objective="dpo", judge=None, unscored=0, interval=(1.0, 2.0), **options):
    """A job with these (score, length) of `mt_bench`, from iteration `first` on."""
    run_points = []
    for iteration, (score, length) in enumerate(values, start=options.pop("first", 0)):
        metrics = [
            Metric("rating", score, interval, 10 - unscored, unscored),
            Metric("mean_tokens", length, None, 10, 0),
        ]
        digest = fake_sweep.score((objective, seed, iteration, str(options)), metrics, judge=judge)
        keys = ("policy", "pairs", "reference", "train")
        run_points.append({"iteration": iteration, **dict.fromkeys(keys), "scores": {"mt_bench": digest}})
    fake_sweep.job(objective, seed, benchmarks=("mt_bench",), points=run_points, **options)


def row_of(table, **wanted):
    data = table.data
    for column, value in wanted.items():
        data = data[data[column] == value]
    assert len(data) == 1
    return data.iloc[0]


def test_one_seed_shows_the_benchmarks_own_interval(fake_sweep):
    scored(fake_sweep, [(5.5, 20.0), (6.25, 31.0)], unscored=3, interval=(5.0, 7.0))
    table = tables.score_table(collect(fake_sweep.folder), "mt_bench")
    assert table.header[:4] == ("objective", "seed", "round", "score: rating (1–10)")
    assert table.cells[1] == ("DPO", "0", "2", "6.25", "5.00 to 7.00", "31.0", "7 / 10")
    row = row_of(table, round="2")
    assert (row["score"], row["length"], row["interval"], row["n_scored"], row["n_total"]) == (
        6.25,
        31,
        "questions",
        7,
        10,
    )
    assert "6 verdicts could not be read and enter no score." in table.notes


def test_several_seeds_show_mean_sd_and_students_t(fake_sweep):
    for seed, (score, length) in enumerate([(6.0, 30.0), (7.0, 33.0), (8.0, 36.0)]):
        scored(fake_sweep, [(score, length)], seed=seed)
    table = tables.score_table(collect(fake_sweep.folder), "mt_bench")
    # Mean 7, sample sd 1; t(2 degrees, 0.975) = 4.30265, so the half width is 4.30265 / sqrt(3) = 2.48414.
    assert table.cells[0][:3] == ("DPO", "0, 1, 2", "1")
    assert table.cells[0][3:] == ("7.00 ± 1.00", "4.52 to 9.48", "33.0 ± 3.0", "10 / 10")
    row = row_of(table, round="1")
    assert row["ci95_high"] - row["score"] == pytest.approx(2.484138, abs=1e-6)
    assert len(row["fingerprints"].split()) == 3 == row["n_seeds"]
    assert (row["n_scored"], row["n_total"]) == (10, 10)  # three seeds answer the same ten questions


@pytest.mark.parametrize(("cut", "warned"), [({"dpo": 30.0, "aipo": 2.0}, True), ({"dpo": 4.0, "aipo": 2.0}, False)])
def test_the_share_of_cut_answers_is_shown_and_warned_of(fake_sweep, cut, warned):
    for objective, last in cut.items():
        run_points = []
        for iteration, share in enumerate((0.0, last)):
            metrics = [Metric("rating", 5.0, (4.0, 6.0), 10, 0), Metric("mean_tokens", 20.0, None, 10, 0)]
            digest = fake_sweep.score((objective, iteration), [*metrics, Metric("truncated_share", share, None, 10, 0)])
            keys = dict.fromkeys(("policy", "pairs", "reference", "train"))
            run_points.append({"iteration": iteration, **keys, "scores": {"mt_bench": digest}})
        fake_sweep.job(objective, 0, benchmarks=("mt_bench",), points=run_points)
    sweep = collect(fake_sweep.folder)
    table = tables.score_table(sweep, "mt_bench")
    column = table.header.index("cut at the token limit (%)")
    assert table.header[column - 1].startswith("mean length")
    shown = {(cell[0], cell[2]): float(cell[column]) for cell in table.cells}
    assert shown == {(name, rounds): value for name, last in (("DPO", cut["dpo"]), ("AIPO", cut["aipo"]))
                     for rounds, value in (("1", 0.0), ("2", last))}  # fmt: skip
    told = [line for line in findings.warnings(sweep, ["mt_bench"]) if "cut at the token limit" in line]
    assert len(told) == warned and all("(benchmark.mt_bench)" in line for line in told)
    assert all("(DPO 30 %)" in line for line in told)


def test_student_t():
    assert [student_t(n) for n in (2, 3, 11)] == pytest.approx([12.7062, 4.30265, 2.22814], rel=1e-5)


def test_the_same_artifact_counts_once(fake_sweep):
    """A base model that does not depend on the run's seed is one policy, not three."""
    shared = fake_sweep.score(
        ("base",), [Metric("rating", 4.0, (3.0, 5.0), 10, 0), Metric("mean_tokens", 9.0, None, 10, 0)]
    )
    keys = dict.fromkeys(("policy", "pairs", "reference", "train"))
    for seed in range(3):
        base = {"iteration": -1, **keys, "scores": {"mt_bench": shared}}
        fake_sweep.job("dpo", seed, benchmarks=("mt_bench",), points=[base])
    rows = over_seeds(points(collect(fake_sweep.folder), "mt_bench"))
    assert len(rows) == 1 and rows.loc[0, "objective"] == "" and rows.loc[0, "n"] == 1
    assert (rows.loc[0, "ci95_low"], rows.loc[0, "ci95_high"], rows.loc[0, "n_total"]) == (3.0, 5.0, 10)
    assert math.isnan(rows.loc[0, "score_sd"])


def test_base_models_of_different_variants_stay_apart(fake_sweep):
    keys = dict.fromkeys(("policy", "pairs", "reference", "train"))
    for model, rating in (("small", 4.0), ("large", 6.0)):
        for objective in ("dpo", "aipo"):
            metrics = [Metric("rating", rating, None, 10, 0), Metric("mean_tokens", 9.0, None, 10, 0)]
            base = {"iteration": -1, **keys, "scores": {"mt_bench": fake_sweep.score((model,), metrics)}}
            fake_sweep.job(objective, overrides=[f"model={model}"], benchmarks=("mt_bench",), points=[base])
    rows = over_seeds(points(collect(fake_sweep.folder), "mt_bench"))
    assert list(zip(rows["objective"], rows["variant"], rows["score"], strict=True)) == [
        *(("", "model=large", 6.0), ("", "model=small", 4.0)),
    ]


def test_judges_are_never_mixed(fake_sweep):
    scored(fake_sweep, [(5.0, 20.0)], seed=0)
    scored(fake_sweep, [(6.0, 20.0)], seed=1, judge="other")
    sweep = collect(fake_sweep.folder)
    with pytest.raises(AnalysisError, match=r"mt_bench: scores by different judges.*gold: jobs 0; other: jobs 1"):
        tables.score_table(sweep, "mt_bench")


def test_the_length_only_judge_stands_beside_the_real_one(paper_sweep):
    sweep = collect(paper_sweep(("dpo",), iterations=1).folder)
    table = tables.score_table(sweep, "alpaca_eval")
    assert table.header[-4:] == (
        *("win rate (%)", "win rate (%) by judge length_only", "mean length (tokens)", "questions scored / asked"),
    )
    row = row_of(table, objective="dpo")
    assert row["by_length_only"] == pytest.approx(50 + 2 * (row["length"] - 16))
    assert len(row["fingerprints"].split()) == 2
    assert "by_length_only" not in tables.score_table(sweep, "gold").data
    assert any("it prefers the longer answer" in note for note in table.notes)
    over_seeds_of = tables.seeds_table(sweep, ["alpaca_eval", "gold"])
    column = over_seeds_of.header.index("by judge length_only")
    assert [cells[column] for cells in over_seeds_of.cells] == ["50.0", f"{row['by_length_only']:.1f}", "–", "–"]
    assert row_of(over_seeds_of, benchmark="alpaca_eval", objective="dpo")["by_length_only"] == row["by_length_only"]
    of_turns = tables.score_table(sweep, "mt_bench")
    assert "rating (1–10) by judge length_only" in of_turns.header and of_turns.header[-1] == "verdicts scored / asked"


def test_drops_and_gaps_are_in_the_footer(fake_sweep):
    fake_sweep.job("dpo", iterations=2)
    fake_sweep.job("aipo", iterations=1, status="failed", error="killed")
    table = tables.score_table(collect(fake_sweep.folder), "gold")
    assert "Pairs, DPO: 240 kept in 2 rounds (all seeds); dropped: identical 2, tie 7." in table.notes
    assert "Pairs, AIPO: 120 kept in 1 round (all seeds); dropped: identical 1, tie 3." in table.notes
    assert "Incomplete: see the report's list for jobs 1." in table.notes


def test_pairs_table_shows_the_reasons_that_applied(fake_sweep):
    for objective, seeds in (("aipo", (0,)), ("dpo", (0, 1))):
        for seed in seeds:
            fake_sweep.job(objective, seed, iterations=2, benchmarks=("gold",))
    sweep = collect(fake_sweep.folder)
    table = tables.pairs_table(sweep)
    assert table.header == ("objective", "seeds", "round", "kept", "identical", "tie")
    assert table.cells[:2] == (("DPO", "0, 1", "1", "240", "2", "6"), ("DPO", "0, 1", "2", "240", "2", "8"))
    assert table.cells[2][0] == "AIPO"
    assert "Reasons that never applied: truncated." in table.notes
    assert set(table.data["dropped_truncated"]) == {0}
    assert [len(digests.split()) for digests in table.data["fingerprints"]] == [2, 2, 1, 1]
    exact = tables.pairs_per_job(sweep)
    assert list(zip(exact["job"], exact["iteration"], exact["kept"], exact["dropped_tie"], strict=True)) == [
        *(("1", 0, 120, 3), ("1", 1, 120, 4), ("2", 0, 120, 3), ("2", 1, 120, 4), ("0", 0, 120, 3), ("0", 1, 120, 4)),
    ]


def test_seeds_table(fake_sweep):
    for seed, (dpo, aipo) in enumerate([(40.0, 30.0), (44.0, 33.0), (42.0, None)]):
        scored(fake_sweep, [(4.0, 16.0), (5.0, 20.0), (7.0 + seed, dpo)], seed=seed, first=-1)
        reached = [(5.0, 18.0)] + ([(8.0 + seed, aipo)] if aipo else [])
        status = {} if aipo else {"status": "failed", "error": "killed"}
        scored(fake_sweep, reached, objective="aipo", seed=seed, **status)
    table = tables.seeds_table(collect(fake_sweep.folder), ["mt_bench"])
    assert [cell[2:5] for cell in table.cells] == [
        ("base model", "base", "3 / 3"),
        ("DPO", "2", "3 / 3"),
        ("AIPO", "2", "2 / 3"),
    ]
    aipo = row_of(table, objective="aipo")
    assert (aipo["score"], aipo["length"], aipo["length_over_dpo"]) == (8.5, 31.5, 0.75)
    assert (aipo["n_seeds"], aipo["n_seeds_expected"], aipo["seeds"]) == (2, 3, "0 1")
    assert aipo["score_sd"] == pytest.approx(math.sqrt(0.5)) and aipo["length_over_dpo_sd"] == 0
    dpo = row_of(table, objective="dpo")
    assert (dpo["length"], dpo["length_sd"], dpo["length_over_dpo"]) == (42, 2, 1)
    assert table.cells[1][-1] == "1.00" and table.cells[2][-1] == "0.75 ± 0.00"
    assert "Incomplete: see the report's list for jobs 5." in table.notes


def test_fits_table_compares_at_one_length(fake_sweep):
    scored(fake_sweep, [(2.0, 10.0), (4.0, 20.0), (6.0, 30.0)])
    scored(fake_sweep, [(5.0, 20.0), (7.0, 25.0), (9.0, 30.0)], objective="aipo")
    scored(fake_sweep, [(5.0, 20.0), (6.0, 30.0)], objective="simpo")  # two points are no line
    sweep = collect(fake_sweep.folder)
    lines = plots.fit_lines(sweep, ["mt_bench"])
    table = tables.fits_table(sweep, lines, published.fits())
    # Lines: 0.2 x on 10..30 and 0.4 x - 3 on 20..30; common range 20..30, its middle 25.
    by_objective = table.data.set_index("objective")
    assert list(by_objective.index) == ["dpo", "aipo"]
    assert [cells[-2:] for cells in table.cells] == [("5.000", "–"), ("7.000", "2.000")]
    assert list(by_objective["score_at_common_length"][["dpo", "aipo"]]) == pytest.approx([5.0, 7.0])
    assert set(by_objective["common_length"]) == {25.0} and not by_objective["extrapolated"].any()


def test_fits_table_says_how_far_seeds_are_apart(fake_sweep):
    # Lines 0.2 x and 0.2 x + 2 on 10..30: at the middle, 20, the scores are 4 and 6, the pooled line says 5.
    scored(fake_sweep, [(2.0, 10.0), (4.0, 20.0), (6.0, 30.0)], seed=0)
    scored(fake_sweep, [(4.0, 10.0), (6.0, 20.0), (8.0, 30.0)], seed=1)
    sweep = collect(fake_sweep.folder)
    table = tables.fits_table(sweep, plots.fit_lines(sweep, ["mt_bench"]), published.fits())
    row = row_of(table, objective="dpo")
    assert row["score_at_common_length"] == pytest.approx(5)
    assert row["score_at_common_length_sd"] == pytest.approx(math.sqrt(2))
    assert table.cells[0][-1] == "5.000 ± 1.414" and any(note.startswith("±") for note in table.notes)
    # AIPO's lines lie 1 and 2 above DPO's of the same seed: 1.5 apart on average, sd sqrt(1/2).
    scored(fake_sweep, [(3.0, 10.0), (5.0, 20.0), (7.0, 30.0)], seed=0, objective="aipo")
    scored(fake_sweep, [(6.0, 10.0), (8.0, 20.0), (10.0, 30.0)], seed=1, objective="aipo")
    sweep = collect(fake_sweep.folder)
    table = tables.fits_table(sweep, plots.fit_lines(sweep, ["mt_bench"]), published.fits())
    row = row_of(table, objective="aipo")
    assert (row["over_dpo"], row["over_dpo_sd"]) == pytest.approx((1.5, math.sqrt(0.5)))
    assert [cells[-1] for cells in table.cells] == ["–", "1.500 ± 0.707"] and table.header[-1] == "minus DPO's there"


def test_recipes_without_scores_make_no_table(fake_sweep):
    for recipe in ("uf", "pairrm_uf"):
        fake_sweep.job("dpo", overrides=[f"data={recipe}"], recipe=recipe, iterations=0)
    assert comparisons.recipes_table(collect(fake_sweep.folder), ["gold"]) is None


def test_recipes_in_the_papers_order(fake_sweep):
    for recipe in ("pairrm_gen_si_uf", "uf"):
        fake_sweep.job("dpo", overrides=[f"data={recipe}"], recipe=recipe, iterations=1)
    sweep = collect(fake_sweep.folder)
    table = comparisons.recipes_table(sweep, ["gold", "alpaca_eval"])
    assert [cell[:4] for cell in table.cells] == [
        ("UF", "UF", "DPO", "1"),
        ("SI(UF)", "PairRM(Gen(SI(UF)))", "DPO", "1"),
    ]
    last = sweep.scores.query("recipe == 'uf' and iteration == 0 and diagnostic == '' and metric == 'lc_win_rate'")
    assert table.data.loc[0, "alpaca_eval_score"] == last["value"].item()
    assert "AlpacaEval 2 (miniature): win rate (%) by judge length_only" in table.header
    assert comparisons.paper_table(sweep, ["gold", "alpaca_eval"]) is None


def test_paper_numbers_stand_in_their_own_column(fake_sweep):
    for recipe in ("pairrm_uf", "uf"):
        fake_sweep.job(
            "dpo", overrides=[f"data={recipe}"], recipe=recipe, iterations=1, model="mistral_7b_instruct_v02",
            benchmarks=("alpaca_eval",), official=True,
        )  # fmt: skip
    table = comparisons.paper_table(collect(fake_sweep.folder), ["alpaca_eval"])
    row = row_of(table, row="uf", metric="lc_win_rate")
    assert row["paper"] == 20.4 and row["difference"] == pytest.approx(row["measured"] - 20.4)
    assert set(table.data["metric"]) == {"lc_win_rate", "win_rate", "mean_chars"} and len(table.data) == 6


def test_the_miniature_is_never_held_against_the_papers_numbers(fake_sweep):
    fake_sweep.job("aipo", iterations=3, benchmarks=["arena_hard"], overrides=["scale=miniature"])
    sweep = collect(fake_sweep.folder)
    table = tables.fits_table(sweep, plots.fit_lines(sweep, ["arena_hard"]), published.fits())
    assert table.data["paper_slope"].isna().all() and "slope (paper)" not in table.header
    assert table.cells[0][0] == "Arena-Hard (miniature)"
    fake_sweep.job("aipo", iterations=3, benchmarks=["arena_hard"], overrides=["scale=paper"], official=True)
    with pytest.raises(AnalysisError, match="different judges or on different questions"):
        tables.score_table(collect(fake_sweep.folder), "arena_hard")


def test_official_slopes_stand_beside_the_papers(fake_sweep):
    fake_sweep.job("aipo", iterations=3, official=True, benchmarks=["arena_hard"])
    sweep = collect(fake_sweep.folder)
    table = tables.fits_table(sweep, plots.fit_lines(sweep, ["arena_hard"]), published.fits())
    assert table.cells[0][0] == "Arena-Hard" and table.cells[0][-1] == "0.1835"


def test_a_policy_without_a_readable_verdict_enters_no_mean(fake_sweep):
    for seed, score in enumerate((6.0, 8.0, math.nan)):
        scored(fake_sweep, [(score, 30.0 + seed)], seed=seed, unscored=10 if math.isnan(score) else 0)
    row = tables.score_table(collect(fake_sweep.folder), "mt_bench").cells[0]
    assert row[1] == "0, 1" and row[3] == "7.00 ± 1.41" and row[-2:] == ("30.5 ± 0.7", "0 / 10")


def test_formats_show_hostile_text_literally(fake_sweep, tmp_path):
    hostile = "<script>a|b</script> & $x_1$ \\input{x} `c` [d](e)\n# f"
    scored(fake_sweep, [(5.0, 20.0)], objective=hostile)
    scored(fake_sweep, [(5.0, 20.0)])
    table = tables.score_table(collect(fake_sweep.folder), "mt_bench")
    csv, md, tex = (path.read_text(encoding="utf-8") for path in table.write(tmp_path))
    assert hostile in set(pd.read_csv(io.StringIO(csv))["objective"])
    row = next(line for line in md.splitlines() if "script" in line and line.startswith("|"))
    assert row.count("|") - row.count("\\|") == len(table.header) + 1
    assert "&lt;script&gt;a\\|b&lt;/script&gt; &amp; \\$x\\_1\\$ \\\\input{x} \\`c\\` \\[d\\](e) \\# f" in row
    line = next(line for line in tex.splitlines() if "script" in line and line.endswith("\\\\"))
    assert r"\textless{}script\textgreater{}a\textbar{}b\textless{}/script\textgreater{} \&" in line
    assert r"\$x\_1\$ \textbackslash{}input\{x\}" in line


@given(st.text(max_size=40))
def test_no_text_escapes_its_cell(text):
    shown = escape.markdown(text)
    assert not re.search(r"[<>\n]", shown)
    # Every character with a meaning has an odd number of backslashes before it.
    assert all(len(run) % 2 for run in re.findall(r"(?<!\\)(\\*)[`*_\[\]|#~$]", shown))
    assert html.unescape(re.sub(r"\\(.)", r"\1", shown)) == escape.one_line(text)
    tex = escape.latex(text)
    assert not re.search(r"(?<!\\)[%&#_](?!})", tex) and "\n" not in tex
    # A row's end may take an option in brackets or a star: neither begins a cell.
    assert not tex.startswith(("[", "*"))


def test_every_format_names_the_fingerprints(paper_sweep, tmp_path):
    table = tables.score_table(collect(paper_sweep(("dpo",), iterations=1).folder), "mt_bench")
    assert len(table.fingerprints) == 4  # base and iteration 0, by the judge and by the length-only judge
    for path in table.write(tmp_path):
        text = path.read_text(encoding="utf-8")
        assert all(digest in text for digest in table.fingerprints), path
    many = replace(table, fingerprints=tuple(f"{number:016x}" for number in range(25)))
    assert "Behind it: 25 artifacts, whose fingerprints are in sources.json." in many.markdown()


def hostile_table() -> Table:
    texts = ("[option]", "*star", "~^_%{}\\", "‡†±−×α–…", "100 % $5 #1", "a & b <c> |d|", "\\end{tabular}")
    cells = tuple((text, text) for text in texts)
    data = pd.DataFrame({"a": texts, "fingerprints": ["f"] * len(texts)})
    return Table("hostile", "T & Co_", data, ("[h]", "win rate (%) by judge length_only"), cells, texts, ("abc",))


def test_latex_by_hand() -> None:
    lines = hostile_table().latex().splitlines()
    assert lines[:6] == [
        *(
            "% Needs \\usepackage{booktabs,graphicx}.",
            "% Fingerprints of the artifacts behind it: abc",
            "\\begin{table}",
            "\\centering",
        ),
        *("\\caption{T \\& Co\\_}", "\\sbox0{%"),
    ]
    assert "{[}h] & \\shortstack[r]{win rate (\\%) by \\\\ judge length\\_only} \\\\" in lines
    assert "{[}option] & {[}option] \\\\" in lines and "{*}star & {*}star \\\\" in lines
    assert r"\textbackslash{}end\{tabular\} & \textbackslash{}end\{tabular\} \\" in lines


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path) -> None:
    hostile_table().write(tmp_path)
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs,graphicx}\n"
        "\\begin{document}\\input{hostile.tex}\\end{document}\n",
        encoding="utf-8",
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_numbers_as_shown():
    shown = [number(value, 1) for value in (-1234.56, -0.04, 0.05, None, math.nan)]
    assert shown == ["−1,234.6", "0.0", "0.1", "–", "–"]
