"""A job that finds every stage done: folded into a line, without torch, and its tables and page left as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TINY = (
    *("iteration.iterations=1", "iteration.prompts=16", "iteration.candidates=2", "data=pairrm_gen_uf"),
    *("benchmark=[gold]", "benchmark.gold.n_questions=8", "kl_prompts=2", "iteration.decoding.max_new_tokens=32"),
)
HEAVY = ("torch", "transformers", "numpy", "pandas", "pyarrow", "matplotlib", "scipy")
CODE = f"""
import atexit, sys
atexit.register(lambda: print("imported:", [name for name in {HEAVY!r} if name in sys.modules]))
from aipo.command.run import command
command()
"""


def run(repository: Path, folder: Path, *overrides: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(repository), "XDG_CACHE_HOME": str(folder / "cache")}
    environment.pop("COLUMNS", None)
    done = subprocess.run(
        [sys.executable, "-c", CODE, *TINY, "sweep=s", *overrides],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def first(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("warm")
    return folder, run(repository, folder)


def test_scores_come_as_they_are_made_and_the_verdict_at_the_end(first: tuple[Path, str]) -> None:
    folder, shown = first
    lines = shown.splitlines()
    assert lines[0].startswith("job 1/1 · aipo, seed 0 · iteration.iterations=1")
    assert re.search(r"^ +round +gold +tokens +KL +time$", shown, re.MULTILINE)
    assert re.search(r"^ +base +-?0\.\d{3} +\d+\.\d +\d\d:\d\d$", shown, re.MULTILINE)
    assert re.search(r"^ +1/1 +-?0\.\d{3} +\d+\.\d +\d\.\d+ +\d\d:\d\d$", shown, re.MULTILINE)
    assert re.search(r"^base model +\S+ .* 8 +1$", shown, re.MULTILINE) and re.search(r"^AIPO +\S", shown, re.MULTILINE)
    assert "One seed decides nothing" in shown or "one seed decides nothing" in shown
    assert "page: results/s/index.html" in shown
    assert max(map(len, lines)) <= 100
    log = next(folder.glob("results/s/jobs/*/run.log")).read_text(encoding="utf-8")
    assert not re.search(r"\b[0-9a-f]{16}\b", shown) and re.search(r"train +[0-9a-f]{16}  run ", log)


def test_a_job_that_is_all_there_imports_nothing_heavy_and_writes_no_page(
    repository: Path, first: tuple[Path, str]
) -> None:
    folder, before = first
    files = {path: path.stat().st_mtime_ns for path in (folder / "results/s").glob("*") if path.is_file()}
    shown = run(repository, folder)
    assert "imported: []" in shown
    assert "0 stages made" in shown and "base model to round 1 were there already" in shown
    assert before[before.index("Gold quality") : before.index("imported")].strip() in shown
    assert {path: path.stat().st_mtime_ns for path in files} == files | {
        path: path.stat().st_mtime_ns for path in files if path.name == "submitted.json"
    }


def test_details_are_shown_on_demand_and_change_no_job(repository: Path, first: tuple[Path, str]) -> None:
    folder, _ = first
    shown = run(repository, folder, "-v")
    assert re.search(r"train +[0-9a-f]{16}  cached", shown) and max(map(len, shown.splitlines())) <= 100
    assert len(list((folder / "results/s/jobs").iterdir())) == 1
    assert "verbose" not in next(folder.glob("results/s/jobs/*/run.json")).read_text(encoding="utf-8")
    assert "imported: []" in shown


def test_a_touched_artifact_is_looked_at_again(repository: Path, first: tuple[Path, str]) -> None:
    folder, _ = first
    os.utime(next(folder.glob("outputs/scores/*/metrics.json")))
    assert "pandas" in run(repository, folder)
    assert "imported: []" in run(repository, folder)


def test_a_limited_benchmark_is_marked_and_never_compared_with_a_whole_one(
    repository: Path, first: tuple[Path, str]
) -> None:
    folder, _ = first
    alone = run(repository, folder, "limit=5", "sweep=limited")
    assert "only the first questions are asked: gold 5" in alone
    assert "Gold quality (first 5 questions only) after 1 round" in alone
    assert re.search(r"^AIPO .* 5 +1$", alone, re.MULTILINE)
    assert "Only the first questions were asked (Gold quality: 5)" in alone.replace("\n  ", " ")
    for name in ("report.md", "index.html", "tables/gold.md"):
        assert "first 5 questions only" in (folder / "results/limited" / name).read_text(encoding="utf-8"), name
    whole = folder / "results/s"
    both = run(repository, folder, "limit=5")
    assert len(list((whole / "jobs").iterdir())) == 2
    report = (whole / "report.md").read_text(encoding="utf-8")
    assert "gold was graded in 2 ways" in report.replace("\\", "") and "Gold quality" not in both
    assert len(list(whole.glob("tables/gold__*.csv"))) == 2
