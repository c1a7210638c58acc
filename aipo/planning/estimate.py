"""What the stages still to run would cost: of one job, or of all jobs of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aipo.artifacts import StageEvent
from aipo.components import build_component
from aipo.iteration import Iteration
from aipo.models.shape import ModelShape, shape_of_folder
from aipo.planning.costs import Cost, Hardware, Workload, decoding_cost, forward_cost, training_cost
from aipo.planning.memory import TrainingSetup, policy_gib


def model_shape(config: Mapping[str, Any]) -> ModelShape | None:
    """The shape a preset states, a local folder's, or that of a base model already built; else None."""
    model = build_component(config["model"])
    if getattr(model, "shape", None) is not None:
        return model.shape
    folders = [Path(config["model"]["path"])] if "path" in config["model"] else []
    if not folders:
        root = Path(config["store"]["root"]) / "base_model"
        folders = sorted(path / "model" for path in root.glob("*") if path.suffix != ".partial")
    for folder in folders:
        if (folder / "config.json").exists():
            return shape_of_folder(folder)
    return None


def stage_costs(config: Mapping[str, Any], shape: ModelShape) -> dict[str, Cost]:
    """The cost of one execution of each kind of stage that uses the policy, in the order of a round."""
    hardware: Hardware = build_component(config["hardware"])
    trained_on = replace(hardware, devices=training_setup(config).processes)
    workload: Workload = build_component(config["workload"])
    iteration: Iteration = build_component(config["iteration"])
    recipe = build_component(config["data"])
    checkpointing = bool(config["trainer"].get("gradient_checkpointing", False))
    pairs = iteration.prompts * workload.pairs_per_prompt
    row = workload.prompt_tokens + 2 * workload.completion_tokens
    costs: dict[str, Cost] = {}
    if recipe.prompts == "self_instruct":
        tokens = workload.self_instruct_tokens_per_prompt / 2
        costs["prompts"] = decoding_cost(shape, hardware, workload, iteration.prompts, 1, tokens)
    if recipe.responses == "generated":
        new_tokens = min(workload.completion_tokens, iteration.decoding.max_new_tokens)
        costs["candidates"] = decoding_cost(
            shape, hardware, workload, iteration.prompts, iteration.candidates, new_tokens
        )
    if iteration.reference_logps == "model":
        costs["reference"] = forward_cost(shape, trained_on, pairs, row)
    epochs = config["trainer"].get("epochs", 1)
    costs["train"] = training_cost(shape, trained_on, workload, pairs * epochs, checkpointing)
    for name, node in (config["benchmark"] or {}).items():
        questions = build_component(node).n_answers
        costs[f"answers {name}"] = decoding_cost(shape, hardware, workload, questions, 1, workload.answer_tokens)
    return costs


def devices_held(config: Mapping[str, Any]) -> int:
    """The devices that a job holds from its start to its end: those of one node, or of all that training needs."""
    return max(config["hardware"]["devices"], training_setup(config).processes)


def training_setup(config: Mapping[str, Any]) -> TrainingSetup:
    """What the memory of training depends on."""
    trainer, recipe = build_component(config["trainer"]), build_component(config["data"])
    filters = recipe.filters
    longest = filters.max_prompt_tokens + 2 * filters.max_completion_tokens
    sampled = config["model"].get("dtype", "float32")
    return TrainingSetup(
        dtype=trainer.dtype or sampled,
        sampled_dtype=sampled,
        keep_masters=trainer.keep_masters,
        attn_implementation=config["model"].get("attn_implementation", "sdpa"),
        processes=trainer.processes,
        sharded=trainer.strategy == "fsdp2",
        gradient_checkpointing=trainer.gradient_checkpointing,
        lora_rank=None if trainer.adapters is None else trainer.adapters.rank,
        longest_row=longest,
    )


@dataclass(frozen=True)
class JudgeLoad:
    """What one judge is asked in a run."""

    name: str
    requests: int
    dollars: float | None
    """None: the judge has no price."""
    source: str
    """Of the price."""


def judge_loads(config: Mapping[str, Any], events: Sequence[StageEvent]) -> Iterator[JudgeLoad]:
    """The main judge's requests for all judgments still to be made, and those of a ranker that asks a judge.

    Diagnostic judges are free. Equal candidates are asked about once; they are counted as if all were different.
    """
    requests = 0
    for name, node in (config["benchmark"] or {}).items():
        runs = sum(
            event.outcome == "planned" and event.stage == "judgments" and event.note.endswith(f" {name}")
            for event in events
        )
        requests += build_component(node).n_judge_requests * runs
    yield _judge_load(config, build_component(config["judge"]), requests)
    ranker, iteration = build_component(config["ranker"]), build_component(config["iteration"])
    if hasattr(ranker, "judge") and build_component(config["data"]).ranking == "ranker":
        requests = runs_of("ranking", events) * iteration.prompts * iteration.candidates
        yield _judge_load(config, ranker.judge, requests)


def _judge_load(config: Mapping[str, Any], judge: Any, requests: int) -> JudgeLoad:
    price = getattr(judge, "price", None)
    if price is None:
        return JudgeLoad(judge.name, requests, None, "")
    workload: Workload = build_component(config["workload"])
    dollars = requests * price.dollars(workload.judge_prompt_tokens, workload.judge_reply_tokens)
    return JudgeLoad(judge.name, requests, dollars, price.source)


@dataclass
class Totals:
    """Of all jobs of a sweep; a stage that several jobs need counts once."""

    jobs: int = 0
    stages: int = 0
    hours: float = 0.0
    """If the jobs run one after the other."""
    device_hours: float = 0.0
    unknown: int = 0
    """Jobs without an estimate, as their model's shape is unknown."""
    disk_gib: float = 0.0
    requests: int = 0
    dollars: float | None = None


def sweep_totals(jobs: Sequence[tuple[Mapping[str, Any], Sequence[StageEvent]]]) -> Totals:
    """Sums over a sweep's jobs: the checked config of each, and every stage it would go through."""
    totals, seen = Totals(jobs=len(jobs)), set()
    for config, walked in jobs:
        events = [event for event in walked if (event.stage, event.fingerprint) not in seen]
        events = [event for event in events if event.outcome == "planned"]
        seen |= {(event.stage, event.fingerprint) for event in events}
        totals.stages += len(events)
        for load in judge_loads(config, events):
            totals.requests += load.requests
            if load.dollars is not None:
                totals.dollars = (totals.dollars or 0.0) + load.dollars
        shape = model_shape(config)
        if shape is None:
            totals.unknown += 1
            continue
        hours = sum(runs_of(kind, events) * cost.hours for kind, cost in stage_costs(config, shape).items())
        totals.hours += hours
        totals.device_hours += hours * devices_held(config)
        totals.disk_gib += runs_of("train", events) * policy_gib(shape, training_setup(config))
    return totals


def runs_of(kind: str, events: Sequence[StageEvent]) -> int:
    """How often a kind of `stage_costs` is still to run."""
    stage, _, benchmark = kind.partition(" ")
    return sum(
        event.outcome == "planned" and event.stage == stage and event.note.endswith(benchmark) for event in events
    )
