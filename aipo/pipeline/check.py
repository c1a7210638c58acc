"""Everything that can be wrong with a composed config, found before the first stage and listed at once.

Hydra merges unknown keys of an experiment file silently, and `_partial_` postpones a wrong argument to the first call,
which may be hours later. So every `_target_` is imported and bound against its signature here, every component that
can be built is built (constructors are cheap and validate), and choices that cannot work together are named.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

COMPONENTS = (
    "model",
    "data",
    "sampler",
    "ranker",
    "objective",
    "iteration",
    "trainer",
    "judge",
    "store",
    "hardware",
    "workload",
)
COLLECTIONS = ("benchmark", "tracker", "diagnostic_judge")
SCALARS = ("name", "seed", "plan", "cpu_threads", "sweep", "choices")
HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_convert_", "_recursive_"}
MINIATURE = "aipo.miniature."


class ConfigError(ValueError):
    """One or more problems of a config."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, start=1))
        super().__init__(f"{len(problems)} problem(s) in the configuration; nothing was run:\n{lines}")


def check(config: DictConfig) -> dict[str, Any]:
    """The config as plain, resolved values, or ConfigError that lists every problem found."""
    if missing := sorted(_missing("", OmegaConf.to_container(config, resolve=False))):
        raise ConfigError([f"{key}: a value is required; give it as {key}=..." for key in missing])
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError([str(error).splitlines()[0]]) from error
    assert isinstance(plain, dict)
    problems = [*_top_level(plain), *_scalars(plain)]
    nodes = [(name, plain[name]) for name in COMPONENTS if name in plain]
    for name in COLLECTIONS:
        members = plain.get(name) or {}
        if not isinstance(members, dict):
            problems.append(f"{name}: expected a mapping of components, got {members!r}")
            continue
        nodes += [(f"{name}.{key}", node) for key, node in members.items()]
    for path, node in nodes:
        found = list(_bindings(path, node))
        problems += found or _construction(path, node)
    if not problems:
        problems = list(_incompatibilities(plain))
    if problems:
        raise ConfigError(problems)
    return plain


def _missing(path: str, node: Any) -> Iterator[str]:
    """Keys whose value is `???`. OmegaConf's own search stops at an interpolation to one of them."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _missing(f"{path}.{key}" if path else str(key), value)
    elif node == "???":
        yield path


def _top_level(config: Mapping[str, Any]) -> Iterator[str]:
    known = {*COMPONENTS, *COLLECTIONS, *SCALARS}
    for key in sorted(set(config) - known):
        yield f"{key}: unknown key; expected one of {', '.join(sorted(known))}"
    for key in (*COMPONENTS, "seed"):
        if key not in config:
            yield f"{key}: missing; choose one from conf/{key}"


def _scalars(config: Mapping[str, Any]) -> Iterator[str]:
    for key, kind, expected in (
        ("seed", int, "a whole number"),
        ("cpu_threads", int, "a whole number of at least 1"),
        ("plan", bool, "true or false"),
    ):
        value = config.get(key)
        if type(value) is not kind or (key == "cpu_threads" and value < 1):
            yield f"{key}: expected {expected}, got {value!r}"


def _bindings(path: str, node: Any) -> Iterator[str]:
    """Problems of one component's keys against its target's signature, nested components included."""
    if not isinstance(node, Mapping):
        yield f"{path}: expected a component with a _target_, got {node!r}"
        return
    if "_target_" not in node:
        yield f"{path}: no _target_; got keys {sorted(node)}"
        return
    try:
        target = get_method(node["_target_"]) if "." in node["_target_"] else None
    except Exception as error:  # importing a user's module may raise anything
        yield f"{path}._target_: cannot import {node['_target_']!r}: {error}"
        return
    if target is None:
        yield f"{path}._target_: expected a dotted path, got {node['_target_']!r}"
        return
    parameters = inspect.signature(target).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for key in node:
            if key not in parameters and key not in HYDRA_KEYS:
                expected = ", ".join(name for name in parameters if name != "self")
                yield f"{path}.{key}: unknown key; {node['_target_']} takes {expected}"
    for key, value in node.items():
        expected = _kinds(parameters[key]) if key in parameters else {}
        if expected and type(value) not in expected:
            yield f"{path}.{key}: expected {' or '.join(dict.fromkeys(expected.values()))}, got {value!r}"
    if not node.get("_partial_", False):
        for name, parameter in parameters.items():
            required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
            if required and parameter.kind is not parameter.VAR_POSITIONAL and name not in node:
                yield f"{path}.{name}: missing; {node['_target_']} requires it"
    for key, value in node.items():
        yield from _nested(f"{path}.{key}", value)


KINDS = {
    "int": {int: "a whole number"},
    "float": {float: "a number", int: "a number"},
    "bool": {bool: "true or false"},
    "str": {str: "text"},
    "None": {type(None): "null"},
}


def _kinds(parameter: inspect.Parameter) -> dict[type, str]:
    """The plain types that an annotation allows, with their names in YAML's terms; empty where it names any other."""
    parts = [part.strip() for part in str(parameter.annotation).split("|")]
    if not set(parts) <= set(KINDS):
        return {}
    return {kind: name for part in parts for kind, name in KINDS[part].items()}


def _nested(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield from _bindings(path, value)
        else:
            for key, item in value.items():
                yield from _nested(f"{path}.{key}", item)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _nested(f"{path}[{number}]", item)


def _construction(path: str, node: Mapping[str, Any]) -> list[str]:
    """Building a component checks its values. What needs an argument that only a run has stays a partial."""
    try:
        instantiate(node, _convert_="all")
    except Exception as error:
        cause = error.__cause__ or error
        return [f"{path}: {' '.join(str(cause).split())}"]
    return []


def _incompatibilities(config: Mapping[str, Any]) -> Iterator[str]:
    recipe = instantiate(config["data"], _convert_="all")
    objective = instantiate(config["objective"], _convert_="all")
    in_miniature = config["data"]["source"]["_target_"].startswith(MINIATURE)
    if not in_miniature:
        truth = [("ranker", config["ranker"]), ("judge", config["judge"])]
        truth += [(f"benchmark.{name}", node) for name, node in (config["benchmark"] or {}).items()]
        for path, node in truth:
            if node["_target_"].startswith(MINIATURE):
                yield (
                    f"{path}: {node['_target_']} knows the truth of the miniature's world only, but data.source is "
                    f"{config['data']['source']['_target_']}; choose another {path.split('.')[0]}"
                )
    if objective.uses_win_probability and recipe.ranking != "ranker":
        yield f"objective {objective.name} needs the ranker's win probability, but data.ranking is {recipe.ranking!r}"
    elif objective.uses_win_probability and not instantiate(config["ranker"], _convert_="all").gives_win_probability:
        yield (
            f"objective {objective.name} needs the ranker's win probability, which {config['ranker']['_target_']} "
            "does not give with these settings; choose ranker=pairrm, a Bradley-Terry reward model or proxy"
        )
    iteration = instantiate(config["iteration"], _convert_="all")
    drawn = "iteration.reference_logps=sampler"
    if iteration.reference_logps == "sampler" and recipe.responses != "generated":
        yield f"{drawn}: with data.responses={recipe.responses} no policy draws completions; choose model"
    if iteration.reference_logps == "sampler" and objective.uses_prefix:
        yield f"{drawn}: objective {objective.name} needs log-probs of prefixes, which no sampler notes; choose model"
    if recipe.responses == "generated" and iteration.candidates < 2:
        yield f"iteration.candidates: a pair needs at least 2 candidates, got {iteration.candidates}"
