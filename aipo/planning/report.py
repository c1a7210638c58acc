"""`plan=true`: the stages, what is cached, what the rest would cost, and what is missing. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aipo.artifacts import PlanStore, StageEvent
from aipo.planning.costs import (
    GIB,
    Cost,
    Hardware,
    Workload,
    decoding_cost,
    devices_per_replica,
    forward_cost,
    training_cost,
    training_memory,
)
from aipo.planning.missing import missing_needs
from aipo.planning.shapes import ModelShape, shape_of_folder
from aipo.stages import Iteration, build_component


def print_plan(config: Mapping[str, Any], events: list[StageEvent]) -> None:
    """Print the plan of a checked config whose stages were walked with a PlanStore."""
    console = Console(width=120, highlight=False)
    _print_stages(console, events)
    shape = model_shape(config)
    if shape is None:
        console.print("\nEstimates: none, because the model's shape is unknown until it is downloaded or built.")
    else:
        _print_estimates(console, config, shape, events)
    _print_judging(console, config, events)
    missing = missing_needs(config)
    console.print("\nMissing: " + ("nothing" if not missing else f"{len(missing)} thing(s)"))
    for item in missing:
        console.print(f"  - {item}", markup=False)


def walk(config: Mapping[str, Any]) -> list[StageEvent]:
    """Every stage of the config, cached or planned, in the order of a run."""
    from aipo.pipeline import plan

    store = PlanStore(config["store"]["root"], config["store"].get("lock", "flock"))
    events: list[StageEvent] = []
    store.listeners.append(events.append)
    plan(config, store)
    return events


def model_shape(config: Mapping[str, Any]) -> ModelShape | None:
    """The shape a preset states, a local folder's, or that of a base model already built; else None."""
    node = config["model"]
    if node.get("shape"):
        return build_component(node["shape"])
    folders = [Path(node["path"])] if "path" in node else []
    if not folders:
        root = Path(config["store"]["root"]) / "base_model"
        folders = sorted(path / "model" for path in root.glob("*") if path.suffix != ".partial")
    for folder in folders:
        if (folder / "config.json").exists():
            return shape_of_folder(folder)
    return None


def stage_costs(config: Mapping[str, Any], shape: ModelShape) -> dict[str, Cost]:
    """The cost of one execution of each kind of stage that uses the policy."""
    hardware: Hardware = build_component(config["hardware"])
    workload: Workload = build_component(config["workload"])
    iteration: Iteration = build_component(config["iteration"])
    recipe = build_component(config["data"])
    checkpointing = bool(config["trainer"].get("gradient_checkpointing", False))
    pairs = iteration.prompts * workload.pairs_per_prompt
    row = workload.prompt_tokens + 2 * workload.completion_tokens
    costs = {
        "reference": forward_cost(shape, hardware, pairs, row),
        "train": training_cost(shape, hardware, workload, pairs, checkpointing),
    }
    new_tokens = min(workload.completion_tokens, iteration.decoding.max_new_tokens)
    if recipe.responses == "generated":
        costs["candidates"] = decoding_cost(
            shape, hardware, workload, iteration.prompts, iteration.candidates, new_tokens
        )
    if recipe.prompts == "self_instruct":
        tokens = workload.self_instruct_tokens_per_prompt / 2
        costs["prompts"] = decoding_cost(shape, hardware, workload, iteration.prompts, 1, tokens)
    for name, node in (config["benchmark"] or {}).items():
        questions = build_component(node).n_answers
        costs[f"answers {name}"] = decoding_cost(shape, hardware, workload, questions, 1, workload.answer_tokens)
    return costs


def _print_stages(console: Console, events: list[StageEvent]) -> None:
    table = Table(title="Stages", title_justify="left", box=None, pad_edge=False)
    for column in ("", "stage", "fingerprint", "state"):
        table.add_column(column)
    for event in events:
        table.add_row(event.note, event.stage, event.fingerprint, event.outcome)
    console.print(table)
    planned = sum(event.outcome == "planned" for event in events)
    console.print(f"{len(events)} stages: {len(events) - planned} cached, {planned} to run")


def _print_estimates(
    console: Console, config: Mapping[str, Any], shape: ModelShape, events: list[StageEvent]
) -> None:
    hardware: Hardware = build_component(config["hardware"])
    workload: Workload = build_component(config["workload"])
    table = Table(
        title=f"\nEstimates for {shape.parameters / 1e9:.3g} B parameters on {hardware.devices} device(s) of "
        f"{hardware.memory_gib:g} GiB (assumed lengths and shares: conf/workload, conf/hardware)",
        title_justify="left", box=None, pad_edge=False,
    )
    for column in ("stage", "to run", "million tokens each", "hours each", "hours"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    total = 0.0
    for kind, cost in stage_costs(config, shape).items():
        stage, _, benchmark = kind.partition(" ")
        runs = sum(
            event.outcome == "planned" and event.stage == stage and event.note.endswith(benchmark) for event in events
        )
        total += runs * cost.hours
        cells = (f"{cost.tokens / 1e6:,.3g}", f"{cost.hours:,.3g}", f"{runs * cost.hours:,.3g}")
        table.add_row(kind, str(runs), *cells)
    table.add_row("all", "", "", "", f"{total:,.3g}")
    console.print(table)
    console.print(f"device hours: {total * hardware.devices:,.3g}")
    _print_memory(console, config, shape, hardware, workload)
    bytes_each = 4 if config["trainer"].get("dtype", "float32") == "float32" else 2
    checkpoints = sum(event.outcome == "planned" and event.stage == "train" for event in events)
    final = shape.parameters * bytes_each / GIB
    console.print(
        f"disk: {checkpoints} trained model(s) of {final:,.3g} GiB = {checkpoints * final:,.3g} GiB, and "
        f"{final * 3:,.3g} GiB for one mid-epoch checkpoint while training"
    )


def _print_memory(
    console: Console, config: Mapping[str, Any], shape: ModelShape, hardware: Hardware, workload: Workload
) -> None:
    bytes_each = 4 if config["trainer"].get("dtype", "float32") == "float32" else 2
    row = workload.prompt_tokens + 2 * workload.completion_tokens
    checkpointing = bool(config["trainer"].get("gradient_checkpointing", False))
    memory = training_memory(shape, hardware, row, checkpointing, 1.0, bytes_each)
    parts = ", ".join(
        f"{name} {getattr(memory, name):,.3g}"
        for name in ("weights", "gradients", "optimizer", "activations", "logits")
    )
    verdict = "fits" if memory.total < 0.9 * hardware.memory_gib else "DOES NOT FIT: use more devices, or LoRA"
    console.print(f"training memory per device, one row at a time: {memory.total:,.3g} GiB ({parts}): {verdict}")
    console.print(f"sampling: one copy of the weights on {devices_per_replica(shape, hardware)} device(s)")


def _print_judging(console: Console, config: Mapping[str, Any], events: list[StageEvent]) -> None:
    workload: Workload = build_component(config["workload"])
    judge = build_component(config["judge"])
    requests = 0
    for name, node in (config["benchmark"] or {}).items():
        benchmark = build_component(node)
        runs = sum(
            event.outcome == "planned" and event.stage == "judgments" and event.note.endswith(f" {name}") for event in events
        )
        if benchmark.uses_judge:
            requests += benchmark.n_judge_requests * runs
    line = f"\nJudge {judge.name}: at most {requests:,} requests"
    prices = getattr(judge, "price", None)
    if prices is not None:
        dollars = requests * prices.dollars(workload.judge_prompt_tokens, workload.judge_reply_tokens)
        line += f", about ${dollars:,.0f} at {prices.source}"
    console.print(line, markup=False)
