"""A job of a sweep as several jobs of the cluster: each holds what its stages use, and submits the one after it.

And what several jobs of a sweep begin with: made by a part of one of them, which the others wait for in the queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from aipo.components import build_component
from aipo.pipeline.cluster.snapshot import Asked
from aipo.pipeline.ends import HandedOn
from aipo.planning.resources import Kind, Resources


@dataclass(frozen=True)
class Part:
    """What one job of the cluster does of a job."""

    kind: Kind = "drawing"
    """The stages that it has the resources for."""
    only: frozenset[tuple[str, str]] | None = None
    """Stages, with their notes, that others need too: it ends before any other. None: it goes on as far as it can."""

    def gate(self, resources: Resources) -> Callable[[str, str], None]:
        """Called before a stage is made; raises HandedOn where that is not for this part."""

        def begins(stage: str, note: str) -> None:
            asked = resources.asked_by(stage)
            if self.only is not None and (asked not in (None, self.kind) or (stage, note) not in self.only):
                raise HandedOn(None, "what several jobs of the sweep need first is there")
            if asked not in (None, self.kind):
                raise HandedOn(asked, f"{stage} has resources of its own")

        return begins

    def config(self, asked: Asked) -> Mapping[str, Any]:
        """The job's config for this part: where judging has resources of its own, it waits until all else is done."""
        return {**asked.config, "judge_later": True} if self._leaves_judging(asked) else asked.config

    def nodes(self, asked: Asked) -> int | None:
        """How many machines the job has where it trains; None: as many as this part has."""
        trains_elsewhere = self.kind == "judging" or (resources_of(asked).training and self.kind != "training")
        return int(asked.config["trainer"]["nodes"]) if trains_elsewhere else None

    def watching(self, asked: Asked, watch: Watch) -> Watch:
        """`watch`, which raises HandedOn after the last policy where another part judges."""
        if not self._leaves_judging(asked):
            return watch
        last = int(asked.config["iteration"]["iterations"]) - 1

        def watched(iteration: int, value: float | None) -> None:
            watch(iteration, value)
            if iteration == last:
                raise HandedOn(None if self.only is not None else "judging", "all but its judging is done")

        return watched

    def _leaves_judging(self, asked: Asked) -> bool:
        """Whether another part has the resources for judging, and something to judge now."""
        if self.kind == "judging" or not resources_of(asked).judging or asked.config["judge_later"]:
            return False
        return any(build_component(node).uses_judge for node in (asked.config["benchmark"] or {}).values())


WHOLE = Part()
Watch = Callable[[int, float | None], None]
"""As in `aipo.pipeline.loop`."""


def resources_of(asked: Asked) -> Resources:
    """What a job asks the cluster for; submissions of before have none of their own."""
    node = asked.config.get("resources")
    return build_component(node) if node else Resources()


@dataclass(frozen=True)
class Common:
    """What jobs of a sweep have to wait for, and who makes it. Jobs by their folders."""

    parts: Mapping[str, Part] = field(default_factory=dict)
    """By the job that makes it: the part that does."""
    awaited: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By job: those whose part it waits for; none that needs nothing of others."""


def common_first(jobs: Sequence[Asked]) -> Common:
    """What several of the jobs begin with: of each the first stages still to be made, up to one that it alone needs or
    that has resources of its own.

    The first job that needs such a stage makes it. Nothing where the jobs do not ask for it (`resources.common_first`).
    """
    if not any(resources_of(job).common_first for job in jobs):
        return Common()
    from aipo.pipeline.loop import walk
    from aipo.pipeline.run import build_run

    known: dict[str, Any] = {}
    planned: dict[str, list[tuple[str, str, str]]] = {}
    for job in jobs:
        todo = [one for one in walk(build_run(WHOLE.config(job), known)) if one.outcome == "planned"]
        here = takewhile(lambda one: resources_of(job).asked_by(one.stage) in (None, WHOLE.kind), todo)  # noqa: B023
        planned[job.folder] = [(one.fingerprint, one.stage, one.note) for one in here]
    times = Counter(digest for stages in planned.values() for digest, _, _ in stages)
    made: dict[str, str] = {}
    parts: dict[str, Part] = {}
    awaited: dict[str, tuple[str, ...]] = {}
    for folder, stages in planned.items():
        own = next((at for at, (digest, _, _) in enumerate(stages) if times[digest] == 1), len(stages))
        first = stages[:own]
        fresh = [digest for digest, _, _ in first if digest not in made]
        made |= dict.fromkeys(fresh, folder)
        if fresh:
            parts[folder] = Part(only=frozenset((stage, note) for _, stage, note in first))
        awaited[folder] = tuple(dict.fromkeys(made[digest] for digest, _, _ in first))
    return Common(parts, awaited)


def name_of(job: Asked) -> str:
    """The name of a job's folder."""
    return Path(job.folder).name
