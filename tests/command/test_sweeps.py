"""What became of a sweep: every job that was asked for, with its state; and exactly the unfinished ones again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aipo.command.app import app
from aipo.command.sweeps import rerun, to_run_again
from aipo.jobs import HEARTBEAT, Submission, read_job, read_submitted, states, submit

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    *("model.retrain=true", "model.steps=20", "model.n_documents=300", "iteration.iterations=1"),
    *("iteration.prompts=16", "iteration.candidates=2", "benchmark=[gold]", "benchmark.gold.n_questions=8"),
]


def _start(folder: Path, *overrides: str, sweep: bool = True) -> subprocess.Popen[str]:
    where = [f"store.root={folder}/outputs", "sweep=trial"]
    command = [sys.executable, str(ROOT / "run.py"), *(["-m"] if sweep else []), *SMALL, *where, *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_submissions_are_kept_and_a_newer_one_takes_its_place(tmp_path: Path) -> None:
    submit(tmp_path, [Submission("a", ("seed=0",)), Submission("b", ("seed=1",))])
    submit(tmp_path, [Submission("a", ("seed=0", "plan=false")), Submission("c", ("seed=2",))])
    found = [(job.folder, job.overrides) for job in read_submitted(tmp_path)]
    assert found == [("a", ("seed=0", "plan=false")), ("b", ("seed=1",)), ("c", ("seed=2",))]
    assert [job.state for job in states(tmp_path)] == ["not started"] * 3


def test_unfinished_jobs_run_again_and_finished_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = _start(tmp_path, "objective=dpo,simpo,hinge")
    log, _ = process.communicate(timeout=240)
    assert process.returncode == 0, log[-3000:]
    sweep = tmp_path / "results" / "trial"
    jobs = {job.folder.split("-")[0]: job for job in states(sweep)}
    assert {name: job.state for name, job in jobs.items()} == dict.fromkeys(("dpo", "simpo", "hinge"), "done")
    # One job was killed, another never began.
    killed, absent, kept = (sweep / "jobs" / jobs[name].folder for name in ("simpo", "hinge", "dpo"))
    record = json.loads((killed / "run.json").read_text()) | {"status": "running"}
    (killed / "run.json").write_text(json.dumps(record))
    (killed / HEARTBEAT).touch()
    os.utime(killed / HEARTBEAT, (0, 0))
    (absent / "run.json").unlink()
    found = {job.folder: job.state for job in states(sweep)}
    assert (found[killed.name], found[absent.name], found[kept.name]) == ("lost", "not started", "done")
    listed = CliRunner().invoke(app, ["status", str(sweep)])
    assert listed.exit_code == 0 and "3 jobs: 1 done, 1 lost, 1 not started" in listed.stdout
    dry = CliRunner().invoke(app, ["rerun", str(sweep), "--missing", "--dry-run"])
    assert dry.stdout.strip() == absent.name
    before = (kept / "run.json").read_bytes()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert rerun(Path("results/trial"), to_run_again(states(sweep), failed=True, missing=True)) == 0
    assert {job.state for job in states(sweep)} == {"done"} and len(states(sweep)) == 3
    assert (kept / "run.json").read_bytes() == before


def test_a_divided_job_runs_again_here_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was refused: only a sweep on Slurm has jobs of the cluster to divide."""
    overrides = (*SMALL, f"store.root={tmp_path}/outputs", "resources=by_stage", "resources.judging={cpus_per_task: 1}")
    submit(tmp_path / "results" / "s", [Submission("one", overrides, "7_0", "log")])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert rerun(Path("results/s"), states(Path("results/s"))) == 0
    done = [job for job in states(Path("results/s")) if job.state == "done"]
    assert len(done) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_job_that_is_told_to_end_says_so(tmp_path: Path, number: signal.Signals) -> None:
    process = _start(tmp_path, "iteration.iterations=200", sweep=False)
    deadline = time.time() + 120
    while not (found := list(tmp_path.glob("results/trial/jobs/*/run.json"))) or not read_job(found[0].parent).points:
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.2)
    process.send_signal(number)
    log, _ = process.communicate(timeout=60)
    record = read_job(found[0].parent)
    assert record.status == "interrupted" and record.ended
    assert process.returncode == (130 if number == signal.SIGINT else 128 + number), log[-2000:]
    assert "Traceback" not in log
    if number == signal.SIGINT:
        assert "The same command goes on from here." in log
