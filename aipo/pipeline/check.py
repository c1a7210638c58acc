"""Everything that can be wrong with a composed config, found before the first stage and listed at once.

Hydra merges unknown keys of an experiment file silently, and `_partial_` postpones a wrong argument to the first call,
which may be hours later. So every `_target_` is imported and bound against its signature here, its values against the
annotations, its kind against the place where it stands (`aipo.pipeline.roles`); every component is built, for
constructors are cheap and validate; and choices that cannot work together are named.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from pydoc import locate
from typing import Any

from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aipo.models.policy import PolicyRef
from aipo.pipeline import cpu, keys
from aipo.pipeline.conflicts import conflicts
from aipo.pipeline.folders import sweep_problem
from aipo.pipeline.roles import COLLECTIONS, PARTIAL, ROLES, class_problem, object_problem
from aipo.pipeline.values import component_types, hints_of, is_component, misfit, shown
from aipo.remote import redact

COMPONENTS = tuple(group for group in ROLES if group not in COLLECTIONS)
SCALARS = (
    "seed",
    "plan",
    "detach",
    "jobs_at_once",
    "pilot",
    "cpu_threads",
    "cpu_instructions",
    "kl_prompts",
    "sweep",
    "choices",
    "verbose",
    "limit",
    "live_page",
    "returns_at_length",
    "judge_later",
)
HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_convert_", "_recursive_"}
LARGEST_SEED = 2**32 - 1
"""What the random generators of all libraries take."""
LARGEST_THREADS = 1024


class ConfigError(ValueError):
    """One or more problems of a config; the text shows no key, `problems` are as they were found."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, start=1))
        super().__init__(redact(f"{len(problems)} problem(s) in the configuration; nothing was run:\n{lines}"))


def check(config: DictConfig, known: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """The config as plain, resolved values, or ConfigError that lists every problem found.

    `known` keeps what was found in each component, so that many jobs of one sweep ask once for equal ones.
    """
    if missing := sorted(_missing("", OmegaConf.to_container(config, resolve=False))):
        raise ConfigError([f"{key}: a value is required; give it as {key}=..." for key in missing])
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        place = f"{key}: " if (key := getattr(error, "full_key", None)) else ""
        raise ConfigError([place + str(error).splitlines()[0]]) from error
    assert isinstance(plain, dict)
    if found := keys.in_config(plain):
        raise ConfigError(found)  # before anything is built that might show them
    problems = [*_top_level(plain), *_scalars(plain)]
    if not problems:  # before parts are built: to try an objective's loss imports torch, which then keeps to what it is
        cpu.limit(plain["cpu_threads"], plain["cpu_instructions"])
    known = {} if known is None else known
    for path, group, node in _nodes(plain):
        text = json.dumps([path, node], sort_keys=True, default=str)
        if text not in known:
            found = list(_bindings(path, node, ROLES[group], partial=group in PARTIAL))
            known[text] = found or _construction(path, node, ROLES[group])
        problems += known[text]
    if not problems:
        text = json.dumps({key: value for key, value in plain.items() if key not in ("seed", "sweep")}, default=str)
        if text not in known:
            known[text] = list(conflicts(plain))
        problems = known[text]
    if problems:
        raise ConfigError(problems)
    return plain


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What to add to an error about an unknown name: the known one that is nearest, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _missing(path: str, node: Any) -> Iterator[str]:
    """Keys whose value is `???`. OmegaConf's own search stops at an interpolation to one of them."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _missing(f"{path}.{key}" if path else str(key), value)
    elif node == "???":
        yield path


def _top_level(config: Mapping[str, Any]) -> Iterator[str]:
    known = [*COMPONENTS, *COLLECTIONS, *SCALARS]
    for key in sorted(map(str, set(config) - set(known))):
        yield f"{key}: unknown key{did_you_mean(key, known)}; expected one of {', '.join(sorted(known))}"
    for key in (*COMPONENTS, "seed"):
        if key not in config:
            yield f"{key}: missing; choose one from conf/{key}"
    for key in COLLECTIONS:
        if key not in config:
            yield f"{key}: missing; {{}} for none"


def _scalars(config: Mapping[str, Any]) -> Iterator[str]:
    for key, kind, expected in (
        ("seed", int, f"a whole number from 0 to {LARGEST_SEED}"),
        ("cpu_threads", int, f"a whole number from 1 to {LARGEST_THREADS}"),
        ("cpu_instructions", str, " or ".join(cpu.INSTRUCTIONS)),
        ("limit", int, "a whole number of questions, or null"),
        ("jobs_at_once", int, f"a whole number from 1 to {LARGEST_THREADS}, or null"),
        ("kl_prompts", int, "a whole number, 0 for no measurement"),
        ("returns_at_length", float, "a length above 0, or null"),
        ("plan", bool, "true or false"),
        ("verbose", bool, "true or false"),
        ("live_page", bool, "true or false"),
        ("detach", bool, "true or false"),
        ("judge_later", bool, "true or false"),
        ("sweep", str, "the name of a folder under results/"),
        ("pilot", str, "the folder of an analysed sweep, or nothing"),
    ):
        value: Any = config.get(key)
        good = type(value) is kind
        if key in ("detach", "judge_later"):
            good = good or value is None
        elif good and key == "seed":
            good = 0 <= value <= LARGEST_SEED
        elif good and key == "cpu_threads":
            good = 1 <= value <= LARGEST_THREADS
        elif good and key == "cpu_instructions":
            good = value in cpu.INSTRUCTIONS
        elif key == "jobs_at_once":
            good = value is None or (good and 1 <= value <= LARGEST_THREADS)
        elif good and key == "kl_prompts":
            good = value >= 0
        elif key == "sweep":  # left out where one job is composed without Hydra's command line
            named = type(value) in (str, int) and bool(str(value).strip()) and _text_problem(str(value)) is None
            good = named or key not in config
            if named and (problem := sweep_problem(str(value))):
                yield f"{key}: {problem}"
        elif key == "returns_at_length":
            good = value is None or (type(value) in (int, float) and value > 0)
        elif key in ("pilot", "limit"):
            good = value is None or good
        if not good:
            yield f"{key}: expected {expected}, got {shown(value)}"
        elif key == "pilot" and value and config.get("plan"):
            from aipo.planning.seeds import read_pilot

            try:
                read_pilot(Path(value), rounds=1)
            except (ValueError, OSError) as error:
                yield str(error)
    if not isinstance(config.get("choices"), dict | None):
        yield f"choices: expected a mapping, got {shown(config['choices'])}"


def _nodes(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Each component's path, group and node."""
    for group in ROLES:
        if group not in config:
            continue
        if group not in COLLECTIONS:
            yield group, group, config[group]
            continue
        members = config[group] if config[group] is not None else {}
        if not isinstance(members, dict) or "_target_" in members:
            members = {"": members}  # told as the group's own problem
        for key, node in members.items():
            yield f"{group}.{key}" if key != "" else group, group, node


def _bindings(path: str, node: Any, kinds: tuple[type, ...] = (), *, partial: bool = False) -> Iterator[str]:
    """Problems of one component's keys against its target's signature, nested components included."""
    if not isinstance(node, Mapping):
        yield f"{path}: expected a component with a _target_, got {shown(node)}"
        return
    if "_target_" not in node:
        yield f"{path}: no _target_; got keys {sorted(map(str, node))}"
        return
    target, problem = _target(path, node["_target_"])
    if target is None:
        yield problem
        return
    unfinished = node.get("_partial_", False)
    if type(unfinished) is not bool or "_args_" in node or node.get("_convert_", "all") != "all":
        yield f"{path}: expected arguments by name and _partial_ true or false, got {shown(dict(node))}"
        return
    if kinds and unfinished != partial and not _are_functions(kinds):
        remedy = "set _partial_: true, the pipeline completes it" if partial else "take _partial_ out"
        yield f"{path}._partial_: got {str(unfinished).lower()}; {remedy}"
        return
    if not inspect.isclass(target) and not unfinished:
        yield f"{path}._target_: expected a class, got {node['_target_']!r}"
        return
    if not _are_functions(kinds) and (wrong := class_problem(target, kinds)):
        yield f"{path}: {wrong}"
        return
    yield from _arguments(path, node, target)


def _target(path: str, name: Any) -> tuple[Any, str]:
    """What a `_target_` names, or None and why not."""
    if not isinstance(name, str) or "." not in name:
        return None, f"{path}._target_: expected a dotted path, got {shown(name)}"
    try:
        target = locate(name)
    except (Exception, SystemExit) as error:  # importing a user's module may raise anything
        return None, f"{path}._target_: cannot import {shown(name)}: {' '.join(str(error).split())}"
    if target is None or not callable(target):
        room, _, last = name.rpartition(".")
        known = [known for known in dir(locate(room)) if known[0] != "_"] if target is None and locate(room) else []
        what = "is no class or function" if target is not None else f"no such name in {room}{did_you_mean(last, known)}"
        return None, f"{path}._target_: cannot import {shown(name)}: {what}"
    return target, ""


def _are_functions(kinds: tuple[type, ...]) -> bool:
    return bool(kinds) and all("__call__" in vars(kind) for kind in kinds)


def _arguments(path: str, node: Mapping[str, Any], target: Any) -> Iterator[str]:
    try:
        parameters, hints = inspect.signature(target).parameters, hints_of(target)
    except (TypeError, ValueError):  # some of Python's own classes have no signature: building them tells
        return
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key, value in node.items():
        if key in HYDRA_KEYS:
            continue
        place = f"{path}.{key}"
        if key not in parameters:
            if not open_ended:
                names = [name for name in parameters if name != "self"]
                close = did_you_mean(str(key), names)
                yield f"{place}: unknown key{close}; {node['_target_']} takes {', '.join(names)}"
            continue
        if expected := misfit(value, hints[key]):
            yield f"{place}: expected {expected}, got {shown(value)}"
        elif problem := _text_problem(value) or _seed_problem(str(key), value):
            yield f"{place}: {problem}"
        else:
            yield from _nested(place, value, hints[key])
    if node.get("_partial_", False):
        return
    for name, parameter in parameters.items():
        by_name = parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if by_name and parameter.default is parameter.empty and name not in node:
            yield f"{path}.{name}: missing; {node['_target_']} requires it"


def _nested(path: str, value: Any, hint: Any) -> Iterator[str]:
    if is_component(value):
        yield from _bindings(path, value, tuple(component_types(hint)))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _nested(f"{path}.{key}", item, None)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _nested(f"{path}[{number}]", item, None)


def _text_problem(value: Any) -> str | None:
    """What keeps a text, or a text inside a list or mapping, from being written down."""
    if isinstance(value, Mapping):
        return next((found for item in value.items() if (found := _text_problem(list(item)))), None)
    if isinstance(value, list):
        return next((found for item in value if (found := _text_problem(item))), None)
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= character <= "\udfff" for character in value)):
        return f"expected text that UTF-8 can hold, without NUL, got {shown(value)}"
    return None


def _seed_problem(key: str, value: Any) -> str | None:
    if (key == "seed" or key.endswith("_seed")) and type(value) is int and not 0 <= value <= LARGEST_SEED:
        return f"expected a whole number from 0 to {LARGEST_SEED}, got {shown(value)}"
    return None


def _construction(path: str, node: Mapping[str, Any], kinds: tuple[type, ...]) -> list[str]:
    """Building a component checks its values, those inside it first. What a run completes is completed here."""
    hints = _hints(node)
    for key, value in node.items():
        if is_component(value) and (found := _construction(f"{path}.{key}", value, tuple(component_types(hints[key])))):
            return found
    try:
        made = instantiate(node, _convert_="all")
        if path in PARTIAL:
            made = made(policy=PolicyRef("policy"))
    except (Exception, SystemExit) as error:
        cause = error.__cause__ or error
        return [f"{path}: {' '.join(str(cause).split()) or type(cause).__name__}"]
    problem = object_problem(made, kinds)
    return [f"{path}: {problem}"] if problem else []


def _hints(node: Mapping[str, Any]) -> dict[str, Any]:
    try:
        hints = hints_of(get_method(node["_target_"]))
    except (TypeError, ValueError):
        hints = {}
    return {key: hints.get(key) for key in node}
