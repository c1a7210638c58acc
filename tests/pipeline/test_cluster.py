"""Submitting to Slurm without one: what is kept, in which arrays, what a signal means, how a driver ends."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from composing import CONF, composed
from fake_slurm import fake_slurm
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from aipo.jobs import JobFile, JobRecord, SlurmState, Submission, hand_on, read_submitted, submit
from aipo.pipeline import folders
from aipo.pipeline.cluster import driver, job, slurm, snapshot
from aipo.pipeline.cluster.snapshot import Asked
from aipo.pipeline.composer import Composer
from aipo.pipeline.ends import Terminated

RECORD = JobRecord("dpo", 0, "miniature", "uf", True, (), {}, {}, "outputs")


def _jobs(sweep: Path, count: int) -> list[Asked]:
    return [
        Asked(str(sweep / "jobs" / f"j{n}"), {"seed": n}, (f"seed={n}",), {"model": "m"}, None) for n in range(count)
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective=aipo", "seed=3", "trainer.learning_rate=1e-5"],
        ["+experiment=recipes", "data=uf", "seed=1"],
        ["benchmark=[gold]", "iteration.decoding.max_new_tokens=7", "model.seed=2"],
        ["objective=dpo", "objective.loss.beta=0.3", "store.root=/x"],
        ["++store.root=elsewhere", "seed=7"],
        ["ranker=llm_judge", "judge@ranker.judge=openai_compatible", "ranker.judge.model=x", "seed=1"],
        ["benchmark={}", "seed=4"],
    ],
)  # fmt: skip
def test_many_compositions_are_hydras_own(overrides: list[str]) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composer = Composer("config")
        composer.compose([item for item in overrides if not item.startswith("seed=")])  # a base that is used again
        found = composer.compose(overrides)
        whole = compose("config", overrides=overrides, return_hydra_config=True)
    theirs = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
    fixed = {"sweep": "same"}  # the time of day
    assert OmegaConf.to_container(OmegaConf.merge(found.config, fixed), resolve=True) == OmegaConf.to_container(
        OmegaConf.merge(theirs, fixed), resolve=True
    )
    assert found.choices == {str(key): str(value) for key, value in whole.hydra.runtime.choices.items()}


def test_a_wrong_key_is_told_as_hydra_tells_it() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        with pytest.raises(Exception) as theirs:
            compose("config", overrides=["trainer.learning_rat=1"])
        with pytest.raises(type(theirs.value)) as ours:
            Composer("config").compose(["trainer.learning_rat=1"])
    assert str(ours.value) == str(theirs.value)


def test_only_slurm_under_the_basic_sweeper_is_submitted() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    folders.register()
    assert slurm.launches(composed("hydra/launcher=slurm", with_hydra=True))
    assert slurm.launches(composed("hydra/launcher=slurm_nodes", with_hydra=True))
    assert not slurm.launches(composed(with_hydra=True))
    assert not slurm.launches(composed("hydra/launcher=submitit_local", with_hydra=True))


def test_arrays_stay_within_the_clusters_limit_and_share_what_may_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    commands = fake_slurm(tmp_path, monkeypatch)
    sweep = tmp_path / "results" / "s"
    launcher = {"timeout_min": 60, "partition": "gpu", "array_parallelism": 5, "setup": ["module load x"], "nodes": 2}
    found = slurm.submit_jobs(sweep, _jobs(sweep, 10), launcher, analyse=True)
    assert [item.slurm_id for item in found] == [
        *("100_0", "100_1", "100_2", "100_3", "101_0", "101_1", "101_2", "101_3", "102_0", "102_1"),
        "103",
    ]
    assert [item.slurm_id for item in read_submitted(sweep)] == [item.slurm_id for item in found[:-1]]
    scripts = [(commands / f"script{number}").read_text() for number in range(4)]
    assert ["--array=0-3%2" in scripts[0], "--array=0-3%2" in scripts[1], "--array=0-1%1" in scripts[2]] == [True] * 3
    code = (sweep / "submissions" / "001" / "code").absolute()
    lines = scripts[0].splitlines()
    at = lines.index(f"export PYTHONSAFEPATH=1 PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}")
    assert lines[at + 1] == "module load x" and "#SBATCH --partition=gpu" in lines
    assert "srun" in lines[-1] and "USR2; exec" in lines[-1] and f" {sys.executable} -u -m submitit" in lines[-1]
    assert "#SBATCH --dependency=afterany:100:101:102" in scripts[3] and "#SBATCH --partition=gpu" in scripts[3]
    assert "--nodes=2" in scripts[0] and "--nodes=2" not in scripts[3] and "module load" in scripts[3]


def test_a_submission_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = tmp_path / "s"
    first = snapshot.take(sweep, _jobs(sweep, 2), {"partition": "a"})
    assert (first / "code" / "aipo" / "pipeline" / "loop.py").exists() and (first / "code" / "conf").is_dir()
    assert snapshot.read_asked(first / "jobs" / "j1.json") == replace(_jobs(sweep, 2)[1])
    assert json.loads((first / "submission.json").read_text())["jobs"] == 2
    monkeypatch.setattr(snapshot, "packages", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        snapshot.take(sweep, _jobs(sweep, 1), {"partition": "b"})
    assert [path.name for path in sorted((sweep / "submissions").iterdir()) if path.name[0] != "."] == ["001"]
    assert snapshot.last_launcher(sweep) == {"partition": "a"} and snapshot.last_launcher(tmp_path) is None


@pytest.mark.parametrize(
    ("number", "told", "case"),
    [
        (signal.SIGUSR2, "", "queue again"),
        (signal.SIGTERM, "JobState=PENDING Reason=BeginTime Restarts=1", "queued again"),
        (
            signal.SIGTERM,
            "JobState=COMPLETING Reason=None Restarts=1 RunTime=00:00:00 TimeLimit=UNLIMITED",
            "queued again",
        ),
        (signal.SIGTERM, "JobState=COMPLETING Restarts=0 RunTime=00:00:02 TimeLimit=365-00:00:00", "cancelled"),
        (signal.SIGTERM, "JobState=CANCELLED Restarts=0 RunTime=00:00:02 TimeLimit=UNLIMITED", "cancelled"),
        (signal.SIGTERM, "JobState=COMPLETING Restarts=0 RunTime=1-00:00:07 TimeLimit=1-00:00:00", "queue again"),
        (signal.SIGTERM, "JobState=RUNNING Restarts=0 PreemptTime=2026-01-01T00:00:00", "queue again"),
        (signal.SIGTERM, "JobState=RUNNING Restarts=0 PreemptTime=None", "interrupted"),
        (signal.SIGTERM, None, "interrupted"),
    ],
)
def test_what_a_signal_means_is_what_slurm_says_of_the_job(number: int, told: str | None, case: str) -> None:
    assert job.meaning(number, lambda *command: told, {})[0] == case
    if case == "queued again" and "COMPLETING" in (told or ""):  # of an earlier requeue
        assert job.meaning(number, lambda *command: told, {"SLURM_RESTART_COUNT": "1"})[0] == "cancelled"


def test_the_first_signal_ends_the_job_and_no_further_one_disturbs_it() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    try:
        signals = job.ClusterSignals()
        with pytest.raises(Terminated) as told:
            os.kill(os.getpid(), signal.SIGUSR2)
        assert told.value.status == "requeued"
        for number in before:
            os.kill(os.getpid(), number)
        with pytest.raises(Terminated):  # nobody was there to have it queued again
            signals.answer(Path(), told.value)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_time_out_too_many_is_written_down(tmp_path: Path) -> None:
    def too_many(number: int, frame: object) -> None:
        raise RuntimeError("Job not requeued because: timed-out too many times.")

    JobFile(tmp_path, RECORD).finish("requeued", "told")
    signals = job.ClusterSignals.__new__(job.ClusterSignals)
    signals._requeue, signals._case = too_many, "queue again"
    with pytest.raises(RuntimeError):
        signals.answer(tmp_path, Terminated(signal.SIGUSR2, "requeued"))
    assert '"status": "timed out"' in (tmp_path / "run.json").read_text()


def test_a_driver_ends_when_a_task_was_cancelled_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(tmp_path, jobs := [Submission("a", (), "7_0", "a.log"), Submission("b", (), "7_1", "b.log")])
    (tmp_path / "jobs" / "a").mkdir(parents=True)
    JobFile(tmp_path / "jobs" / "a", RECORD).finish("done")
    answers = iter(["PENDING", "CANCELLED"])
    stands = driver.states
    monkeypatch.setattr(driver, "states", lambda sweep: stands(sweep, lambda ids: {"7_1": SlurmState(next(answers))}))
    monkeypatch.setattr(driver.time, "sleep", lambda seconds: None)
    assert driver.watch(tmp_path, jobs) == 1
    said = capsys.readouterr().out
    assert "cancelled" in said and "before it began" in said and "1 of 2 jobs are not done; `aipo rerun" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_driver_that_is_told_to_end_says_what_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    submit(tmp_path, jobs := [Submission("a", (), "7_0", "a.log"), Submission("b", (), "8_0", "b.log")])
    waits = {"7_0": SlurmState("PENDING"), "8_0": SlurmState("PENDING")}
    stands = driver.states
    monkeypatch.setattr(driver, "states", lambda sweep: stands(sweep, lambda ids: waits))
    monkeypatch.setattr(driver.time, "sleep", lambda seconds: os.kill(os.getpid(), number))
    with pytest.raises((Terminated, KeyboardInterrupt)):
        driver.watch(tmp_path, jobs)
    said = capsys.readouterr().err
    assert (
        "Slurm goes on with the 2 jobs of 7, 8" in said and "scancel 7 8" in said and f"aipo status {tmp_path}" in said
    )


def test_what_a_driver_leaves_is_named_as_it_is_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its `scancel` named the first parts of jobs that had long gone on as others, and not what others need, too."""
    submit(tmp_path, jobs := [Submission("a", (), "7_0", "a.log"), Submission("b", (), "7_1", "b.log")])
    (tmp_path / "jobs" / "a").mkdir(parents=True)
    stands = driver.states
    monkeypatch.setattr(
        driver, "states", lambda sweep: stands(sweep, lambda ids: {one: SlurmState("RUNNING") for one in ids})
    )

    def pause(seconds: float) -> None:
        hand_on(tmp_path / "jobs" / "a", "12", "12.log", {"SLURM_JOB_ID": "7_0"})
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(driver.time, "sleep", pause)
    with pytest.raises(Terminated):
        driver.watch(tmp_path, jobs, ["6"])
    assert "scancel 6 12 7 " in capsys.readouterr().err


def test_what_is_in_the_queue_is_not_submitted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(tmp_path, [Submission("j0", (), "7_0", "a.log")])
    stands = driver.states
    monkeypatch.setattr(driver, "states", lambda sweep: stands(sweep, lambda ids: {"7_0": SlurmState("PENDING")}))
    sent: list[list[str]] = []
    monkeypatch.setattr(driver, "submit_jobs", lambda sweep, jobs, launcher, analyse: sent.append(jobs) or [])
    assert driver.run(tmp_path, _jobs(tmp_path, 2), {}, detach=True) == 0
    assert [Path(one.folder).name for one in sent[0]] == ["j1"]
    assert "j0: not submitted, it is pending as 7_0" in capsys.readouterr().out


def test_what_slurm_refuses_is_told_without_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    commands = fake_slurm(tmp_path, monkeypatch)
    (commands / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2; exit 1\n")
    sweep = tmp_path / "results" / "s"
    assert driver.run(sweep, _jobs(sweep, 2), {"partition": "gpu"}, detach=True) == 1
    said = capsys.readouterr().err
    assert "error: Slurm does not take the jobs: sbatch: error: invalid partition specified: gpu" in said
    assert "the same command submits the rest" in said and "Traceback" not in said
    (commands / "srun").unlink()
    monkeypatch.setenv("PATH", str(commands))
    assert driver.run(sweep, _jobs(sweep, 2), {"partition": "gpu"}, detach=True) == 1
    assert "srun" in capsys.readouterr().err
