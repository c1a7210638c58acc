"""Keys on the command line or in a config: refused with exit code 2, shown nowhere, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from composing import composed
from omegaconf import OmegaConf

from aipo.command import search
from aipo.pipeline import keys
from aipo.pipeline.check import ConfigError, check

ROOT = Path(__file__).resolve().parents[2]
KEY = "planted-zq81-key"
PASSWORD = "topsecretpw"


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([f"+hydra.job.env_set.OTHER_API_KEY={PASSWORD}"], "export OTHER_API_KEY in the shell"),
        ([f"hydra.job.env_set.OTHER_API_KEY={PASSWORD}"], "export OTHER_API_KEY in the shell"),
        (["-m", f"+hydra.job.env_set={{OTHER_API_KEY:{PASSWORD}}}", "seed=0,1"], "export OTHER_API_KEY in the shell"),
        ([f"hydra.job.name={KEY}"], "hydra.job.name: holds the value of OPENAI_API_KEY"),
        ([f"store.remote='memory://user:{PASSWORD}@b'"], "store.remote: expected an address without user"),
        (["-m", f"store.remote='memory://b?token={PASSWORD}'", "seed=0,1"], "store.remote: expected an address"),
        (["model=local", f"model.path=https://user:{PASSWORD}@host/x"], "model.path: expected an address without"),
        (["-m", "model=local", f"model.path={KEY}", "seed=0,1"], "model.path: holds the value of OPENAI_API_KEY"),
        (["judge=openai_compatible", f"judge.no_such={KEY}"], "problem(s) in the configuration"),
        (["-m", f"objective={KEY},dpo"], "problem(s) in the configuration"),
    ],
)
def test_a_key_is_refused_before_anything_is_written(tmp_path: Path, overrides: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *overrides, "sweep=keys"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in (KEY, PASSWORD))
    assert list(tmp_path.iterdir()) == []


def test_a_search_refuses_it_before_its_study_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    assert search.command(["seed=0,1", "model=local", f"model.path={KEY}"], 1, False, 0) == 2
    said = capsys.readouterr().err
    assert "model.path: holds the value of OPENAI_API_KEY" in said and KEY not in said
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_hydras_settings_is_looked_into() -> None:
    hydra = composed(with_hydra=True).hydra
    assert keys.in_hydra(hydra) == []
    hydra.job.env_set = OmegaConf.create({"OMP_NUM_THREADS": "1", "MY_TOKEN": "x"})
    (problem,) = keys.in_hydra(hydra)
    assert problem.startswith("hydra.job.env_set.MY_TOKEN: a key would be written into .hydra/hydra.yaml; export MY_")


def test_a_variable_that_the_config_names_holds_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_REVIEWER", PASSWORD)
    judge = ("judge=openai_compatible", "judge.model=x", "judge.endpoint.key_variable=MY_REVIEWER")
    with pytest.raises(ConfigError) as caught:
        check(composed(*judge, f"sweep={PASSWORD}"))
    assert [problem.partition(",")[0] for problem in caught.value.problems] == ["sweep: holds the value of MY_REVIEWER"]
    assert PASSWORD not in str(caught.value)


def test_the_text_of_any_problem_shows_no_key() -> None:
    error = ConfigError([f"model.path: no such folder {KEY}", f"http://me:{PASSWORD}@host is away"])
    assert KEY not in str(error) and PASSWORD not in str(error) and "<redacted>" in str(error)
    assert KEY in error.problems[0]


def test_what_holds_no_key_is_let_through() -> None:
    given = ["model.path=hf-internal-testing/tiny-random-Llama", "store.remote=s3://bucket/prefix", "seed=0"]
    given += ["+hydra.job.env_set.OMP_NUM_THREADS=1", "judge.endpoint.key_variable=OPENAI_API_KEY"]
    assert keys.in_overrides(given) == []
    assert keys.in_config({"model": {"path": given[0].partition("=")[2]}, "seed": 0, "tracker": None}) == []
