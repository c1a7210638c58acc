"""The whole analysis: what it writes, that it is reproducible, light, and honest about what is missing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from analysis import analyse, plots, sheets, style
from analysis.__main__ import main
from analysis.collect import AnalysisError, collect
from analysis.legend import ROW_INCHES, draw_legend, legend_columns
from analysis.stamp import STAMP

REPOSITORY = Path(__file__).resolve().parents[2]


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "jobs" not in path.parts]
    files = [path for path in files if path.name != STAMP]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def analysed(small_sweep):
    """The small sweep's folder after one analysis, what that printed, and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(small_sweep.folder)])
    return small_sweep.folder, code, out.getvalue(), err.getvalue()


def test_everything_is_written_and_sourced(analysed):
    folder, _, printed, _ = analysed
    names = ("alpaca_eval", "contrasts_alpaca_eval", "curves_alpaca_eval", "seeds", "pairs")
    expected = {f"tables/{name}.{suffix}" for name in names for suffix in ("csv", "md", "tex")}
    expected |= {f"tables/{name}.csv" for name in ("scores", "agreement", "pairs_per_job")}
    expected |= {"report.md", "index.html", "verdict.json", "sources.json"}
    figures = ("headline", "length_per_iteration", "length_vs_score", "paper_length_vs_score")
    figures += ("score_per_iteration", "agreement")
    expected |= {f"plots/{name}.png" for name in figures}
    assert set(contents(folder)) == expected and f"{len(expected)} files in" in printed
    sources = json.loads((folder / "sources.json").read_text(encoding="utf-8"))
    assert set(sources["files"]) == expected - {"sources.json"}
    known = {path.parent.name for path in folder.parents[1].glob("outputs/*/*/manifest.json")}
    for name, digests in sources["files"].items():
        assert digests and set(digests) <= known, name
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert re.findall(r"!\[[^]]*\]\(([^)]*)\)", page) == [f"plots/{name}.png" for name in figures]


def test_figures_name_their_fingerprints(analysed):
    folder = analysed[0]
    sources = json.loads((folder / "sources.json").read_text(encoding="utf-8"))["files"]
    for name in ("length_vs_score", "agreement"):
        picture = folder / "plots" / f"{name}.png"
        with Image.open(picture) as image:
            text, dpi, size = image.text, image.info["dpi"], image.size
        assert text == {"Description": "fingerprints: " + " ".join(sources[f"plots/{name}.png"])}
        assert round(dpi[0]) == 200 and size[0] >= 1000


def test_pdf_on_demand_and_gone_without(analysed):
    folder = analysed[0]
    before = contents(folder)
    analyse(folder, pdf=True)
    sources = json.loads((folder / "sources.json").read_text(encoding="utf-8"))["files"]
    pictures = {path.stem: path for path in folder.glob("plots/*.png")}
    assert pictures.pop("paper_length_vs_score").with_suffix(".pdf").exists()  # read off the paper, of no artifact
    for picture in pictures.values():
        document = picture.with_suffix(".pdf").read_bytes()
        digests = sources[f"plots/{picture.stem}.pdf"]
        assert all(digest.encode() in document for digest in digests) and b"Date" not in document
    analyse(folder)
    assert contents(folder) == before


def test_nothing_is_drawn_twice(analysed, monkeypatch):
    """The same content, code and files: nothing is written. A touched file or other code: everything is."""
    folder = analysed[0]
    drawn = []
    save = plots.save
    monkeypatch.setattr(plots, "save", lambda *a, **k: drawn.append(1) or save(*a, **k))
    written, times = analyse(folder), {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    assert analyse(folder) == written and not drawn
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == times
    for path in folder.glob("jobs/*/run.json"):  # the same job again, by another process
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(content | {"started": "2026-11-25T01:51:50Z", "pid": 4711}), encoding="utf-8")
    assert analyse(folder) == written and not drawn
    first = contents(folder)
    for touch in (
        lambda: (folder / "tables" / "scores.csv").write_text("edited", encoding="utf-8"),
        lambda: (folder / "plots" / "agreement.png").unlink(),
        lambda: (folder / STAMP).write_text("[]", encoding="utf-8"),
        lambda: monkeypatch.setattr("analysis.stamp._code_hash", lambda: "another version"),
    ):
        touch()
        drawn.clear()
        assert analyse(folder) == written and len(drawn) == 5
        assert contents(folder) == first


def test_another_process_writes_the_same_bytes_without_torch(analysed):
    folder = analysed[0]
    first = contents(folder)
    (folder / STAMP).unlink()
    code = (
        "import sys; from pathlib import Path; from analysis import analyse; analyse(Path(sys.argv[1])); "
        "print([name for name in ('torch', 'transformers', 'matplotlib.pyplot', 'seaborn') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(folder)]
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.strip() == "[]"
    second = contents(folder)
    assert [name for name in first if first[name] != second[name]] == [] and first.keys() == second.keys()


def test_failed_job_is_shown_escaped_and_sets_the_exit_code(analysed):
    folder, code, _, printed = analysed
    assert code == 3
    assert "missing: job 4: failed: <b>|loss|</b> (shown up to round 1)" in printed
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "4 of 5 jobs are done." in page
    assert "- job 4: failed: &lt;b&gt;\\|loss\\|&lt;/b&gt; (shown up to round 1)" in page
    assert "| SimPO |" in page


def test_help_imports_nothing_heavy():
    code = "import sys, analysis.__main__ as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'pandas', 'numpy', 'matplotlib') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]" and "results/<sweep>" in result.stdout


def test_complete_sweep_exits_with_zero(fake_sweep, capsys):
    fake_sweep.job("dpo", iterations=0, benchmarks=("gold",))
    assert main([str(fake_sweep.folder)]) == 0
    assert "start with" in capsys.readouterr().out


def test_bad_folders_exit_with_one(tmp_path, capsys):
    assert main([str(tmp_path / "absent")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 1
    assert "no runs in it" in capsys.readouterr().err


def test_a_sweep_without_scores_still_reports_its_jobs(fake_sweep):
    fake_sweep.job("dpo", status="failed", error="out of memory", points=[], benchmarks=())
    analyse(fake_sweep.folder)
    assert set(contents(fake_sweep.folder)) == {
        "report.md", "index.html", "verdict.json", "sources.json", "tables/scores.csv"
    }  # fmt: skip
    assert "out of memory (no point reached)" in (fake_sweep.folder / "report.md").read_text(encoding="utf-8")


def test_a_sweep_of_base_models_alone(fake_sweep):
    fake_sweep.job("dpo", iterations=0)
    names = set(map(str, analyse(fake_sweep.folder)))
    assert not any("/plots/" in name for name in names)
    assert "| base model | 0 | base |" in (fake_sweep.folder / "tables" / "gold.md").read_text(encoding="utf-8")


def test_two_judges_get_a_table_each(fake_sweep):
    fake_sweep.job("dpo", iterations=0, benchmarks=("mt_bench", "gold"))
    fake_sweep.judge = "gpt/4"
    fake_sweep.job("dpo", iterations=0, benchmarks=("mt_bench",), overrides=["judge=other"])
    analyse(fake_sweep.folder)
    names = {path.stem for path in (fake_sweep.folder / "tables").glob("*.csv")}
    assert names == {"gold", "mt_bench__0_gold", "mt_bench__1_gpt_4", "seeds", "scores"}
    seeds = (fake_sweep.folder / "tables" / "seeds.csv").read_text(encoding="utf-8")
    assert "gold_score" in seeds and "rating" not in seeds
    assert "was graded in 2 ways (judge, questions)" in (fake_sweep.folder / "report.md").read_text(encoding="utf-8")


def test_files_of_an_earlier_analysis_go_others_stay(fake_sweep):
    fake_sweep.job("dpo", iterations=0)
    analyse(fake_sweep.folder)
    notes = fake_sweep.folder / "tables" / "my_notes.md"
    notes.write_text("mine")
    outside = fake_sweep.folder.parent / "precious.txt"
    outside.write_text("keep")
    sources = fake_sweep.folder / "sources.json"
    listed = json.loads(sources.read_text(encoding="utf-8"))
    listed["files"]["../precious.txt"] = []
    sources.write_text(json.dumps(listed), encoding="utf-8")
    (fake_sweep.folder / "jobs" / "0" / "run.json").unlink()
    fake_sweep.job("dpo", iterations=0, benchmarks=("gold",))
    analyse(fake_sweep.folder)
    assert {path.stem for path in (fake_sweep.folder / "tables").glob("*.md")} == {"gold", "seeds", "my_notes"}
    assert outside.read_text() == "keep"


def test_unreadable_sources_are_written_anew(fake_sweep):
    fake_sweep.job("dpo", iterations=0, benchmarks=("gold",))
    analyse(fake_sweep.folder)
    expected = (fake_sweep.folder / "sources.json").read_bytes()
    (fake_sweep.folder / "sources.json").write_text("[", encoding="utf-8")
    analyse(fake_sweep.folder)
    assert (fake_sweep.folder / "sources.json").read_bytes() == expected


def test_primary_metric_missing_from_the_artifact(fake_sweep):
    fake_sweep.job("dpo", iterations=0, benchmarks=("gold",))
    run = fake_sweep.folder / "jobs" / "0" / "run.json"
    run.write_text(run.read_text(encoding="utf-8").replace('"gold_score"', '"quality"'), encoding="utf-8")
    with pytest.raises(AnalysisError, match="names the metric 'quality', but the artifact has only"):
        analyse(fake_sweep.folder)


def test_colours_are_fixed_by_name_and_distinct():
    assert style.colours(["aipo", "dpo"]) == {"aipo": "#D55E00", "dpo": "#0072B2"}
    alone = style.colours(["orpo"])
    assert style.colours(["dpo", "orpo"])["orpo"] == alone["orpo"]
    many = style.colours(
        ["dpo", "dpo_nll", "simpo", "alpha_dpo", "aipo", "orpo", "cpo", "kto", "sppo", "exo", "nca", "r_dpo"]
    )
    assert len(set(many.values())) == len(many)


def test_variants_of_an_objective_differ_in_look(fake_sweep):
    for alpha in ("0.03", "0.07", "0.3"):
        fake_sweep.job("aipo", iterations=1, benchmarks=("gold",), overrides=[f"objective.loss.alpha={alpha}"])
    looks = plots.looks_of(plots.points(collect(fake_sweep.folder), "gold"))
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == 3
    assert style.series_name("aipo", "objective.loss.alpha=0.3,a.b=[1,2]") == "AIPO [alpha=0.3,b=[1,2]]"


def test_names_with_dollar_signs_are_drawn_as_they_are(fake_sweep):
    fake_sweep.job("$\\broken{$", iterations=1, benchmarks=("gold",), n_pairs=5)
    sweep = collect(fake_sweep.folder)
    with plots.style_context():
        figure = plots.new_figure(3, 2)
        figure.subplots().set_title("$\\broken{$")
        draw_legend(figure, {"$\\broken{$": {"color": "black", "marker": "o"}}, base=False)
        figure.draw_without_rendering()
    assert list(plots.looks_of(plots.points(sweep, "gold"))) == [("$\\broken{$", "")]


def test_legend_is_as_wide_as_the_figure_allows():
    names = ["DPO", "DPO+NLL", "SimPO", "base model"]
    # 0.65 inches an entry and 0.075 a letter: 4 * 0.65 + 25 * 0.075 = 4.475 in one row.
    assert legend_columns(names, 4.5) == 4
    # In three columns DPO and DPO+NLL share the first: 1.175 + 1.025 + 1.4 = 3.6. In two: 1.175 + 1.4 = 2.575.
    assert legend_columns(names, 4.4) == 3
    assert legend_columns(names, 3.5) == 2
    assert legend_columns(["a very long name"] * 3, 1.0) == 1


def test_a_figure_grows_by_the_legend_rows_that_it_has_no_room_for():
    heights = {}
    for n in (2, 4, 9):
        with plots.style_context():
            figure = plots.new_figure(4.5, 3.0)
            figure.subplots()
            draw_legend(figure, {f"a variant with a long name {i}": {"color": "black"} for i in range(n)}, base=False)
            heights[n] = figure.get_figheight()
    assert heights[2] == 3.0 and heights[4] == pytest.approx(3.0 + 2 * ROW_INCHES)
    assert heights[9] == pytest.approx(3.0 + 7 * ROW_INCHES)


def test_labels_stand_clear_of_markers():
    alone = plots.free_side((30.0, 0.8), [(30.0, 0.8), (14.0, 0.5)])
    assert alone == (9.5, -7.5)
    # A marker down to the right, one hundredth of the panel away, moves the label elsewhere.
    crowded = plots.free_side((30.0, 0.8), [(30.0, 0.8), (14.0, 0.5), (30.6, 0.788)])
    assert crowded != alone


def test_the_papers_lines_are_drawn_only_beside_its_own_model(fake_sweep, tmp_path):
    fake_sweep.job("aipo", iterations=3, official=True, benchmarks=["arena_hard"], model="mistral_nemo_instruct_2407")
    sweep = collect(fake_sweep.folder)
    lines = sheets.comparable_lines(sweep, ["arena_hard"])
    assert set(lines["benchmark"]) == {"arena_hard"} and len(lines) == 5
    fits = plots.fit_lines(sweep, ["arena_hard"])
    with_lines = plots.length_vs_score(sweep, ["arena_hard"], fits, tmp_path / "a", paper=lines)[0]
    without = plots.length_vs_score(sweep, ["arena_hard"], fits, tmp_path / "b", paper=None)[0]
    assert with_lines.read_bytes() != without.read_bytes()
    fake_sweep.job("dpo", iterations=1, official=True, benchmarks=["arena_hard"], model="gemma_2_27b_it")
    assert sheets.comparable_lines(collect(fake_sweep.folder), ["arena_hard"]).empty


def test_numbers_in_variants_go_by_value():
    variants = ["", "n=10", "n=2", "n=0.5,a=x", "n=1e-3"]
    ordered = sorted(variants, key=lambda variant: style.series_order("aipo", variant))
    assert ordered == ["", "n=1e-3", "n=0.5,a=x", "n=2", "n=10"]
    assert style.series_order("dpo", "z") < style.series_order("aipo", "a") < style.series_order("my_own", "")
