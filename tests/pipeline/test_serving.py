"""A server loads a policy once for all stages that draw from it, and holds no device when another stage needs it."""

from __future__ import annotations

import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

from aipo.artifacts import StageReport, Store
from aipo.models.policy import PolicyRef
from aipo.pipeline.stages import Policy, Stages


class Serving:
    """A sampler whose server is stopped when nobody has it any more, as `ServerSampler`'s is."""

    started: list[str] = []
    running: list[str] = []

    def __init__(self, policy: PolicyRef) -> None:
        self.server = "one"
        Serving.started.append(policy.path)
        Serving.running.append(policy.path)
        weakref.finalize(self, Serving.running.remove, policy.path)


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    Serving.started, Serving.running = [], []
    run = SimpleNamespace(store=Store(tmp_path), seed=0, recipe=None, iteration=None, sampler=Serving)
    return Stages(run)


def policy(name: str) -> Policy:
    return Policy(PolicyRef(name), name, 0)


def stage(stages: Stages, kind: str, drawing_from: str | None = None) -> list[str]:
    """Run a stage; what serves while it works."""
    seen: list[str] = []

    def build(folder: Path) -> StageReport:
        if drawing_from:
            stages.sampler(policy(drawing_from), folder)
        seen.extend(Serving.running)
        return StageReport()

    stages.make(kind, {"number": len(Serving.started), "of": drawing_from, "n": id(seen)}, {}, build, 0)
    return seen


def test_one_start_for_each_policy(stages: Stages) -> None:
    for kind in ("answers", "answers", "prompts", "candidates"):
        assert stage(stages, kind, "base") == ["base"]
    assert stage(stages, "judgments") == ["base"]
    assert stage(stages, "ranking") == [], "its model needs the devices"
    assert stage(stages, "train") == []
    assert stage(stages, "answers", "round 1") == ["round 1"]
    assert Serving.started == ["base", "round 1"]


@pytest.mark.parametrize("kind", ["ranking", "pairs", "reference", "train", "average", "proxy"])
def test_a_stage_that_needs_the_devices_finds_them_free(stages: Stages, kind: str) -> None:
    stage(stages, "answers", "base")
    assert stage(stages, kind) == []


def test_another_policy_is_never_drawn_from_by_mistake(stages: Stages, tmp_path: Path) -> None:
    first = stages.sampler(policy("a"), tmp_path)
    assert stages.sampler(policy("a"), tmp_path) is first
    del first
    stages.sampler(policy("b"), tmp_path)
    assert Serving.running == ["b"]
