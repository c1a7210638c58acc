"""A job between two of its parts: what is submitted and what is not, and what a signal does just then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from divided_jobs import OWN, asked_for, kept_signals, run_parts  # noqa: F401
from fake_slurm import fake_slurm

from aipo.jobs import Submission, hand_on, read_job, read_submitted, submit, successor
from aipo.pipeline.cluster import job, snapshot
from aipo.pipeline.cluster.executor import submit_one
from aipo.pipeline.cluster.parts import Part, common_first
from aipo.pipeline.ends import Terminated

pytestmark = pytest.mark.usefixtures("kept_signals")


def test_only_what_is_left_to_judge_is_judged_by_a_part_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was one that found nothing to do: without a benchmark that asks a judge, and where judging comes later."""
    own = ("resources.judging={cpus_per_task: 1}", "iteration.iterations=1")
    both = asked_for(tmp_path, *own)
    unjudged = replace(both, config={**both.config, "benchmark": {"gold": both.config["benchmark"]["gold"]}})
    assert run_parts(tmp_path, unjudged, monkeypatch) == ["drawing"]
    assert read_job(Path(unjudged.folder)).status == "done"
    later = asked_for(tmp_path, *own, "judge_later=true", "seed=1")
    assert run_parts(tmp_path, later, monkeypatch) == ["drawing"]
    assert "judge_later=true" in str(read_job(Path(later.folder)).error)
    assert Part(only=frozenset()).config(asked_for(tmp_path, *own))["judge_later"] is True


def test_a_job_between_two_parts_is_never_one_that_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said `interrupted` until its judging was submitted: a driver that looked then took it for ended, and left."""
    asked = asked_for(tmp_path, "resources.judging={cpus_per_task: 1}", "iteration.iterations=1")
    kept = snapshot.take(tmp_path / "results" / "s", [asked], {})
    said: list[str] = []

    def submit_one(*arguments: Any) -> tuple[str, str]:
        said.append(read_job(Path(asked.folder)).status)
        return "100", "log"

    monkeypatch.setattr(job, "submit_one", submit_one)
    job.SweepJob()(kept / "jobs" / "dpo-0.json")
    assert said == ["requeued"]


def test_what_is_made_for_others_submits_no_judging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a job's stages may be what others need, too; the job itself still comes after."""
    asked = asked_for(tmp_path, "resources.judging={cpus_per_task: 1}", "iteration.iterations=1")
    longer = asked_for(tmp_path, "resources.judging={cpus_per_task: 1}", "resources.common_first=true", "seed=0")
    longer = replace(longer, folder=f"{longer.folder}-longer")
    part = common_first([asked, longer]).parts[asked.folder]
    kept = snapshot.take(tmp_path / "results" / "s", [asked], {})
    monkeypatch.setattr(job, "submit_one", lambda *arguments: pytest.fail("it was submitted"))
    job.SweepJob()(kept / "jobs" / "dpo-0.json", part)
    assert list((tmp_path / "outputs" / "train").glob("*")), "it came to the end"


def test_what_has_resources_of_its_own_is_not_waited_for(tmp_path: Path) -> None:
    """A job held all devices to find nothing that it may make, and the others waited for it."""
    own = ("resources.common_first=true", *OWN)
    jobs = [asked_for(tmp_path, *own, objective=objective) for objective in ("dpo", "aipo")]
    only = common_first(jobs).parts[jobs[0].folder].only
    assert only is not None and {"reference", "judgments"}.isdisjoint({stage for stage, _ in only})
    job.run_asked(asked_for(tmp_path, "judge_later=true"))
    for path in [*(tmp_path / "outputs").glob("reference/*"), *(tmp_path / "outputs").glob("train/*")]:
        path.rename(path.with_name(f"{path.name}.gone"))
    again = common_first(jobs)
    assert not again.parts and set(again.awaited.values()) == {()}


def _stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> tuple[Path, Path]:
    """A job that is about to hand on to its training, as Slurm's 7: its folder, and its file."""
    asked = asked_for(tmp_path, *OWN, "iteration.iterations=1", *overrides)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    kept = snapshot.take(tmp_path / "results" / "s", [asked], {})
    return Path(asked.folder), kept / "jobs" / "dpo-0.json"


def test_a_part_that_is_queued_again_after_it_handed_on_submits_nobody_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = _stands(tmp_path, monkeypatch)
    numbers = iter(["8", "9"])
    monkeypatch.setattr(job, "submit_one", lambda *arguments: (next(numbers), "log"))
    job.SweepJob()(file)
    told = (folder / "run.json").read_bytes()
    job.SweepJob()(file)
    assert next(numbers) == "9" and (folder / "run.json").read_bytes() == told
    hand_on(folder, "10", "log", {"SLURM_JOB_ID": "8"})
    job.SweepJob()(file)
    submit(tmp_path / "results" / "s", [Submission("dpo-0", (), "7", "log")])
    assert [item.slurm_id for item in read_submitted(tmp_path / "results" / "s")] == ["10"]


@pytest.mark.parametrize(
    ("number", "told", "ends", "cancelled"),
    [
        (signal.SIGUSR2, "", False, False),
        (signal.SIGTERM, "JobState=PENDING Restarts=1", False, False),
        (signal.SIGTERM, "JobState=COMPLETING Restarts=0 RunTime=00:00:02 TimeLimit=UNLIMITED", True, True),
    ],
)
def test_a_signal_does_not_break_off_what_is_being_submitted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    told: str,
    ends: bool,
    cancelled: bool,
) -> None:
    """It did: the job was neither queued again nor known by its next number. Cancelled then, all of it is."""
    folder, file = _stands(tmp_path, monkeypatch)
    asked: list[tuple[str, ...]] = []

    def answers(*command: str) -> str:
        asked.append(command)
        return told

    def submit_one(*arguments: Any) -> tuple[str, str]:
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        subprocess.run([sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(number)})"], check=True)
        return "8", "log"

    monkeypatch.setattr(job, "submit_one", submit_one)
    monkeypatch.setattr(job, "ask", answers)
    monkeypatch.setattr(job.meaning, "__defaults__", (answers, {}))
    with pytest.raises(Terminated) if ends else nullcontext():
        job.SweepJob()(file)
    assert successor(folder) == "8" and (("scancel", "8") in asked) == cancelled
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGUSR2, signal.SIGTERM}


def test_a_signal_that_a_submission_failed_of_has_the_part_queued_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[int] = []

    def queue_again(number: int, frame: object) -> None:
        again.append(number)
        raise SystemExit(-1)

    signal.signal(signal.SIGUSR2, queue_again)  # as submitit does before it calls the job
    _, file = _stands(tmp_path, monkeypatch)

    def submit_one(*arguments: Any) -> tuple[str, str]:
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.01)
        raise RuntimeError("sbatch was ended")

    monkeypatch.setattr(job, "submit_one", submit_one)
    with pytest.raises(SystemExit):
        job.SweepJob()(file)
    assert again == [signal.SIGUSR2]


def test_a_part_that_judges_needs_no_nodes_to_train_on(tmp_path: Path) -> None:
    given = ("trainer.nodes=2", "trainer.processes=2", "trainer.strategy=fsdp2")
    asked = asked_for(tmp_path, *given, "resources.judging={nodes: 1}")
    assert [Part(kind).nodes(asked) for kind in ("drawing", "training", "judging")] == [None, None, 2]


def test_a_part_is_submitted_with_what_the_site_and_the_user_told_slurms_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submitted from a job, it had another account than the first, or found no cluster."""
    pytest.importorskip("submitit")
    commands = fake_slurm(tmp_path, monkeypatch)
    (commands / "sbatch").write_text(f"#!/bin/sh\nenv > {tmp_path}/env; echo Submitted batch job 5\n")
    given = {"SLURM_CONF": "/site/slurm.conf", "SBATCH_ACCOUNT": "mine", "SLURM_JOB_ID": "7", "SLURM_NNODES": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    submit_one(tmp_path / "kept", {}, print)
    found = (tmp_path / "env").read_text().splitlines()
    assert [f"{name}={value}" in found for name, value in given.items()] == [True, True, False, False]
    assert os.environ["SLURM_JOB_ID"] == "7"
