"""What a run needs and does not find: told before the first stage."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from aipo.components import needs_of
from aipo.pipeline.asked import JUDGE, RANKER, SAMPLER, askable
from aipo.pipeline.run import Run
from aipo.training.processes.nodes import missing_nodes, nodes_here


def missing_needs(run: Run, asked: Collection[str] | None = None, nodes: int | None = None) -> list[str]:
    """Everything the components of a run miss. Of those that send requests (`askable`) only those that are in `asked`
    count; None: all. `nodes`: machines that the run has where it trains; None: those of the Slurm job that this is."""
    found = nodes_here() if nodes is None else nodes
    return [*missing_nodes(run.trainer.nodes, found), *needs_of(*_components(run, asked))]


def _components(run: Run, asked: Collection[str] | None) -> Iterator[Any]:
    asking = {name: one for name, one in askable(run).items() if asked is None or name in asked}
    yield run.store
    yield run.model
    yield run.recipe.source
    if run.recipe.self_instruct is not None and run.recipe.prompts == "self_instruct":
        yield run.recipe.self_instruct
    if run.recipe.ranking == "ranker":
        yield asking.get(RANKER) if RANKER in askable(run) else run.ranker
    yield from run.trackers
    yield run.trainer
    yield asking.get(SAMPLER)
    yield from run.benchmarks.values()
    yield from (one for name, one in asking.items() if name.startswith(JUDGE))
