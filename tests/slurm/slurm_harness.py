"""Sweeps on a Slurm that runs: start one, wait for what its jobs do, and compare stores."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from aipo.jobs import JobState, states

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = float(os.environ.get("AIPO_SLURM_PATIENCE", "240"))
SMALL = [
    *("model.retrain=true", "model.steps=20", "model.n_documents=300", "iteration.iterations=1", "kl_prompts=0"),
    *("data=pairrm_gen_uf", "iteration.prompts=16", "iteration.candidates=2", "diagnostic_judge=[]"),
]
SLURM = [
    *("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2"),
    "hydra.launcher.array_parallelism=8",
]
PAID = [
    *("ranker=llm_judge", "judge@ranker.judge=openai_compatible", "ranker.judge.model=ranks"),
    *("judge=openai_compatible", "judge.model=judges", "benchmark=[mini_mt_bench]", "ranker.max_unparsable=0.9"),
    *("benchmark.mt_bench.assets.n_questions=8", "judge.max_concurrent=2", "ranker.judge.max_concurrent=2"),
]


def start(folder: Path, sweep: str, *overrides: str, checkout: Path = ROOT) -> subprocess.Popen[str]:
    """`run.py -m` in a process group of its own; what it prints goes to <sweep>.out."""
    command = [sys.executable, str(checkout / "run.py"), "-m", *SMALL, f"sweep={sweep}", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{checkout}{os.pathsep}{folder}"}
    with (folder / f"{sweep}.out").open("w", encoding="utf-8") as out:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            text=True,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def gated(folder: Path, *places: str) -> None:
    """Put a gate at each of these places of a sweep in `folder`."""
    shutil.copy(Path(__file__).with_name("gates.py"), folder)
    (folder / "gates").mkdir(exist_ok=True)
    for place in places:
        (folder / "gates" / place).touch()


def paid(url: str) -> list[str]:
    """Overrides that send ranker and judge to the server."""
    return [*PAID, f"judge.endpoint.base_url={url}", f"ranker.judge.endpoint.base_url={url}"]


def slurm(*command: str) -> str:
    """The output of one of Slurm's commands."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def tell(job: JobState, *command: str) -> None:
    """Give one of Slurm's commands about a job. scancel repeats its signal while a job is on its way."""
    subprocess.run(["timeout", "3", *command, str(job.slurm_id)], stderr=subprocess.DEVNULL, check=False)


def wait(what: Callable[[], object], why: str, every_s: float = 0.05) -> None:
    """Until `what()` is true; a failed test after a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS:.0f} s for {why}\n{slurm('squeue', '-a')}"
        time.sleep(every_s)


def standing(sweep: Path) -> dict[str, JobState]:
    """How the jobs stand, by folder; none before they are submitted."""
    return {job.folder: job for job in states(sweep)} if (sweep / "submitted.json").exists() else {}


def builder(folder: Path, sweep: Path, stage: str, without: set[str]) -> JobState | None:
    """A job that builds an artifact of this stage right now, beside those in `without`."""
    for partial in (folder / "outputs" / stage).glob("*.partial"):
        lock = folder / "outputs" / ".locks" / f"{stage}-{partial.name.removesuffix('.partial')}.lock"
        owner = lock.read_text().split()[-1:] if lock.exists() else []
        for job in standing(sweep).values():
            if job.record and job.state == "running" and [str(job.record.pid)] == owner and job.folder not in without:
                return job
    return None


def again(sweep: Path, job: JobState, **settings: str) -> None:
    """Wait until a job that was stopped is in the queue again, and let it start now: it would wait two minutes."""
    changes = [f"{key}={value}" for key, value in {**settings, "StartTime": "now"}.items()]

    def started() -> bool:
        command = ["scontrol", "update", f"JobId={job.slurm_id}", *changes]
        found = standing(sweep)[job.folder]
        waits = found.state == "requeued" and "queued again" in found.why  # not on its way out any more
        return waits and not subprocess.run(command, check=False).returncode

    wait(started, f"{job.folder}, {job.slurm_id}, to be queued again", 0.5)


def files(store: Path) -> dict[str, str]:
    """The SHA-256 of every file of every artifact, without manifests, and without how fast a training step was."""
    found = [path for path in store.glob("[a-z]*/*/**/*") if path.is_file() and "replies" not in path.parts]
    return {
        str(path.relative_to(store)): hashlib.sha256(_content(path)).hexdigest()
        for path in found
        if path.name != "manifest.json"
    }


def _content(path: Path) -> bytes:
    if path.name != "metrics.jsonl":
        return path.read_bytes()
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    own = [{key: row[key] for key in row if not key.endswith(("_per_s", "_memory_gib"))} for row in rows]
    return json.dumps(own).encode()


def executed(sweep: Path) -> Counter[str]:
    """How often each artifact was made, by what the jobs' logs say."""
    logs = [path.read_text(encoding="utf-8") for path in sweep.glob("jobs/*/run.log")]
    return Counter(re.findall(r"\s([0-9a-f]{16})  run ", "\n".join(logs)))
