"""`plan=true`: the stages, what is cached, what the rest would cost, and what is missing. Runs nothing."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from rich.console import Console
from rich.table import Table

from aipo.artifacts import StageEvent
from aipo.models.shape import ModelShape
from aipo.planning.costs import GIB, Hardware, devices_per_replica
from aipo.planning.estimate import (
    device_hours,
    devices_held,
    judge_loads,
    model_shape,
    runs_of,
    stage_costs,
    sweep_totals,
    training_setup,
    uncounted,
)
from aipo.planning.idle import JUDGING, Allocation, allocation, idle_share, successions, sweep_allocations
from aipo.planning.memory import TrainingSetup, average_gib, checkpoint_gib, policy_gib, training_memory
from aipo.planning.subject import Subject

STAGES = (
    *("base_model", "pool", "prompts", "candidates", "ranking", "pairs", "reference", "train", "average"),
    *("answers", "judgments", "scores", "proxy", "kl"),
)
WIDTH = 100
"""Columns of the tables. Sentences are not broken: the terminal does that."""
USABLE = 0.9
"""Share of a device's memory that training may fill; the trainer's own limit."""


def print_plan(run: Subject, events: list[StageEvent], missing: Sequence[str]) -> None:
    """Print the plan of a job: its stages, as a PlanStore told them, and what it lacks."""
    console = Console(width=WIDTH, highlight=False)
    _print_stages(console, events)
    shape = model_shape(run, events)
    if shape is None:
        console.print("\nEstimates: none, because the model's shape is unknown until it is downloaded or built")
    else:
        _print_estimates(console, run, shape, events)
        _print_memory(console, run, shape)
        _print_disk(console, run, shape, events)
    _print_judging(console, run, events)
    console.print("\nMissing: nothing" if not missing else f"\nMissing, {len(missing)}:")
    for item in missing:
        console.print(f"  - {item}", markup=False, soft_wrap=True)


def print_sweep(jobs: Sequence[tuple[Subject, Sequence[StageEvent]]]) -> None:
    """The totals of a sweep, in three lines."""
    totals, console = sweep_totals(jobs), Console(width=WIDTH, highlight=False)
    console.print(
        f"\nSweep of {totals.jobs} job{'s' * (totals.jobs != 1)}: {totals.stages:,} stages to run, shared ones once",
        style="bold",
    )
    line = f"{duration(totals.hours)} one job after the other, {duration(totals.device_hours)} of device time, "
    line += f"{_size(totals.disk_gib)} of trained models, {totals.requests:,} judge requests"
    line += "" if totals.dollars is None else f" for about ${totals.dollars:,.0f}"
    console.print(line, markup=False, soft_wrap=True)
    within = sweep_allocations(jobs)
    apart = [one.without(JUDGING) for one in within]
    elsewhere = f"; with judge_later=true, judged where no GPU is held: {_held(apart)}"
    given_back = all(run.resources.judging for run, _ in jobs)
    console.print(f"With server starts and judging: {_held(within)}{'' if given_back else elsewhere}", soft_wrap=True)
    if totals.unknown:
        console.print(f"Hours and disk leave out {totals.unknown} job(s) whose model's shape is unknown")


def _held(allocations: Sequence[Allocation]) -> str:
    hours = sum(one.device_hours for one in allocations)
    return f"{duration(hours)} of device time, {idle_share(allocations):.1%} of it idle"


def duration(hours: float) -> str:
    """Hours in the unit a person would use: 12 s, 4.2 min, 1.3 h, 210 h."""
    if hours < 1 / 60:
        return f"{hours * 3600:.2g} s"
    if hours < 1:
        return f"{hours * 60:.2g} min"
    return f"{hours:.2g} h" if hours < 10 else f"{hours:,.0f} h"


def _print_stages(console: Console, events: Sequence[StageEvent]) -> None:
    """A row per kind of stage; a column per round, rounds in the same state together."""
    rounds: dict[str, dict[str, list[bool]]] = {}
    for event in events:
        first, *rest = event.note.split()
        label = f"round {int(rest[0]) + 1}" if first == "iter" else first
        rounds.setdefault(label, {}).setdefault(event.stage, []).append(event.outcome != "planned")
    shown = [stage for stage in STAGES if any(stage in found for found in rounds.values())]
    columns: list[tuple[str, str, list[str]]] = []
    for label, found in rounds.items():
        cells = [_state(found.get(stage, [])) for stage in shown]
        if columns and columns[-1][2] == cells:
            columns[-1] = (columns[-1][0], label, cells)
        else:
            columns.append((label, label, cells))
    names = [first if first == last else f"{first} to {last.split()[-1]}" for first, last, _ in columns]
    table = _table("", *names, justify="left")
    for row, stage in enumerate(shown):
        table.add_row(stage, *(cells[row] for _, _, cells in columns))
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


def _print_estimates(console: Console, run: Subject, shape: ModelShape, events: Sequence[StageEvent]) -> None:
    hardware = run.hardware
    console.print("\nEstimates", style="bold")
    trained_on = training_setup(run).processes
    apart = "" if trained_on == hardware.devices else f", trained on {trained_on}"
    console.print(
        f"{_count(shape.parameters)} parameters on {_devices(hardware.devices)} of {hardware.memory_gib:g} GiB{apart}; "
        "lengths and rates are assumptions: conf/workload, conf/hardware",
        soft_wrap=True,
    )
    table = _table("stage", "to run", "M tokens each", "time each", "time")
    total = 0.0
    costs = stage_costs(run, shape)
    for kind, cost in costs.items():
        runs = runs_of(kind, events)
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
    held = duration(device_hours(run, costs, events))
    left = ", ".join([*uncounted(run, costs, events), "judging", "loading", "starting servers"])
    console.print(f"{held} of device time. Not counted: {left}", soft_wrap=True)
    _print_idle(console, run, allocation(run, shape, events), successions(run, events))


def _print_idle(console: Console, run: Subject, whole: Allocation, jobs: int) -> None:
    """How much of the allocation has no work, by what; and what is left of that where judging is done elsewhere."""
    if not whole.parts:
        return
    idle = {part.what: part.idle_hours for part in whole.parts}
    reasons = [f"{what} {hours / whole.device_hours:.1%}" for what, hours in idle.items() if hours]
    line = f"With server starts and judging, with {_held_meanwhile(run)}: "
    line += f"{duration(whole.device_hours)} of device time, {whole.idle_share:.1%} of it idle"
    console.print(line + (f" ({', '.join(reasons)})" if reasons else ""), soft_wrap=True)
    if run.resources.differ:
        console.print(f"{jobs} jobs of the cluster, one after the other: each waits in the queue for its devices")
    if idle.get(JUDGING):
        apart = whole.without(JUDGING)
        console.print(
            f"Judged afterwards, where no GPU is held (judge_later=true): {duration(apart.device_hours)}, "
            f"{apart.idle_share:.1%} idle",
            soft_wrap=True,
        )


def _held_meanwhile(run: Subject) -> str:
    usual, training = devices_held(run, "drawing"), devices_held(run, "training")
    if not run.resources.differ:
        return f"{_devices(usual)} held throughout"
    rest = [f"{training} while it trains"] * bool(run.resources.training)
    rest += ["none while it judges"] * bool(run.resources.judging)
    return f"{_devices(usual)} held, {' and '.join(rest)}"


def _print_memory(console: Console, run: Subject, shape: ModelShape) -> None:
    hardware = run.hardware
    setup = training_setup(run)
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
    if setup.sharded and setup.processes > 1:
        console.print(
            f"Main memory of the first node: {_size(average_gib(shape))}, where the trained weights are put together "
            "in float32; a checkpoint stays in its processes' parts",
            soft_wrap=True,
        )
    replica = devices_per_replica(shape, hardware)
    console.print(
        f"Sampling: one 16-bit copy of the weights on {_devices(replica)}, a quarter of the memory left for its cache"
    )


def _remedy(shape: ModelShape, setup: TrainingSetup, hardware: Hardware) -> str:
    """The fewest devices, in whole nodes, on which sharded training fits; or what else to change."""
    for nodes in (1, 2, 4, 8, 16, 32):
        more = replace(setup, processes=nodes * hardware.devices, sharded=True)
        if hardware.devices > 1 and training_memory(shape, more).total <= USABLE * hardware.memory_gib:
            settings = f"trainer.strategy=fsdp2 trainer.processes={more.processes} trainer.nodes={nodes}"
            return f"Divided among {more.processes} such devices ({settings}) it would"
    return "Use shorter completions, gradient checkpointing, trainer.lora, or a smaller model"


def _print_disk(console: Console, run: Subject, shape: ModelShape, events: Sequence[StageEvent]) -> None:
    setup = training_setup(run)
    models = runs_of("train", events)
    free = shutil.disk_usage(run.store.existing_folder()).free
    each, state = policy_gib(shape, setup), checkpoint_gib(shape, setup)
    if not models:
        return
    averages = runs_of("average", events)
    moving = f" and {averages} average{'s' * (averages > 1)} of {_size(average_gib(shape))}" if averages else ""
    console.print(
        f"\nDisk: {models} trained model{'s' * (models > 1)} of {_size(each)} = {_size(models * each)}{moving}; "
        f"while one trains, up to two checkpoints of {_size(state)} more. Free there: {_size(free / GIB)}",
        soft_wrap=True,
    )


def _size(gib: float) -> str:
    return f"{gib * 1024:.2g} MiB" if gib < 0.1 else f"{gib:,.3g} GiB" if gib < 1000 else f"{gib / 1024:,.3g} TiB"


def _print_judging(console: Console, run: Subject, events: Sequence[StageEvent]) -> None:
    for load in judge_loads(run, events):
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
