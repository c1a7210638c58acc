"""What a run needs and does not find: told before the first stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aipo.components import needs_of
from aipo.models.policy import PolicyRef
from aipo.pipeline.run import Run


def missing_needs(run: Run) -> list[str]:
    """Everything the components of a run miss."""
    return needs_of(*_components(run))


def _components(run: Run) -> Iterator[Any]:
    yield run.store
    yield run.model
    yield run.recipe.source
    if run.recipe.self_instruct is not None and run.recipe.prompts == "self_instruct":
        yield run.recipe.self_instruct
    if run.recipe.ranking == "ranker":
        yield run.ranker
    yield from run.trackers
    yield run.trainer
    # What a sampler needs does not depend on the weights: a policy that is still to be made stands for itself.
    yield run.sampler(policy=run.model if isinstance(run.model, PolicyRef) else PolicyRef("policy"))
    yield from run.benchmarks.values()
    if any(benchmark.uses_judge for benchmark in run.benchmarks.values()):
        yield run.judge
        yield from run.diagnostic_judges.values()
