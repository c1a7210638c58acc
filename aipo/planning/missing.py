"""What a run needs and does not find: told before the first stage."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from aipo.models import PolicyRef
from aipo.stages import build_component


@runtime_checkable
class HasNeeds(Protocol):
    """A component that needs something beyond this package: files, keys, servers, packages."""

    def missing(self) -> list[str]:
        """Each thing that is needed and not there, with its remedy. Quick, and never a download."""
        ...


def missing_needs(config: Mapping[str, Any]) -> list[str]:
    """Everything the components of a checked config miss."""
    found: dict[str, None] = {}
    for component in _components(config):
        if isinstance(component, HasNeeds):
            found |= dict.fromkeys(component.missing())
    return list(found)


def missing_package(module: str, extra: str) -> list[str]:
    """One line when `module` cannot be imported; `extra` is the extra of this package that brings it."""
    if importlib.util.find_spec(module) is not None:
        return []
    return [f"package {module}: pip install -c constraints.txt -e '.[{extra}]'"]


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
