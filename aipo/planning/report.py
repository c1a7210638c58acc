"""`plan=true`: the stages, what is cached, what the rest would cost, and what is missing. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from aipo.artifacts import PlanStore, StageEvent
from aipo.planning.costs import (
    Cost,
    Hardware,
    Workload,
    decoding_cost,
    devices_per_replica,
    forward_cost,
    training_cost,
)
from aipo.planning.memory import TrainingSetup, checkpoint_gib, model_gib, training_memory
from aipo.planning.missing import missing_needs
from aipo.planning.shapes import ModelShape, shape_of_folder
from aipo.stages import Iteration, build_component

STAGES = (
    *("base_model", "pool", "prompts", "candidates", "ranking", "pairs", "reference", "train"),
    *("answers", "judgments", "scores"),
)
USABLE = 0.9
"""Share of a device's memory that training may fill; the trainer's own limit."""


def print_plan(config: Mapping[str, Any], events: list[StageEvent]) -> None:
    """Print the plan of a checked config whose stages were walked with a PlanStore."""
    console = Console(width=132, highlight=False)
    _print_stages(console, events)
    shape = model_shape(config)
    if shape is None:
        console.print("\nEstimates: none, because the model's shape is unknown until it is downloaded or built")
    else:
        _print_estimates(console, config, shape, events)
        _print_memory(console, config, shape)
        _print_disk(console, config, shape, events)
    _print_judging(console, config, events)
    missing = missing_needs(config)
    console.print("\nMissing: nothing" if not missing else f"\nMissing, {len(missing)}:")
    for item in missing:
        console.print(f"  - {item}", markup=False, soft_wrap=True)


def walk(config: Mapping[str, Any]) -> list[StageEvent]:
    """Every stage of the config, cached or planned, in the order of a run; one that is met again only once."""
    from aipo.pipeline import plan

    store = PlanStore(config["store"]["root"], config["store"].get("lock", "flock"))
    events: dict[tuple[str, str], StageEvent] = {}
    store.listeners.append(lambda event: events.setdefault((event.stage, event.fingerprint), event))
    plan(config, store)
    return list(events.values())


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
    costs["reference"] = forward_cost(shape, hardware, pairs, row)
    epochs = config["trainer"].get("epochs", 1)
    costs["train"] = training_cost(shape, hardware, workload, pairs * epochs, checkpointing)
    for name, node in (config["benchmark"] or {}).items():
        questions = build_component(node).n_answers
        costs[f"answers {name}"] = decoding_cost(shape, hardware, workload, questions, 1, workload.answer_tokens)
    return costs


def training_setup(config: Mapping[str, Any]) -> TrainingSetup:
    """What the memory of training depends on."""
    trainer, recipe = build_component(config["trainer"]), build_component(config["data"])
    filters = recipe.filters
    longest = filters.max_prompt_tokens + 2 * filters.max_completion_tokens
    return TrainingSetup(
        dtype=config["model"].get("dtype", "float32"),
        attn_implementation=config["model"].get("attn_implementation", "sdpa"),
        processes=trainer.processes,
        sharded=trainer.strategy == "fsdp2",
        gradient_checkpointing=trainer.gradient_checkpointing,
        lora_rank=None if trainer.lora is None else trainer.lora.rank,
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
    """The main judge's requests for all judgments still to be made; diagnostic judges are free."""
    workload: Workload = build_component(config["workload"])
    judge = build_component(config["judge"])
    requests = 0
    for name, node in (config["benchmark"] or {}).items():
        runs = sum(
            event.outcome == "planned" and event.stage == "judgments" and event.note.endswith(f" {name}")
            for event in events
        )
        requests += build_component(node).n_judge_requests * runs
    price = getattr(judge, "price", None)
    if price is None:
        yield JudgeLoad(judge.name, requests, None, "")
    else:
        dollars = requests * price.dollars(workload.judge_prompt_tokens, workload.judge_reply_tokens)
        yield JudgeLoad(judge.name, requests, dollars, price.source)


def duration(hours: float) -> str:
    """Hours in the unit a person would use: 12 s, 4.2 min, 1.3 h, 210 h."""
    if hours < 1 / 60:
        return f"{hours * 3600:.2g} s"
    if hours < 1:
        return f"{hours * 60:.2g} min"
    return f"{hours:.2g} h" if hours < 10 else f"{hours:,.0f} h"


def _print_stages(console: Console, events: Sequence[StageEvent]) -> None:
    """A row per round, rounds in the same state together; a column per kind of stage."""
    rounds: dict[str, dict[str, list[bool]]] = {}
    for event in events:
        first, *rest = event.note.split()
        rounds.setdefault(rest[0] if first == "iter" else first, {}).setdefault(event.stage, []).append(
            event.outcome != "planned"
        )
    shown = [stage for stage in STAGES if any(stage in found for found in rounds.values())]
    table = _table("iteration", *shown, justify="left")
    rows: list[tuple[str, str, list[str]]] = []
    for label, found in rounds.items():
        cells = [_state(found.get(stage, [])) for stage in shown]
        if rows and rows[-1][2] == cells:
            rows[-1] = (rows[-1][0], label, cells)
        else:
            rows.append((label, label, cells))
    for first, last, cells in rows:
        table.add_row(first if first == last else f"{first} to {last}", *cells)
    console.print("Stages", style="bold")
    console.print(table)
    planned = sum(event.outcome == "planned" for event in events)
    console.print(f"{len(events)} stages: {len(events) - planned} cached, {planned} to run")


def _state(cached: Sequence[bool]) -> str:
    if not cached:
        return ""
    if any(cached):
        return "cached" if all(cached) else f"{cached.count(False)} of {len(cached)}"
    return "run" if len(cached) == 1 else f"run {len(cached)}"


def _print_estimates(
    console: Console, config: Mapping[str, Any], shape: ModelShape, events: Sequence[StageEvent]
) -> None:
    hardware: Hardware = build_component(config["hardware"])
    console.print("\nEstimates", style="bold")
    console.print(
        f"{_count(shape.parameters)} parameters on {_devices(hardware.devices)} of {hardware.memory_gib:g} GiB; "
        "lengths and rates are assumptions: conf/workload, conf/hardware",
        soft_wrap=True,
    )
    table = _table("stage", "to run", "M tokens each", "time each", "time")
    total = 0.0
    for kind, cost in stage_costs(config, shape).items():
        stage, _, benchmark = kind.partition(" ")
        runs = sum(
            event.outcome == "planned" and event.stage == stage and event.note.endswith(benchmark) for event in events
        )
        total += runs * cost.hours
        table.add_row(
            kind,
            str(runs),
            f"{cost.tokens / 1e6:,.3g}",
            duration(cost.hours),
            duration(runs * cost.hours) if runs else "",
        )
    table.add_section()
    table.add_row("total", "", "", "", duration(total))
    console.print(table)
    console.print(
        f"{duration(total * hardware.devices)} of device time. Not counted: ranking, judging, loading, starting servers"
    )


def _print_memory(console: Console, config: Mapping[str, Any], shape: ModelShape) -> None:
    hardware: Hardware = build_component(config["hardware"])
    setup = training_setup(config)
    memory = training_memory(shape, setup)
    names = ("weights", "gradients", "optimizer", "activations", "logits", "total")
    table = _table(*names, "of")
    table.add_row(*(f"{getattr(memory, name):,.3g}" for name in names), f"{hardware.memory_gib:g}")
    console.print("\nMemory per device in training, GiB", style="bold")
    console.print(table)
    fits = memory.total <= USABLE * hardware.memory_gib
    layout = "one device" if setup.processes == 1 else f"{setup.processes} devices"
    if setup.processes > 1:
        layout += ", everything but activations and logits divided" if setup.sharded else ", each with all weights"
    console.print(
        f"{'Fits' if fits else 'DOES NOT FIT'}: {layout}; activations of one row of {setup.longest_row:,} tokens, the "
        f"longest the filters let through" + ("" if fits else f". {_remedy(shape, setup, hardware)}"),
        soft_wrap=True,
    )
    replica = devices_per_replica(shape, hardware)
    console.print(
        f"Sampling: one 16-bit copy of the weights on {_devices(replica)}, a quarter of the memory left for its cache"
    )


def _remedy(shape: ModelShape, setup: TrainingSetup, hardware: Hardware) -> str:
    """The fewest devices, in whole nodes, on which sharded training fits; or what else to change."""
    from dataclasses import replace

    for nodes in (1, 2, 4, 8, 16, 32):
        more = replace(setup, processes=nodes * hardware.devices, sharded=True)
        if hardware.devices > 1 and training_memory(shape, more).total <= USABLE * hardware.memory_gib:
            return f"Divided among {more.processes} such devices (trainer.strategy=fsdp2) it would"
    return "Use shorter completions, gradient checkpointing, trainer.lora, or a smaller model"


def _print_disk(console: Console, config: Mapping[str, Any], shape: ModelShape, events: Sequence[StageEvent]) -> None:
    setup = training_setup(config)
    models = sum(event.outcome == "planned" and event.stage == "train" for event in events)
    each, state = model_gib(shape, setup.dtype), checkpoint_gib(shape, setup)
    if not models:
        return
    console.print(
        f"\nDisk: {models} trained model{'s' * (models > 1)} of {_size(each)} = {_size(models * each)}; "
        f"while one trains, up to two checkpoints of {_size(state)} more",
    )


def _size(gib: float) -> str:
    return f"{gib * 1024:.2g} MiB" if gib < 0.1 else f"{gib:,.3g} GiB" if gib < 1000 else f"{gib / 1024:,.3g} TiB"


def _print_judging(console: Console, config: Mapping[str, Any], events: Sequence[StageEvent]) -> None:
    for load in judge_loads(config, events):
        line = f"\nJudge {load.name}: {load.requests:,} requests"
        if load.dollars is not None:
            line += f", about ${load.dollars:,.0f} ({load.source})"
        console.print(line, markup=False, soft_wrap=True)


def _count(number: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _devices(number: int) -> str:
    return f"{number} device{'s' * (number > 1)}"


def _table(*columns: str, justify: Literal["left", "right"] = "right") -> Table:
    """A table without lines; all columns but the first justified so."""
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify=justify if number else "left", header_style="dim", no_wrap=True)
    return table
