"""conf/experiment and experiments/: each composes, passes the check, can be planned and runs in the miniature."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from composing import composed
from omegaconf import open_dict

from aipo.pipeline.check import check
from aipo.pipeline.loop import walk
from aipo.pipeline.run import build_run
from aipo.pipeline.sweep import combinations
from aipo.planning.estimate import sweep_totals
from aipo.planning.report import duration
from analysis.league import Choice, commands

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
SMALL = [
    "model.steps=30", "model.n_documents=400", "iteration.prompts=24", "benchmark=[gold]",
    "benchmark.gold.n_questions=16",
]  # fmt: skip


def _jobs(*overrides: str) -> list[list[str]]:
    """The override lists of the jobs that `python run.py -m <overrides>` starts."""
    config = composed(*(item for item in overrides if "," not in item), with_hydra=True)
    with open_dict(config):
        config.hydra.overrides.task = list(overrides)
    return list(combinations(config))


def _checked(overrides: list[str]) -> dict:
    return check(composed(*overrides))


def _sweep(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    where = [f"store.root={folder}/outputs", f"hydra.sweep.dir={folder}/sweep"]
    return subprocess.run(
        [sys.executable, "run.py", "-m", *overrides, *where],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=1500,
    )  # fmt: skip


def _table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "sweep" / "tables" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


SIZES = {
    "recipes": 4,
    "length_vs_score": 5,
    "headline": 4,
    "ablation_alpha": 5,
    "ablation_lambda": 5,
    "ablation_beta": 4,
    "ablation_candidates": 4,
    "ablation_temperature": 3,
    "ablation_ranker": 3,
    "ablation_reference": 3,
    "smoke": 1,
    "league": 186,
}
"""Jobs of each experiment in the miniature."""


def test_these_are_the_experiments() -> None:
    assert sorted(SIZES) == EXPERIMENTS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_job_passes_the_check_and_differs_from_the_others(name: str) -> None:
    jobs = _jobs(f"+experiment={name}", "scale=miniature")
    assert len(jobs) == len(set(map(tuple, jobs))) == SIZES[name]
    tried = jobs[:: max(1, len(jobs) // 30)]  # of the league every sixth, which are all objectives
    assert len({json.dumps(_checked(job), sort_keys=True) for job in tried}) == len(tried)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_can_be_planned(name: str, tmp_path: Path) -> None:
    config = _checked(_jobs(f"+experiment={name}", f"store.root={tmp_path / 'none'}")[-1])
    stages = [event.stage for event in walk(build_run(config))]
    assert stages.count("train") == config["iteration"]["iterations"]
    assert not (tmp_path / "none").exists()


def test_the_papers_values_are_in_the_grids() -> None:
    def swept(name: str, key: str) -> set[str]:
        given = [item for job in _jobs(f"+experiment={name}") for item in job]
        return {item.split("=")[1] for item in given if item.startswith(f"{key}=")}

    assert "0.07" in swept("ablation_alpha", "objective.loss.alpha")
    assert "0.2" in swept("ablation_lambda", "objective.loss.nll_weight")
    assert "0.1" in swept("ablation_beta", "objective.loss.beta")
    assert "5" in swept("ablation_candidates", "iteration.candidates")
    assert "0.4" in swept("ablation_temperature", "iteration.decoding.temperature")
    assert swept("length_vs_score", "objective") == {"dpo", "dpo_nll", "simpo", "alpha_dpo", "aipo"}
    assert swept("recipes", "data") == {"uf", "pairrm_uf", "pairrm_gen_uf", "pairrm_gen_si_uf"}


def test_the_figure_and_the_recipes_are_the_papers_at_its_scale() -> None:
    figure = [composed(*job) for job in _jobs("+experiment=length_vs_score", "scale=paper")]
    assert {config.model.path for config in figure} == {"mistralai/Mistral-Nemo-Instruct-2407"}
    assert {config.iteration.prompts for config in figure} == {20000} and len(figure) == 5
    recipes = [composed(*job) for job in _jobs("+experiment=recipes", "scale=paper")]
    assert {config.model.path for config in recipes} == {"mistralai/Mistral-7B-Instruct-v0.2"}
    assert [config.iteration.prompts for config in recipes] == [None, None, None, 20000]
    assert [config.data.source.path.split("/")[1] for config in recipes] == [
        "ultrafeedback_binarized", "UltraFeedback", "ultrafeedback_binarized", "ultrafeedback_binarized"
    ]  # fmt: skip
    paper = recipes[0]
    assert paper.benchmark.arena_hard.judge_max_tokens == 1024
    assert paper.benchmark.mt_bench.assets.references == "gpt-4-1106-preview"
    assert paper.data.self_instruct.tasks_per_call == 1 and paper.data.filters.min_prompt_tokens == 3


def test_an_experiment_wins_over_the_scale_and_the_command_line_over_both() -> None:
    given = ("+experiment=length_vs_score", "scale=miniature")
    assert composed("scale=miniature").iteration.iterations == 15
    assert composed(*given).iteration.iterations == 15
    assert composed(*reversed(given)).iteration.iterations == 15
    assert composed(*given, "iteration.iterations=2").iteration.iterations == 2
    assert composed("+experiment=recipes").objective.name == "dpo"
    assert composed("+experiment=recipes", "objective=simpo").objective.name == "simpo"
    objectives = [_checked(job)["objective"]["name"] for job in _jobs(*given, "objective=dpo,kto")]
    assert objectives == ["dpo", "kto"]


def test_the_league_has_every_objective_and_its_confirming_commands_pass_the_check() -> None:
    swept = {item for job in _jobs("+experiment=league") for item in job if item.startswith("objective=")}
    everything = {path.stem for path in (ROOT / "conf" / "objective").glob("*.yaml")}
    assert swept == {f"objective={name}" for name in everything}
    lines = commands([Choice(name, 1e-3, 0.0, True, 3) for name in ("dpo", "r_dpo", "simpo")], "5")
    names = [
        _checked(["+experiment=league", *job])["objective"]["name"] for line in lines for job in _jobs(*line.split())
    ]
    assert names == ["dpo", "r_dpo", "simpo", "dpo_placebo", "r_dpo_flipped", "simpo_low_beta"]


def test_the_jobs_of_an_experiment_run_and_get_their_table(tmp_path: Path) -> None:
    small = [*SMALL, "iteration.iterations=1", "iteration.candidates=2", "tracker=jsonl"]
    result = _sweep(tmp_path, "+experiment=ablation_reference", *small)
    assert result.returncode == 0, result.stderr[-3000:]
    rows = _table(tmp_path, "gold")
    # After one round from the base model the three references are the same model: one artifact, three variants.
    assert {row["variant"] for row in rows if row["round"] == "1"} == {
        "iteration.reference=initial", "iteration.reference=previous", "iteration.reference=ema"
    }  # fmt: skip
    assert len({row["score"] for row in rows if row["round"] == "1"}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in ("smoke", "league")])
def test_every_experiment_runs_in_the_miniature(name: str, tmp_path: Path) -> None:
    result = _sweep(tmp_path, f"+experiment={name}", "scale=miniature", "iteration.iterations=2", *SMALL)
    assert result.returncode == 0, result.stderr[-3000:]
    runs = [json.loads(path.read_text()) for path in (tmp_path / "sweep").glob("jobs/*/run.json")]
    assert [run["status"] for run in runs] == ["done"] * SIZES[name]
    last = [row for row in _table(tmp_path, "gold") if row["round"] == "2"]
    assert len({(row["objective"], row["variant"]) for row in last}) == SIZES[name]
    report = (tmp_path / "sweep" / "report.md").read_text()
    assert "Missing from what follows" not in report
    if name == "recipes":
        assert [row["recipe"] for row in _table(tmp_path, "recipes")] == [
            "uf", "pairrm_uf", "pairrm_gen_uf", "pairrm_gen_si_uf"
        ]  # fmt: skip


ESTIMATED = [name for name in EXPERIMENTS if name not in ("smoke", "league")]


@pytest.mark.parametrize("name", ESTIMATED)
def test_a_scripts_estimates_are_what_a_plan_says_today(name: str, tmp_path: Path) -> None:
    """Those of the ablations were for a third of their rounds, and all left ranking out."""
    given = (f"+experiment={name}", "scale=paper", f"store.root={tmp_path}/none")
    jobs = [build_run(_checked(job)) for job in _jobs(*given)]
    totals = sweep_totals([(job, walk(job)) for job in jobs])
    script = "ablations" if name.startswith("ablation_") else name
    lines = (ROOT / "experiments" / f"{script}.sh").read_text(encoding="utf-8").splitlines()
    text = " ".join(line for line in lines if name in line) if script == "ablations" else "\n# ".join(lines)
    for part in (f" {duration(totals.hours)}", f" {duration(totals.device_hours)}", f"${totals.dollars:,.0f}"):
        assert re.search(rf"{re.escape(part)}\b", text), (part, text)


SCRIPTS = sorted((ROOT / "experiments").glob("*.sh"))


def test_an_ablation_that_there_is_not_is_refused() -> None:
    """Nothing was run, with exit status 0."""
    script = [str(ROOT / "experiments" / "ablations.sh")]
    told = subprocess.run(script, env=os.environ | {"ONLY": "ablation_alhpa"}, capture_output=True, text=True)
    assert told.returncode == 2
    assert told.stderr.startswith("ONLY=ablation_alhpa: no such ablation; choose from ablation_alpha ablation_lambda ")


def test_every_experiment_has_its_script() -> None:
    used = {name for path in SCRIPTS for name in re.findall(r"\+experiment=(\w+)", path.read_text())}
    assert used == set(EXPERIMENTS) - {"smoke"}  # which is no experiment of the paper's


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_script_is_valid_shell_and_documents_itself(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text()
    assert os.access(path, os.X_OK)
    for heading in ("Hardware:", "Estimates", "Expected"):
        assert heading in text, heading
    assert (
        "SCALE=${SCALE:-paper}" in text
        or path.stem == "laptop"
        and "scale=laptop" in text
        or "SWEEP=${1:?" in text
        or path.stem == "league"
    )
