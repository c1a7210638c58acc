"""How much of an allocation works: which stages leave devices of it without work, for how long, and how many.

A job holds its devices from its start to its end, unless its resources go by stage. Sampling uses those of one node,
ranking one for each of its processes, training all that it is given; while a server loads its weights, or a judge is
waited for, none works.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from aipo.artifacts import StageEvent
from aipo.models.shape import ModelShape
from aipo.planning.estimate import devices_held, judge_loads, model_shape, own_stages, runs_of, stage_costs
from aipo.planning.resources import STAGES
from aipo.planning.subject import Subject
from aipo.rankers.ranker import ReadingRanker

STARTS, JUDGING = "server starts", "judging"
ON_ALL = ("reference", "train")
DRAWS = ("prompts", "candidates", "answers", "kl")
BESIDE_A_SERVER = ("prompts", "candidates", "answers", "judgments", "scores")
"""As in `aipo.pipeline.kinds`."""


@dataclass(frozen=True)
class Part:
    """What a job spends time on."""

    what: str
    hours: float
    working: int
    """Devices that have work meanwhile."""
    held: int
    """Devices that the job holds meanwhile."""

    @property
    def device_hours(self) -> float:
        """Held, with work or without."""
        return self.hours * self.held

    @property
    def idle_hours(self) -> float:
        """Device hours without work."""
        return self.hours * (self.held - self.working)


@dataclass(frozen=True)
class Allocation:
    """The devices of a job, over its whole length."""

    parts: tuple[Part, ...]

    @property
    def device_hours(self) -> float:
        """Held, with work or without."""
        return sum(part.device_hours for part in self.parts)

    @property
    def idle_share(self) -> float:
        """Of all device hours, those without work; 0 of nothing."""
        return sum(part.idle_hours for part in self.parts) / self.device_hours if self.device_hours else 0.0

    def without(self, what: str) -> Allocation:
        """The same where one part is done outside of it."""
        return Allocation(tuple(part for part in self.parts if part.what != what))


def sweep_allocations(jobs: Sequence[tuple[Subject, Sequence[StageEvent]]]) -> list[Allocation]:
    """Of each job whose model's shape is known; a stage that several need is the first one's."""
    found = []
    for run, walked, events in own_stages(jobs):
        if (shape := model_shape(run, walked)) is not None:
            found.append(allocation(run, shape, events))
    return found


def idle_share(allocations: Sequence[Allocation]) -> float:
    """Of the device hours of all, those without work."""
    idle = sum(one.idle_share * one.device_hours for one in allocations)
    return idle / held if (held := sum(one.device_hours for one in allocations)) else 0.0


def allocation(run: Subject, shape: ModelShape, events: Sequence[StageEvent]) -> Allocation:
    """What the stages still to run spend of the devices that the job holds."""
    return Allocation(tuple(part for part in _parts(run, shape, events) if part.hours))


def _parts(run: Subject, shape: ModelShape, events: Sequence[StageEvent]) -> Iterator[Part]:
    for kind, cost in stage_costs(run, shape).items():
        hours = runs_of(kind, events) * cost.hours
        stage = kind.partition(" ")[0]
        yield Part(kind, hours, _working(run, kind), devices_held(run, STAGES[stage]))
    if run.starts_servers:
        hours = server_starts(run, events) * run.hardware.server_start_minutes / 60
        yield Part(STARTS, hours, 0, devices_held(run, "drawing"))
    requests = sum(load.requests for load in judge_loads(run, events))
    yield Part(JUDGING, requests / run.workload.judge_requests_per_minute / 60, 0, devices_held(run, "judging"))


def successions(run: Subject, events: Sequence[StageEvent]) -> int:
    """How many jobs of the cluster the job is, one after the other: each but the first waits in the queue."""
    kinds = [run.resources.asked_by(event.stage) for event in events if event.outcome == "planned"]
    met = [kind for kind in kinds if kind not in (None, "judging")]
    changes = sum(one != other for one, other in pairwise(["drawing", *met]))
    return 1 + changes + ("judging" in kinds)


def server_starts(run: Subject, events: Sequence[StageEvent]) -> int:
    """How often a server loads a policy: for the first stage that draws from it, and after one that needs its devices.

    `events` in the order of a run."""
    starts, serving = 0, False
    for event in events:
        if event.outcome != "planned":
            serving = serving and event.stage != "train"
        elif event.stage in _drawn(run):
            starts += not serving
            serving = event.stage != "kl"
        elif event.stage not in BESIDE_A_SERVER:
            serving = False
    return starts


def _working(run: Subject, kind: str) -> int:
    if kind in ON_ALL:
        return run.trainer.processes
    if kind == "kl":  # most of it is reading, in the job's own process
        return 1
    if kind == "ranking" and isinstance(run.ranker, ReadingRanker):
        return min(run.hardware.devices, getattr(run.ranker, "processes", None) or 1)
    return run.hardware.devices


def _drawn(run: Subject) -> set[str]:
    left_out = set() if run.recipe.prompts == "self_instruct" else {"prompts"}
    left_out |= set() if run.recipe.responses == "generated" else {"candidates"}
    return set(DRAWS) - left_out
