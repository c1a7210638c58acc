"""Small jobs whose stages have resources of their own, and a cluster that runs their parts at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from composing import composed

from aipo.pipeline.check import check
from aipo.pipeline.cluster import job, snapshot
from aipo.pipeline.cluster.parts import Part
from aipo.pipeline.cluster.snapshot import Asked

SMALL = (
    *("model.retrain=true", "model.steps=20", "model.n_documents=300", "iteration.iterations=2", "kl_prompts=0"),
    *("data=pairrm_gen_uf", "iteration.prompts=16", "iteration.candidates=2", "diagnostic_judge=[]", "sweep=s"),
    *("benchmark=[gold,mini_mt_bench]", "benchmark.gold.n_questions=8", "benchmark.mt_bench.assets.n_questions=8"),
)
OWN = ("resources.training={cpus_per_task: 2}", "resources.judging={cpus_per_task: 1}")


def asked_for(folder: Path, *overrides: str, objective: str = "dpo") -> Asked:
    """A job with `folder/outputs` as its store."""
    given = (*SMALL, f"objective={objective}", f"store.root={folder / 'outputs'}", *overrides)
    config = check(composed(*given))
    place = folder / "results" / "s" / "jobs" / f"{objective}-{config['seed']}"
    choices = {"model": "miniature", "data": "pairrm_gen_uf", "objective": objective}
    return Asked(str(place), config, tuple(given), choices, None)


def run_parts(folder: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a job and all that it submits, one after the other; what each was for."""
    kept = snapshot.take(Path(asked.folder).parent.parent, [asked], {"cpus_per_task": 1})
    queue: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
    settings: list[Any] = []

    def submit_one(at: Path, launcher: Any, function: Callable[..., Any], *arguments: Any) -> tuple[str, str]:
        assert at == kept
        settings.append(launcher)
        queue.append((function, arguments))
        return str(100 + len(queue)), "log"

    monkeypatch.setattr(job, "submit_one", submit_one)
    queue.append((job.SweepJob(), (kept / "jobs" / f"{Path(asked.folder).name}.json",)))
    done = []
    for function, arguments in queue:
        part = arguments[1] if len(arguments) > 1 else Part()
        done.append(part.kind)
        function(*arguments)
    assert [item["cpus_per_task"] for item in settings] == [{"training": 2}.get(kind, 1) for kind in done[1:]]
    return done


@pytest.fixture
def kept_signals() -> Iterator[None]:
    """The handlers that a job's part installs are gone afterwards."""
    before = {number: signal.getsignal(number) for number in job.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
