"""What a run needs and does not find: told before the first stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aipo.components import HasNeeds
from aipo.models.policy import PolicyRef
from aipo.pipeline.run import Run


def missing_needs(run: Run) -> list[str]:
    """Everything the components of a run miss."""
    found: dict[str, None] = {}
    for component in _components(run):
        if isinstance(component, HasNeeds):
            found |= dict.fromkeys(component.missing())
    return list(found)


def _components(run: Run) -> Iterator[Any]:
    yield run.store
    yield run.model
    yield run.recipe.source
    if run.recipe.self_instruct is not None and run.recipe.prompts == "self_instruct":
        yield run.recipe.self_instruct
    if run.recipe.ranking == "ranker":
        yield run.ranker
    yield run.trainer
    # What a sampler needs does not depend on the weights: a policy that is still to be made stands for itself.
    yield run.sampler(policy=run.model if isinstance(run.model, PolicyRef) else PolicyRef("policy"))
    for benchmark in run.benchmarks.values():
        yield benchmark
        yield getattr(benchmark, "assets", None)
        yield getattr(benchmark, "token_counter", None)
    if any(benchmark.uses_judge for benchmark in run.benchmarks.values()):
        yield run.judge
        yield from run.diagnostic_judges.values()
