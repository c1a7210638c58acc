"""`aipo search`: Optuna is asked for settings and told what the jobs gave; hopeless trials end early."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from aipo.jobs import BenchmarkRecord, states
from aipo.pipeline.quantity import quantity
from aipo.stats import score_at_length

ROOT = Path(__file__).resolve().parents[2]
BENCHMARK = BenchmarkRecord("gold", "gold_score", "mean_tokens", False)


def rows(score: float, length: float) -> list[dict]:
    other = {"iteration": 0, "benchmark": "gold", "diagnostic_judge": "length_only"}
    mine = {**other, "diagnostic_judge": None}
    return [
        {**other, "name": "gold_score", "value": 9.0},
        {**mine, "name": "gold_score", "value": score},
        {**mine, "name": "mean_tokens", "value": length},
        {**mine, "benchmark": "other", "name": "gold_score", "value": 9.0},
    ]


def test_the_quantity_is_the_last_score_or_the_score_at_a_length() -> None:
    points = [rows(0.2, 20.0), rows(0.6, 40.0)]
    assert quantity(points, BENCHMARK, None) == 0.6
    assert quantity(points, BENCHMARK, 30.0) == pytest.approx(0.4)
    assert quantity(points, BENCHMARK, 100.0) == 0.6, "it is not reached: the score at its longest"
    assert quantity([[]], BENCHMARK, None) is None


def test_a_length_that_falls_back_has_one_score() -> None:
    """Rounds of 30 and 20 tokens are one point at 25, with their mean score."""
    assert score_at_length([10, 30, 20, 40], [0.0, 0.4, 0.6, 1.0], 25.0) == pytest.approx(0.5)
    assert math.isclose(score_at_length([10.0], [0.3], 50.0), 0.3)


needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="no optuna: pip install optuna==5.0.0")


@needs_optuna
def test_hydra_s_words_become_optuna_s_space(tmp_path: Path) -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from aipo.command.search import parsed

    given = [
        "objective=aipo,dpo",
        "trainer.learning_rate=tag(log,interval(1e-4,1e-2))",
        "iteration.candidates=range(2,9,2)",
        "iteration.temperature=interval(0,1)",
        "sweep=rates",
        "iteration.iterations=2",
    ]
    search = parsed(given, 3, True, 0)
    assert search.space == {
        "objective": CategoricalDistribution(["aipo", "dpo"]),
        "trainer.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "iteration.candidates": IntDistribution(2, 8, step=2),
        "iteration.temperature": FloatDistribution(0.0, 1.0),
    }
    assert search.fixed == ("sweep=rates", "iteration.iterations=2") and search.sweep == Path("results/rates")
    with pytest.raises(ValueError, match="nothing to search"):
        parsed(["objective=dpo"], 3, True, 0)


@needs_optuna
def test_a_search_runs_here_and_divides_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ended with status 0 and nothing done, where the first trial met what it has no resources for."""
    from aipo.command.search import command

    monkeypatch.chdir(tmp_path)
    given = ["objective=aipo,dpo", "resources.training={cpus_per_task: 2}", "benchmark=[gold]"]
    assert command(given, 1, True, 0) == 2
    assert "resources: only a sweep on Slurm has jobs of the cluster to divide" in capsys.readouterr().err


@needs_optuna
def test_a_misspelt_setting_is_explained_as_a_run_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ended with Hydra's frames, and left a trial that says that it runs."""
    from aipo.command.search import command, parsed, study_of

    monkeypatch.chdir(tmp_path)
    given = ["objective=aipo,dpo", "trainer.lr=1", "sweep=s"]
    assert command(given, 1, True, 0) == 2
    assert "1. trainer.lr: unknown key; use learning_rate; trainer takes" in capsys.readouterr().err
    assert [trial.state.name for trial in study_of(parsed(given, 1, True, 0)).trials] == ["FAIL"]


SMALL = [
    *("model.steps=30", "model.n_documents=400", "iteration.iterations=3", "iteration.prompts=24", "benchmark=[gold]"),
    *(
        "iteration.candidates=3",
        "benchmark.gold.n_questions=16",
        "kl_prompts=0",
        "sweep=found",
        "diagnostic_judge=none",
    ),
]


def search(folder: Path, *more: str) -> list[str]:
    space = "trainer.learning_rate=tag(log,interval(1e-4,1e-1))"
    where = f"store.root={folder}/outputs"
    return [sys.executable, "-m", "aipo.command", "search", *SMALL, where, space, "--trials", "6", *more]


@needs_optuna
@pytest.mark.slow
def test_a_search_is_killed_goes_on_prunes_and_names_its_best(tmp_path: Path) -> None:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    settings = {"cwd": tmp_path, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    first = subprocess.Popen(search(tmp_path), **settings)
    deadline = time.monotonic() + 600
    while not list(tmp_path.glob("outputs/train/*/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    for path in tmp_path.glob("results/found/jobs/*/heartbeat"):
        os.utime(path, (0, 0))  # as if two minutes had passed
    done = subprocess.run(search(tmp_path), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    journal = JournalFileBackend(str(tmp_path / "results" / "found" / "search.jsonl"))
    (study,) = optuna.get_all_study_names(optuna.storages.JournalStorage(journal))
    trials = optuna.load_study(study_name=study, storage=optuna.storages.JournalStorage(journal)).trials
    ended = [trial.state.name for trial in trials]
    assert ended.count("FAIL") == 1 and len(ended) == 7, "the killed one was tried again"
    retried = [trial.params for trial in trials if trial.params == trials[0].params]
    assert len(retried) == 2
    complete = {trial.value: trial for trial in trials if trial.state.name == "COMPLETE"}
    best = complete[max(complete)]
    assert f"best of {len(complete)} complete trials, 7 in all: {best.value:.4g}" in done.stdout
    found = {job.folder: job.state for job in states(tmp_path / "results" / "found")}
    assert sorted(found.values()) == sorted(["done"] * len(complete) + ["given up"] * ended.count("PRUNED"))
    assert found[Path(best.user_attrs["folder"]).name] == "done"
    again = subprocess.run(search(tmp_path), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and "trial" not in again.stdout.split("best of")[0]
