"""What happens around a job and a sweep: what is refused before the first, and what is said where the end fails."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from composing import composed
from hydra.core.utils import JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict

import analysis
from aipo.command import run
from aipo.pipeline import sweep as module
from aipo.pipeline.sweep import SweepCallback
from analysis.__main__ import analyse_sweep
from analysis.report import _former_files


def _config(sweep: Path, *hydra: str, **values: str | bool) -> DictConfig:
    config = composed(f"store.root={sweep.parent}/outputs", "sweep=s", with_hydra=True)
    with open_dict(config):
        config.hydra.overrides.hydra = list(hydra)
        config.hydra.overrides.task = ["sweep=s"]
        config.hydra.run.dir = f"{sweep}/jobs/one"
    for key, value in values.items():
        OmegaConf.update(config, key, value)
    return config


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    """A sweep with one job, whose list of jobs was torn."""
    sweep = tmp_path / "s"
    (sweep / "jobs" / "one").mkdir(parents=True)
    (sweep / "jobs" / "one" / "run.json").write_text("{")
    (sweep / "submitted.json").write_text("{")
    return sweep


def _refused(config: DictConfig, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        SweepCallback().on_run_start(config)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_launcher_without_a_sweep_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was ignored, and the job ran here."""
    told = _refused(_config(tmp_path / "s", "hydra/launcher=slurm", detach=True), capsys)
    assert "2 problem(s)" in told and "detach=true: one job runs here; sweep with -m" in told
    assert "hydra/launcher=slurm: one job runs here; add -m" in told
    assert list(tmp_path.iterdir()) == []
    SweepCallback().on_run_start(_config(tmp_path / "s", "hydra/launcher=basic"))
    assert [job["folder"] for job in json.loads((tmp_path / "s" / "submitted.json").read_text())] == ["one"]


def test_a_torn_list_of_jobs_is_told_before_a_job_begins(torn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = _refused(_config(torn), capsys)
    assert f"1. {torn}/submitted.json cannot be read: " in told and "move it away" in told
    assert (torn / "submitted.json").read_text() == "{"


def test_where_the_end_fails_a_line_and_the_exit_status_say_so(
    torn: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra took it for a warning, and the exit status was 0."""
    monkeypatch.setattr(analysis, "analyse", lambda sweep: json.loads("{"))
    with pytest.raises(SystemExit) as ended:
        SweepCallback().on_run_end(_config(torn), job_return=SimpleNamespace(status=JobStatus.COMPLETED))
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1
    assert line.startswith(f"error: {torn} has no new tables: JSONDecodeError: ")
    assert line.endswith(f"`aipo analyse {torn}` makes them")
    SweepCallback().on_run_end(_config(torn), job_return=SimpleNamespace(status=JobStatus.FAILED))  # has its own error


@pytest.mark.parametrize(("status", "expected"), [(None, 1), (0, 1), (2, 2), (130, 130)])
def test_a_sweep_without_tables_ends_with_an_error(
    torn: Path, monkeypatch: pytest.MonkeyPatch, status: int | None, expected: int
) -> None:
    def sweep() -> None:
        module._open.append(torn)
        if status is not None:
            raise SystemExit(status)

    monkeypatch.setattr(run, "_command", sweep)
    monkeypatch.setattr(analysis, "analyse", lambda sweep: json.loads("{"))
    with pytest.raises(SystemExit) as ended:
        run.command()
    assert ended.value.code == expected and module._open == []


def test_a_torn_list_of_jobs_is_told_by_the_analysis(torn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Path(__file__).parents[2] / "results/laptop_pair/jobs"
    (torn / "jobs" / "one" / "run.json").write_bytes(next(record.glob("*/run.json")).read_bytes())
    assert analyse_sweep(torn) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {torn}/submitted.json cannot be read: ") and "move it away" in told


def test_a_torn_list_of_sources_is_written_anew(tmp_path: Path) -> None:
    for text, found in (("{", []), ('{"files": 3}', []), ('{"files": {"a.md": []}}', ["a.md"])):
        (tmp_path / "sources.json").write_text(text)
        assert _former_files(tmp_path / "sources.json") == found
