"""What a run needs and does not find: told before the first stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aipo.components import HasNeeds, build_component
from aipo.models.policy import PolicyRef


def missing_needs(config: Mapping[str, Any]) -> list[str]:
    """Everything the components of a checked config miss."""
    found: dict[str, None] = {}
    for component in _components(config):
        if isinstance(component, HasNeeds):
            found |= dict.fromkeys(component.missing())
    return list(found)


def _components(config: Mapping[str, Any]) -> Iterator[Any]:
    yield build_component(config["store"])
    recipe = build_component(config["data"])
    model = build_component(config["model"])
    yield model
    yield recipe.source
    if recipe.self_instruct is not None and recipe.prompts == "self_instruct":
        yield recipe.self_instruct
    if recipe.ranking == "ranker":
        yield build_component(config["ranker"])
    yield build_component(config["trainer"])
    # What a sampler needs does not depend on the weights: a policy that is still to be made stands for itself.
    yield build_component(config["sampler"])(policy=model if isinstance(model, PolicyRef) else PolicyRef("policy"))
    benchmarks = [build_component(node) for node in (config["benchmark"] or {}).values()]
    for benchmark in benchmarks:
        yield benchmark
        yield getattr(benchmark, "assets", None)
        yield getattr(benchmark, "token_counter", None)
    if any(benchmark.uses_judge for benchmark in benchmarks):
        yield build_component(config["judge"])
        for node in config["diagnostic_judge"].values():
            yield build_component(node)
