"""What `aipo rerun` starts, where a sweep does not tell everything about its jobs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aipo.command import sweeps
from aipo.command.app import app
from aipo.jobs import Submission, submit

NAME = "dpo-seed3-0123abcd"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments of every process that would be started."""
    found: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        found.append(command[4:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(sweeps.subprocess, "run", run)
    return found


def _torn(sweep: Path) -> Path:
    folder = sweep / "jobs" / NAME
    (folder / ".hydra").mkdir(parents=True)
    (folder / "run.json").write_text("{")
    return folder


def test_a_job_whose_record_is_torn_runs_again_by_its_own_overrides(tmp_path: Path, started: list[list[str]]) -> None:
    """It ran the default job of 15 rounds, in a new folder."""
    sweep = tmp_path / "results" / "s"
    (_torn(sweep) / ".hydra" / "overrides.yaml").write_text(
        "- objective=dpo\n- seed=3\n- sweep=s\n- +experiment=smoke\n"
    )
    done = CliRunner().invoke(app, ["rerun", str(sweep)])
    assert done.exit_code == 0, done.output
    where = ["sweep=s", "resources=whole_job", f"hydra.run.dir={sweep}/jobs/${{job_folder:}}"]
    assert started == [["objective=dpo", "seed=3", "+experiment=smoke", *where]]


@pytest.mark.parametrize("name", ["größe", "a, b", "group/it's one", "1e5", "x=y", 'the "best"', "a\\", "ok"])
def test_a_sweep_runs_again_whatever_its_name(
    tmp_path: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What is no plain word for Hydra was handed on without quotes, and refused; a sweep in a group lost its group."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    monkeypatch.chdir(tmp_path)
    submit(Path("results", name), [Submission("aipo-seed0-0123abcd", ("seed=1",))])
    done = CliRunner().invoke(app, ["rerun", str(Path("results", name))])
    assert done.exit_code == 0, done.output
    (given,) = started
    read = {item.key_or_group: item.value() for item in OverridesParser.create().parse_overrides(given)}
    assert read["sweep"] == name and read["seed"] == 1
    assert read["hydra.run.dir"] == f"results/{name}/jobs/${{job_folder:}}"


@pytest.mark.parametrize("text", [None, "{", "objective: dpo\n", "- [unclosed\n"])
def test_a_job_of_which_nothing_tells_what_it_was_is_refused(
    tmp_path: Path, started: list[list[str]], text: str | None
) -> None:
    sweep = tmp_path / "results" / "s"
    path = _torn(sweep) / ".hydra" / "overrides.yaml"
    if text is not None:
        path.write_text(text)
    told = CliRunner().invoke(app, ["rerun", str(sweep)])
    assert told.exit_code == 1 and started == []
    assert told.stderr.startswith(f"error: {path}: expected the overrides of job {NAME}, which neither ")
    assert told.stderr.rstrip().endswith("Run it by its own command, with sweep=s")


def test_a_job_that_was_asked_for_without_overrides_runs_without(tmp_path: Path, started: list[list[str]]) -> None:
    sweep = tmp_path / "results" / "s"
    submit(sweep, [Submission("aipo-seed0-0123abcd", ())])
    assert CliRunner().invoke(app, ["rerun", str(sweep)]).exit_code == 0
    assert [given[0] for given in started] == ["sweep=s"]
    assert json.loads((sweep / "submitted.json").read_text())[0]["overrides"] == []
