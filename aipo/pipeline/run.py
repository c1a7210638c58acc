"""A job as typed objects: every component of a checked config, built once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aipo.artifacts import Store
from aipo.benchmarks.benchmark import Benchmark
from aipo.components import build_component, content_of
from aipo.data.recipe import Recipe
from aipo.iteration import Iteration
from aipo.judges.judge import Judge
from aipo.models.policy import BaseModel, PolicyRef
from aipo.pipeline.trackers import Tracker
from aipo.planning.costs import Hardware, Workload
from aipo.planning.resources import Resources
from aipo.rankers.ranker import Ranker
from aipo.samplers.sampler import Sampler
from aipo.training.trainer import Trainer

if TYPE_CHECKING:
    from aipo.objectives import Objective

CONTENT_GROUPS = ("model", "data", "sampler", "ranker", "objective", "iteration", "trainer", "judge")
"""Groups whose settings shape a job's numbers, all of one component each."""


@dataclass(frozen=True)
class BenchmarkContent:
    """A benchmark's settings and the identity of its assets, each where it first has an effect.

    The class's `JUDGING` and `SCORING` name the settings that do not shape answers; dotted names reach into nested
    components. A stage hashes its own part and its parents' fingerprints, so rescoring never asks a judge again.
    """

    answering: Mapping[str, Any]
    judging: Mapping[str, Any]
    scoring: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """Everything that one job works with."""

    seed: int
    model: PolicyRef | BaseModel
    recipe: Recipe
    sampler: Callable[..., Sampler]
    """Called with `policy=`."""
    ranker: Ranker
    objective: Objective
    iteration: Iteration
    trainer: Trainer
    judge: Judge
    diagnostic_judges: Mapping[str, Judge]
    benchmarks: Mapping[str, Benchmark]
    trackers: tuple[Tracker, ...]
    store: Store
    hardware: Hardware
    workload: Workload
    resources: Resources
    judge_later: bool
    """Whether judging is left for another run of the same job."""
    kl_prompts: int
    """Pool prompts on which each policy's KL from the base model is measured; 0: it is not."""
    content: Mapping[str, Any]
    """By config group, the settings that shape what its component makes; by name for benchmarks and judges."""

    @property
    def starts_servers(self) -> bool:
        """Whether a stage that draws starts a server for it."""
        policy = self.model if isinstance(self.model, PolicyRef) else PolicyRef("policy")
        return getattr(self.sampler(policy=policy), "server", None) is not None

    def benchmark_content(self, name: str) -> BenchmarkContent:
        """The settings of a benchmark, divided among its three stages."""
        return divide(self.content["benchmark"][name], self.benchmarks[name])


def build_run(config: Mapping[str, Any], known: dict[str, Any] | None = None) -> Run:
    """The objects of a config that `check` has passed. Constructors are cheap: no file or model is read here.

    `known` keeps what was built of each node, for many jobs of one sweep that are looked at and not run.
    """

    def component(node: Mapping[str, Any]) -> Any:
        if known is None:
            return build_component(node)
        text = json.dumps(node, sort_keys=True, default=str)
        if text not in known:
            known[text] = build_component(node)
        return known[text]

    benchmarks = config["benchmark"] or {}
    diagnostics = config["diagnostic_judge"] or {}
    return Run(
        seed=config["seed"],
        model=component(config["model"]),
        recipe=component(config["data"]),
        sampler=component(config["sampler"]),
        ranker=component(config["ranker"]),
        objective=component(config["objective"]),
        iteration=component(config["iteration"]),
        trainer=component(config["trainer"]),
        judge=component(config["judge"]),
        diagnostic_judges={name: component(node) for name, node in diagnostics.items()},
        benchmarks={name: component(node) for name, node in benchmarks.items()},
        trackers=tuple(component(node) for node in (config["tracker"] or {}).values()),
        store=component(config["store"]),
        hardware=component(config["hardware"]),
        workload=component(config["workload"]),
        resources=component(config["resources"]),
        judge_later=bool(config.get("judge_later")),
        kl_prompts=config["kl_prompts"],
        content=content(config),
    )


def content(config: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a resolved config that shape numbers. Equal content means equal fingerprints, and one job.

    `kl_prompts` is among them where it is not its scale's usual number, so that other jobs keep the names they have.
    """
    found: dict[str, Any] = {"seed": config["seed"]}
    found |= {group: content_of(config[group], with_judge=group == "ranker") for group in CONTENT_GROUPS}
    for group in ("diagnostic_judge", "benchmark"):
        found[group] = {name: content_of(node) for name, node in (config[group] or {}).items()}
    return found if has_usual_kl(config) else found | {"kl_prompts": config["kl_prompts"]}


def has_usual_kl(config: Mapping[str, Any]) -> bool:
    """Whether a resolved config measures KL on as many prompts as its scale does where nothing is said."""
    return bool(config["kl_prompts"] == (config.get("choices") or {}).get("kl_prompts"))


def divide(node: Mapping[str, Any], benchmark: Benchmark) -> BenchmarkContent:
    """A benchmark's content by the stage that each setting first has an effect on."""
    rest = dict(node)
    parts: dict[str, dict[str, Any]] = {}
    for part, paths in (("SCORING", benchmark.SCORING), ("JUDGING", benchmark.JUDGING)):
        parts[part] = {}
        for path in paths:
            rest, value = _without(rest, path.split("."))
            if value is not _ABSENT:
                parts[part][path] = value
    files = benchmark.asset_identity()
    target = {"_target_": node["_target_"]}
    return BenchmarkContent(
        answering={**rest, "identity": dict(files.answering)},
        judging={**target, **parts["JUDGING"], "identity": dict(files.judging)},
        scoring={**target, **parts["SCORING"], "identity": dict(files.scoring)},
    )


_ABSENT = object()


def _without(node: Mapping[str, Any], path: list[str]) -> tuple[dict[str, Any], Any]:
    """The node without the value at `path`, and that value."""
    key, *deeper = path
    if not isinstance(node.get(key, _ABSENT), Mapping) or not deeper:
        return {name: value for name, value in node.items() if name != key}, node.get(key, _ABSENT)
    inner, value = _without(node[key], deeper)
    return {**node, key: inner}, value
