"""Jobs of a sweep beside each other: how many at once, in which order, and how they end."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from composing import composed
from omegaconf import OmegaConf, open_dict

from aipo.pipeline import beside, folders
from aipo.pipeline.cluster import Asked
from aipo.pipeline.composer import Combination

SUBMITIT = importlib.util.find_spec("submitit") is not None
STUB = """
import json, signal, sys, time
from pathlib import Path
row = json.load(sys.stdin)
folder = Path(row["job"]["folder"])
def told(number, frame):
    (folder / "told").write_text(signal.Signals(number).name)
    sys.exit(5)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, told)
began = time.time()
(folder / "began").write_text(str(began))
time.sleep(row["job"]["config"]["seconds"])
(folder / "ended").write_text(json.dumps([began, time.time(), row["place"]["number"], row["place"]["of"]]))
sys.exit(row["job"]["config"]["status"])
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stub_job.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(beside, "WORKER", "stub_job")
    return tmp_path


def _asked(folder: Path, *jobs: tuple[float, int]) -> list[Asked]:
    found = []
    for number, (seconds, status) in enumerate(jobs):
        (folder / str(number)).mkdir()
        config = {"seconds": seconds, "status": status}
        found.append(Asked(str(folder / str(number)), config, (f"seed={number}",), {}, None))
    return found


def test_jobs_begin_in_order_and_no_more_at_once_than_asked(stub: Path) -> None:
    assert beside.run(_asked(stub, (0.5, 0), (0.1, 0), (0.1, 0), (0.1, 0)), 2, beside.Workers(0)) == 0
    ended = [json.loads((stub / str(number) / "ended").read_text()) for number in range(4)]
    assert [row[2:] for row in ended] == [[1, 4], [2, 4], [3, 4], [4, 4]]
    for moment, *_ in ended:
        assert sum(began <= moment < end for began, end, *_ in ended) <= 2
    assert ended[2][0] >= min(ended[0][1], ended[1][1])


def test_a_job_that_fails_stops_no_other_and_is_told_in_the_exit_status(stub: Path) -> None:
    assert beside.run(_asked(stub, (0.0, 1), (0.2, 0), (0.0, 0)), 2, beside.Workers(1)) == 1
    assert all((stub / str(number) / "ended").exists() for number in range(3))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whatever_ends_the_sweep_ends_its_jobs_first(stub: Path, number: signal.Signals) -> None:
    def end() -> None:
        while not all((stub / job / "began").exists() for job in "01"):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    jobs = _asked(stub, (60.0, 0), (60.0, 0), (0.0, 0))
    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
        beside.run(jobs, 2, beside.Workers(2))
    thread.join()
    assert [(stub / job / "told").read_text() for job in "01"] == [number.name] * 2
    assert not (stub / "2" / "began").exists()


def _job(choices: dict[str, str], **settings: object) -> Combination:
    config = composed("scale=miniature")
    with open_dict(config):
        for key, value in settings.items():
            OmegaConf.update(config, key, value)
    return Combination(config, (), {"model": "miniature", "sampler": "hf"} | choices, OmegaConf.create())


def test_small_jobs_get_a_core_each_and_others_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "cores", lambda: 8)
    monkeypatch.setattr(beside, "_has_gpu", lambda: False)
    monkeypatch.setattr(beside, "_memory_gib", lambda: 6.5)
    small, large = _job({}), _job({"model": "smollm2"})
    assert beside.jobs_at_once([small] * 3) == 3
    assert beside.jobs_at_once([small] * 9) == 6  # a GiB each
    assert beside.jobs_at_once([small, _job({"model": "miniature_96"})]) == 2
    assert beside.jobs_at_once([small, large]) == 1
    assert beside.jobs_at_once([_job({"sampler": "vllm"})] * 2) == 1
    assert beside.jobs_at_once([_job({}, cpu_threads=4)] * 9) == 2
    assert beside.jobs_at_once([_job({"model": "smollm2"}, jobs_at_once=2)] * 9) == 2
    monkeypatch.setattr(beside, "_has_gpu", lambda: True)
    assert beside.jobs_at_once([small] * 3) == 1


def test_workers_that_get_no_job_go_home(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with beside.Workers(2) as workers:
        processes = list(workers._waiting)
        assert [process.poll() for process in processes] == [None, None]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_died_while_it_waited_is_replaced(stub: Path) -> None:
    workers = beside.Workers(2)
    first = workers._waiting[0]
    first.kill()
    first.wait()
    assert beside.run(_asked(stub, (0.0, 0), (0.0, 0)), 2, workers) == 0


def test_a_job_whose_process_cannot_begin_stops_no_other(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe to it is broken before it has read which job it is."""
    (stub / "no_job.py").write_text("import sys; sys.exit(3)")
    workers = beside.Workers(1)
    monkeypatch.setattr(beside, "WORKER", "no_job")
    jobs = _asked(stub, (0.2, 0), (0.0, 0))
    jobs[1] = replace(jobs[1], overrides=("x" * 1_000_000,))
    assert beside.run(jobs, 2, workers) == 1 and (stub / "0" / "ended").exists()


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        (["sweep=s"], 2),
        (["jobs_at_once=3"], 3),
        (["jobs_at_once=1"], 0),
        (["jobs_at_once=100000"], 4),
        (["plan=true"], 0),
        pytest.param(["hydra/launcher=slurm"], 0, marks=pytest.mark.skipif(not SUBMITIT, reason="extra slurm")),
        (["cpu_threads=0"], 0),
        (["cpu_threads=many"], 0),
        (["model.path=x", "model=local"], 0),
    ],
)
def test_as_many_are_called_as_the_sweep_will_need(
    monkeypatch: pytest.MonkeyPatch, overrides: list[str], count: int
) -> None:
    called: list[int] = []
    monkeypatch.setattr(beside, "_start", lambda: called.append(1))
    monkeypatch.setattr(beside, "cores", lambda: 4)
    monkeypatch.setattr(beside, "_has_gpu", lambda: False)
    monkeypatch.setattr(beside, "_memory_gib", lambda: 2.5)
    folders.register()
    config = composed(*overrides, with_hydra=True)
    beside.Workers.expected(config, 100_000)
    assert len(called) == count


@pytest.mark.slow
def test_jobs_beside_each_other_make_what_they_make_one_after_the_other(tmp_path: Path, repository: Path) -> None:
    """Artifacts by name and bytes, but for times and what the machine measured."""
    made = []
    for at_once in (1, 2):
        folder = tmp_path / str(at_once)
        folder.mkdir()
        subprocess.run(
            [
                *(sys.executable, str(repository / "run.py"), "-m", "+experiment=smoke", "objective=aipo,dpo"),
                *(f"jobs_at_once={at_once}", "sweep=s"),
            ],
            cwd=folder, env=os.environ | {"PYTHONPATH": str(repository)}, check=True, capture_output=True, timeout=600,
        )  # fmt: skip
        kinds = ("metrics.json", "answers.parquet", "judgments.jsonl", "model.safetensors")
        files = [path for path in (folder / "outputs").rglob("*") if path.name in kinds]
        made.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
    assert len(made[0]) > 40 and made[0] == made[1]
