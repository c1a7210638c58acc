"""The loop, readable from top to bottom: one job of a sweep, from the config to its scores."""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from aipo.artifacts import PlanStore, StageEvent
from aipo.components import build_component
from aipo.pipeline.check import ConfigError, check
from aipo.pipeline.missing import missing_needs
from aipo.pipeline.stages import Policy, Stages
from aipo.pipeline.trackers import Trackers

logger = logging.getLogger("aipo")


def run(config: DictConfig, folder: Path, overrides: Sequence[str], choices: Mapping[str, Any]) -> None:
    """Check the config, then run (or plan) one job; `folder` receives its run.json, metrics and log.

    `choices`: what Hydra chose for each config group; the names of the model and the data go into run.json.

    Raises ConfigError before anything runs; any error of a stage is written into run.json and passes through.
    """
    plain = check(config)
    _limit_threads(plain["cpu_threads"])
    if plain["plan"]:
        from aipo.planning.report import print_plan

        print_plan(plain, walk(plain), missing_needs(plain))
        return
    if missing := missing_needs(plain):
        raise ConfigError([f"missing {item}" for item in missing])
    folder.mkdir(parents=True, exist_ok=True)
    record = JobRecord(folder / "run.json", plain, overrides, choices)
    trackers = Trackers([build_component(node) for node in plain["tracker"].values()])
    store = build_component(plain["store"])
    store.listeners.append(print_event)
    trackers.start(folder, {key: record.content[key] for key in ("objective", "seed", "overrides", "variant")})
    try:
        loop(Stages(store, plain, lambda step: trackers.log("train", step)), plain, record, trackers)
        record.finish("done")
    except BaseException as error:
        record.finish("failed", f"{type(error).__name__}: {error}")
        (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        raise
    finally:
        trackers.finish()


def walk(config: Mapping[str, Any]) -> list[StageEvent]:
    """Every stage of the config, cached or planned, in the order of a run; one that is met again only once."""
    store = PlanStore(config["store"]["root"], config["store"].get("lock", "flock"))
    events: dict[tuple[str, str], StageEvent] = {}
    store.listeners.append(lambda event: events.setdefault((event.stage, event.fingerprint), event))
    loop(Stages(store, config, lambda step: None), config, None, None)
    return list(events.values())


def loop(stages: Stages, config: Mapping[str, Any], record: JobRecord | None, trackers: Trackers | None) -> None:
    """Algorithm 1 of the paper, with an evaluation of the base model and after every round."""
    base = stages.base_model()
    pool = stages.pool()
    evaluate(stages, config, base, base, {}, record, trackers)
    policy = base
    for iteration in range(stages.iteration.iterations):
        prompts = stages.prompts(pool, policy, iteration)
        candidates = stages.candidates(pool, prompts, policy, iteration)
        ranking = stages.ranking(candidates, iteration)
        pairs = stages.pairs(candidates, ranking, policy, iteration)
        frozen = policy if stages.iteration.reference == "previous" else base
        reference = stages.reference(pairs, frozen, iteration)
        policy, trained = stages.train(policy, pairs, reference, iteration)
        parts = {"pairs": pairs.fingerprint, "reference": reference.fingerprint, "train": trained.fingerprint}
        evaluate(stages, config, policy, base, parts, record, trackers)


def evaluate(
    stages: Stages,
    config: Mapping[str, Any],
    policy: Policy,
    base: Policy,
    parts: Mapping[str, str],
    record: JobRecord | None,
    trackers: Trackers | None,
) -> None:
    """Every benchmark by the main judge and, as `benchmark@judge`, by each diagnostic judge."""
    scores: dict[str, str] = {}
    for name, node in (config["benchmark"] or {}).items():
        benchmark = build_component(node)
        answers = stages.answers(name, policy)
        baseline = stages.answers(name, base) if benchmark.needs_baseline else None
        judges = {name: config["judge"]}
        if benchmark.uses_judge:
            judges |= {f"{name}@{judge}": config["diagnostic_judge"][judge] for judge in config["diagnostic_judge"]}
        for key, judge in judges.items():
            judgments = stages.judgments(name, judge, answers, baseline, policy.iteration, key)
            scored = stages.scores(name, answers, judgments, baseline, policy.iteration, key)
            scores[key] = scored.fingerprint
            if trackers is not None:
                for metric in json.loads((scored.path / "metrics.json").read_text(encoding="utf-8")):
                    trackers.log("score", {"iteration": policy.iteration, "benchmark": key, **metric})
        if record is not None:
            record.content["benchmarks"][name] = {
                "primary_metric": benchmark.primary_metric,
                "length_metric": benchmark.length_metric,
            }
    if record is not None:
        record.add_point({"iteration": policy.iteration, "policy": policy.fingerprint, **parts, "scores": scores})


class JobRecord:
    """`run.json`: what the analysis reads about a job, written whole after every change."""

    def __init__(
        self, path: Path, config: Mapping[str, Any], overrides: Sequence[str], choices: Mapping[str, Any]
    ) -> None:
        self.path = path
        described = ("objective=", "seed=")
        root = Path(config["store"]["root"])
        self.content: dict[str, Any] = {
            "status": "running",
            "error": None,
            "objective": config["objective"]["name"],
            "seed": config["seed"],
            "model": choices["model"],
            "data": choices["data"],
            "overrides": list(overrides),
            "variant": ",".join(sorted(item for item in overrides if not item.startswith(described))),
            "store": str(root.resolve()) if root.is_absolute() else str(root),
            "benchmarks": {},
            "points": [],
        }
        self._write()

    def add_point(self, point: Mapping[str, Any]) -> None:
        """A policy was evaluated."""
        self.content["points"].append({"pairs": None, "reference": None, "train": None} | dict(point))
        self._write()

    def finish(self, status: str, error: str | None = None) -> None:
        """The job ended."""
        self.content |= {"status": status, "error": error}
        self._write()

    def _write(self) -> None:
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, self.path)


def print_event(event: StageEvent) -> None:
    """One line per stage on the console."""
    numbers = [f"{key}={_short(value)}" for key, value in event.report.counts.items()]
    dropped = {reason: count for reason, count in event.report.dropped.items() if count}
    if dropped:
        numbers.append("dropped: " + ", ".join(f"{reason} {count}" for reason, count in dropped.items()))
    seconds = f"{event.seconds:7.1f} s" if event.outcome == "run" else " " * 9
    logger.info(
        "%-31s %-11s %s  %-6s %s  %s",
        event.note,
        event.stage,
        event.fingerprint,
        event.outcome,
        seconds,
        " ".join(numbers[:8]),
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _limit_threads(cpu_threads: int) -> None:
    """Float sums depend on the number of threads: a fixed one makes CPU runs equal bit for bit."""
    import torch

    torch.set_num_threads(cpu_threads)
    os.environ["OMP_NUM_THREADS"] = str(cpu_threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
