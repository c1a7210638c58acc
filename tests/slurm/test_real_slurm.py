"""Sweeps on a Slurm that runs here: `pytest -n 0 -m slurm`. CONTRIBUTING.md says what it needs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paid_server import PaidServer
from slurm_harness import ROOT, SLURM, again, builder, executed, files, gated, paid, slurm, standing, start, tell, wait

from aipo.jobs import JobState, ask, read_job

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not ask("sinfo", "-h"), reason="no Slurm runs here"),
]
SIX = [
    *("objective=dpo", "objective.loss.beta=0.1,0.2", "seed=0,1,2", "trainer.pairs_per_step=2"),
    *("sampler.cache_tokens=300", "sampler._target_=gates.GatedSampler", "objective.loss._target_=gates.dpo"),
]


@pytest.fixture
def server() -> Iterator[tuple[PaidServer, str]]:
    found = PaidServer(latency_s=0.1)
    with found.running() as url:
        yield found, url


def _nodes() -> list[str]:
    return sorted(set(slurm("sinfo", "-h", "-N", "-o", "%N").split()))


def test_preempted_in_every_stage_a_sweep_ends_as_the_serial_one(
    tmp_path: Path, server: tuple[PaidServer, str]
) -> None:
    judge, url = server
    serial_folder = tmp_path / "serial"
    serial_folder.mkdir()
    gated(serial_folder)
    serial = start(serial_folder, "trial", *SIX, *paid(url))
    assert serial.wait(600) == 0, (serial_folder / "trial.out").read_text()[-3000:]
    asked, judge.answered = judge.answered, type(judge.answered)()

    gated(tmp_path, "sampling", "training")
    judge.held, judge.free = {"ranks"}, 5
    driver = start(tmp_path, "trial", *SIX, *paid(url), *SLURM)
    sweep, stopped = tmp_path / "results" / "trial", {}

    def at_gate(place: str) -> JobState | None:
        met = tmp_path / "gates" / f"{place}.at"
        number = met.read_text() if met.exists() else ""
        return next((job for job in standing(sweep).values() if number and job.slurm_id == number), None)

    def in_stage(stage: str) -> JobState | None:
        return builder(tmp_path, sweep, stage, set(stopped)) if judge.free < 0 else None

    def stop(find: Callable[[], JobState | None], stage: str, *command: str) -> JobState:
        wait(find, f"a job in {stage}")
        job = find()
        assert job is not None and job.record is not None and job.folder not in stopped
        stopped[job.folder] = stage
        tell(job, *command)
        return job

    job = stop(lambda: at_gate("sampling"), "sampling", "scancel", "--signal=USR2")
    again(sweep, job)
    (tmp_path / "gates" / "sampling.at").unlink()
    job = stop(lambda: in_stage("ranking"), "ranking", "scancel", "--signal=USR2")
    time.sleep(1)  # what is on its way is waited for, and kept
    judge.held = set()
    again(sweep, job)
    job = stop(lambda: at_gate("training"), "training", "scontrol", "requeue")
    judge.held, judge.free = {"judges"}, 3
    (tmp_path / "gates" / "training.at").unlink()  # it saves at the end of its step
    again(sweep, job)
    job = stop(lambda: in_stage("judgments"), "judging", "scancel", "--signal=USR2")
    time.sleep(1)
    judge.held = set()
    other = [node for node in _nodes() if node != job.record.host]
    again(sweep, job, **({"ReqNodeList": other[0]} if other else {}))
    assert driver.wait(600) == 0, (tmp_path / "trial.out").read_text()[-3000:]

    jobs = standing(sweep)
    assert len(jobs) == 6 and {job.state for job in jobs.values()} == {"done"} and len(stopped) == 4
    assert {name: job.record.restarts for name, job in jobs.items()} == {name: int(name in stopped) for name in jobs}
    assert not other or jobs[job.folder].record.host == other[0]
    assert files(tmp_path / "outputs") == files(serial_folder / "outputs")
    assert set(executed(sweep).values()) == {1}
    assert set(executed(sweep)) == {name.split("/")[1] for name in files(tmp_path / "outputs")}
    assert judge.answered == asked and sum(asked.values()) > 100
    for table in (serial_folder / "results" / "trial" / "tables").glob("*.csv"):
        assert (sweep / "tables" / table.name).read_text() == table.read_text()


def test_every_end_is_told_and_exactly_the_unfinished_run_again(tmp_path: Path, server: tuple[PaidServer, str]) -> None:
    paid_server, url = server
    paid_server.latency_s = 0.0
    paid_server.refused, paid_server.held = {"raises"}, {"killed", "slow", "waits"}
    models = ["fine", "raises", "killed", "slow", "waits"]
    without_model = [item for item in paid(url) if not item.startswith("ranker.judge.model=")]
    short = [
        "hydra.launcher.timeout_min=5",
        "hydra.launcher.signal_delay_s=10",
        "hydra.launcher.max_num_timeout=0",
        "hydra.launcher.array_parallelism=4",
    ]
    asking = f"ranker.judge.model={','.join(models)}"
    driver = start(tmp_path, "ends", asking, *without_model, *SLURM[:-1], *short)
    sweep = tmp_path / "results" / "ends"
    wait(lambda: len(standing(sweep)) == 5 and all(job.slurm_id for job in standing(sweep).values()), "five jobs")

    def job(model: str):
        return next(job for job in standing(sweep).values() if f"ranker.judge.model={model}" in job.overrides)

    assert job("waits").state == "pending"
    tell(job("waits"), "scancel")  # four at once: it has not begun
    for model in ("killed", "slow"):
        wait(lambda: paid_server.waiting[model], f"{model} to be ranking")  # noqa: B023
    os.kill(job("killed").record.pid, signal.SIGKILL)  # not by scancel, which Slurm would call a cancellation
    tell(job("slow"), "scancel", "--signal=USR2")
    time.sleep(1)
    paid_server.held = set()
    os.killpg(driver.pid, signal.SIGKILL)  # as a reboot of its machine
    driver.wait()
    wait(lambda: all(found.state != "running" for found in standing(sweep).values()), "all jobs to end", 0.5)

    found = {model: job(model) for model in models}
    states = {"fine": "done", "raises": "failed", "killed": "lost", "slow": "timed out", "waits": "cancelled"}
    assert {model: entry.state for model, entry in found.items()} == states
    assert "no such model here" in found["raises"].why and "ended without a word" in found["killed"].why
    assert "timed-out too many times" in found["slow"].why and "before it began" in found["waits"].why
    told = _aipo(tmp_path, "status", str(sweep))
    assert "5 jobs: 1 cancelled, 1 done, 1 failed, 1 lost, 1 timed out" in told.stdout
    half = _aipo(tmp_path, "analyse", str(sweep))
    assert half.returncode == 3 and half.stderr.count("missing: ") == 4

    paid_server.refused = set()
    before = (sweep / "jobs" / found["fine"].folder / "run.json").read_bytes()
    again = _aipo(tmp_path, "rerun", str(sweep))
    assert again.returncode == 0, again.stdout + again.stderr
    assert {entry.state for entry in standing(sweep).values()} == {"done"}
    assert (sweep / "jobs" / found["fine"].folder / "run.json").read_bytes() == before
    assert found["fine"].folder not in again.stdout.partition("wrote")[0]
    assert _aipo(tmp_path, "analyse", str(sweep)).returncode == 0


def test_parts_with_resources_of_their_own_make_what_the_serial_sweep_makes(tmp_path: Path) -> None:
    """Detached. More memory while a job trains, less while it judges; what is shared first."""
    few = ["objective=dpo,aipo", "iteration.iterations=2", "benchmark=[gold,mini_mt_bench]", "trainer.pairs_per_step=4"]
    few += ["benchmark.gold.n_questions=8", "benchmark.mt_bench.assets.n_questions=8"]
    own = ["resources.common_first=true", "resources.training={mem_gb: 3}", "resources.judging={mem_gb: 1}"]
    serial = tmp_path / "serial"
    serial.mkdir()
    assert start(serial, "parts", *few, "jobs_at_once=1").wait(600) == 0, (serial / "parts.out").read_text()[-3000:]
    assert start(tmp_path, "parts", *few, *own, *SLURM, "detach=true").wait(200) == 0
    said, sweep = (tmp_path / "parts.out").read_text(), tmp_path / "results" / "parts"
    assert "what others need, too" in said and {job.state for job in standing(sweep).values()} == {"pending"}, said
    first = min(int(job.slurm_id.partition("_")[0]) for job in standing(sweep).values()) - 1
    wait(lambda: (sweep / "report.md").exists(), "the job that makes the tables", 0.5)

    assert {job.state for job in standing(sweep).values()} == {"done"}
    assert files(tmp_path / "outputs") == files(serial / "outputs")
    assert set(executed(sweep).values()) == {1}
    for table in (serial / "results" / "parts" / "tables").glob("*.csv"):
        assert (sweep / "tables" / table.name).read_text() == table.read_text()
    last = max(int(job.slurm_id) for job in standing(sweep).values())
    told = slurm("sacct", "-n", "-X", "-P", "-o", "ReqMem,State", "-j", ",".join(map(str, range(first, last + 1))))
    held = Counter(line.partition("|")[0] for line in told.splitlines())
    # What is shared; each job's draws before, between and after its two rounds of training; its judging.
    assert (held["2G"], held["3G"], held["1G"]) == (1 + 2 * 3, 2 * 2, 2), told


def test_edits_after_submission_reach_no_waiting_job(tmp_path: Path) -> None:
    """Detached, held back, and edited meanwhile: code, configs, and a module of the user's own."""
    checkout = tmp_path / "checkout"
    for name in ("aipo", "analysis", "conf"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", checkout)
    held = ["+hydra.launcher.additional_parameters.hold=true", "benchmark=[gold]", "benchmark.gold.n_questions=8"]
    driver = start(tmp_path, "kept", *SLURM, *held, "objective=dpo", "seed=0,1", "detach=true", checkout=checkout)
    assert driver.wait(200) == 0, (tmp_path / "kept.out").read_text()[-3000:]
    said, sweep = (tmp_path / "kept.out").read_text(), tmp_path / "results" / "kept"
    jobs = standing(sweep)
    assert [job.state for job in jobs.values()] == ["pending", "pending"]
    assert all(str(job.slurm_id) in said and str(job.log) in said for job in jobs.values())

    yaml = checkout / "conf" / "objective" / "dpo.yaml"
    yaml.write_text(yaml.read_text().replace("beta: ", "beta: 7"))
    for path in (checkout / "aipo" / "pipeline" / "loop.py", checkout / "aipo" / "pipeline" / "cluster" / "job.py"):
        path.write_text("raise RuntimeError('edited after submission')\n")
    array = next(iter(jobs.values())).slurm_id.partition("_")[0]
    slurm("scontrol", "release", array)
    wait(lambda: {job.state for job in standing(sweep).values()} == {"done"}, "both jobs", 0.5)
    wait(lambda: (sweep / "report.md").exists(), "the job that makes the tables", 0.5)
    for name in jobs:
        record = read_job(sweep / "jobs" / name)
        assert record.settings["objective"]["loss"]["beta"] == 0.1 and record.provenance["slurm_job"]
    assert {name.split("-")[0] for name in jobs} == {"dpo"}


def _aipo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aipo.command", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
