"""`aipo lm-eval`: lm-evaluation-harness on a sweep's policies, each in a process of its own, with a record for each.

The harness is EleutherAI's (the extra `lm_eval`); `analysis.alignment_tax` reads the records.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aipo.artifacts import Artifact
from aipo.jobs import BASE_ITERATION, JobRecord, Point, job_folders, read_job, store_of
from analysis.alignment_tax import FOLDER


class HarnessError(ValueError):
    """The harness is not there, or it failed; the message says what to do."""


@dataclass(frozen=True)
class Evaluated:
    """A policy that the harness is to evaluate."""

    policy: str
    """Its fingerprint."""
    name: str
    """For people: its job and round."""
    pretrained: str
    """A folder, or a hub model's name."""


def policies(sweep: Path, every_round: bool = False) -> Iterator[Evaluated]:
    """Each job's base model and its last trained policy (or all of them), each policy once.

    Raises JobFileError, StoreError and HarnessError where one of them cannot be loaded.
    """
    done: set[str] = set()
    folders = job_folders(sweep)
    if not folders:
        raise HarnessError(f"{sweep}: no jobs in it; expected the folder of a sweep, as in results/<sweep>")
    for folder in folders:
        record = read_job(folder)
        trained = [point for point in record.points if point.train]
        base = [point for point in record.points if point.iteration == BASE_ITERATION]
        for point in [*base, *(trained if every_round else trained[-1:])]:
            if point.policy not in done:
                done.add(point.policy)
                yield _evaluated(folder, record, point)


def _evaluated(job: Path, record: JobRecord, point: Point) -> Evaluated:
    store = store_of(job, record)
    if point.train:
        artifact = Artifact("train", point.train, store / "train" / point.train)
        artifact.verify("model")
        return Evaluated(point.policy, f"{job.name}, round {point.iteration + 1}", str(artifact.path / "model"))
    made_here = store / "base_model" / point.policy / "model"
    if made_here.is_dir():
        Artifact("base_model", point.policy, made_here.parent).verify("model")
        return Evaluated(point.policy, "base model", str(made_here))
    path = record.settings["model"].get("path")
    if not path:
        raise HarnessError(f"{made_here}: missing; run the job again, which makes the base model anew")
    return Evaluated(point.policy, "base model", str(path))


def evaluate(sweep: Path, tasks: Sequence[str], arguments: Sequence[str], every_round: bool = False) -> None:
    """Evaluate what has no record for these tasks and arguments yet. `arguments` go to the harness as they are.

    Raises HarnessError where the harness is missing or fails; finished records stay, those of other tasks too.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise HarnessError("lm-evaluation-harness is not installed: pip install 'aipo[lm_eval]'")
    out = sweep / FOLDER
    for one in list(policies(sweep, every_round)):
        path = out / _name(one.policy, tasks, arguments)
        former = out / f"{one.policy}.json"  # the name of before, which the tasks were not in
        if _is_done(path, tasks, arguments) or _is_done(former, tasks, arguments):
            print(f"{one.name}: there already", flush=True)
            continue
        print(f"{one.name}: {', '.join(tasks)}", flush=True)
        record = {
            "policy": one.policy,
            "name": one.name,
            "tasks": list(tasks),
            "arguments": list(arguments),
            "results": _harness(one, tasks, arguments),
        }
        out.mkdir(exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
        partial.replace(path)
    print(f"records in {out}; `aipo analyse {sweep}` shows them as tables/alignment_tax.md and on the page")


def _name(policy: str, tasks: Sequence[str], arguments: Sequence[str]) -> str:
    """The file of a record: other tasks and other arguments have one of their own."""
    asked = json.dumps([list(tasks), list(arguments)])
    return f"{policy}-{hashlib.sha256(asked.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}.json"


def _is_done(path: Path, tasks: Sequence[str], arguments: Sequence[str]) -> bool:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(row, dict) and (row.get("tasks"), row.get("arguments")) == (list(tasks), list(arguments))


def _harness(one: Evaluated, tasks: Sequence[str], arguments: Sequence[str]) -> object:
    """Run it; returns its results file as it came."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf"]
        command += ["--model_args", f"pretrained={one.pretrained}", "--tasks", ",".join(tasks)]
        done = subprocess.run([*command, "--output_path", folder, *arguments], capture_output=True, text=True)
        found = sorted(Path(folder).rglob("results_*.json"))
        if done.returncode or not found:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["it wrote no results"]
            raise HarnessError(
                f"{one.name}: lm-evaluation-harness ended with status {done.returncode}: {said[0]}. A hub's tasks need "
                "the network once; tasks of your own are found with -- --include_path FOLDER"
            )
        return json.loads(found[-1].read_text(encoding="utf-8"))
