"""What may stand in each config group: one table, and the check that an object is what its place needs.

A Protocol is checked by its members: what it lacks is named before the object is built, attributes that only an
instance has afterwards. A class is checked by its kind.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aipo.artifacts import Store
from aipo.benchmarks.benchmark import Benchmark
from aipo.data.recipe import Recipe
from aipo.iteration import Iteration
from aipo.judges.judge import Judge
from aipo.models.policy import BaseModel, PolicyRef
from aipo.objectives import Objective
from aipo.pipeline.trackers import Tracker
from aipo.planning.costs import Hardware, Workload
from aipo.planning.resources import Resources
from aipo.rankers.ranker import Ranker
from aipo.samplers.sampler import Sampler
from aipo.training.trainer import Trainer

ROLES: Mapping[str, tuple[type, ...]] = {
    "model": (PolicyRef, BaseModel),
    "data": (Recipe,),
    "sampler": (Sampler,),
    "ranker": (Ranker,),
    "objective": (Objective,),
    "iteration": (Iteration,),
    "trainer": (Trainer,),
    "judge": (Judge,),
    "store": (Store,),
    "hardware": (Hardware,),
    "workload": (Workload,),
    "resources": (Resources,),
    "benchmark": (Benchmark,),
    "diagnostic_judge": (Judge,),
    "tracker": (Tracker,),
}
"""By config group: the kinds of component it takes. Nested components are bound by their parameter's annotation."""
COLLECTIONS = ("benchmark", "diagnostic_judge", "tracker")
"""Groups with any number of components, each under its name."""
PARTIAL = ("sampler",)
"""Groups whose component the pipeline completes: `_partial_: true`."""


def class_problem(target: Callable[..., Any], kinds: tuple[type, ...]) -> str | None:
    """Why no object that `target` makes can be one of `kinds`, judged before it is made; None where it may."""
    if not kinds or not inspect.isclass(target):
        return None
    return _problem([_class_lacks(target, kind) for kind in kinds], kinds, target)


def object_problem(made: Any, kinds: tuple[type, ...]) -> str | None:
    """Why an object is none of `kinds`, or None."""
    if not kinds:
        return None
    return _problem([_object_lacks(made, kind) for kind in kinds], kinds, type(made))


def _problem(lacks: list[list[str] | None], kinds: tuple[type, ...], found: type) -> str | None:
    if any(lack == [] for lack in lacks):
        return None
    name = f"{found.__module__}.{found.__qualname__}"
    wanted = " or ".join(kind.__name__ for kind in kinds)
    lack = next((lack for lack in lacks if lack), None)
    why = f", which lacks {', '.join(lack)}" if lack else ""
    others = [group for group, takes in ROLES.items() if any(_class_lacks(found, kind) == [] for kind in takes)]
    remedy = f"; it belongs to {' or '.join(others)}" if others else ""
    return f"expected {wanted}, got {name}{why}{remedy}"


def _class_lacks(found: type, kind: type) -> list[str] | None:
    """What instances of a class cannot have; None where the class is just another one."""
    if not _is_protocol(kind):
        return [] if issubclass(found, kind) else None
    return [
        name
        for name, wanted in _members(kind).items()
        if not _has(found, name, wanted) and not (_is_data(wanted) and _may_set_attributes(found, name))
    ]


def _object_lacks(made: Any, kind: type) -> list[str] | None:
    if not _is_protocol(kind):
        return [] if isinstance(made, kind) else None
    return [name for name, wanted in _members(kind).items() if not _has(made, name, wanted)]


def _is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def _members(protocol: type) -> dict[str, Any]:
    """A Protocol's members: its functions, properties and annotated names."""
    members: dict[str, Any] = {}
    for owner in reversed(protocol.__mro__):
        if not _is_protocol(owner) or owner is Protocol:
            continue
        members |= dict.fromkeys(inspect.get_annotations(owner))
        members |= {
            name: value for name, value in vars(owner).items() if not name.startswith("_") or name == "__call__"
        }
    return members


def _is_data(member: Any) -> bool:
    return not callable(member)


def _has(owner: Any, name: str, wanted: Any) -> bool:
    """Whether a class or object has the member; of a method, whether it takes the parameters by their names."""
    try:
        value = inspect.getattr_static(owner, name)
    except AttributeError:
        return False
    if _is_data(wanted) or name == "__call__":
        return True
    function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    if not callable(function):
        return False
    try:
        taken = inspect.signature(function).parameters
        asked = inspect.signature(wanted).parameters
    except (TypeError, ValueError):
        return True
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return True
    return {name for name, parameter in asked.items() if parameter.kind is parameter.KEYWORD_ONLY} <= set(taken)


def _may_set_attributes(found: type, name: str) -> bool:
    """A field of a dataclass without a default is on its instances alone; a constructor of one's own may set any."""
    if dataclasses.is_dataclass(found):
        return name in {field.name for field in dataclasses.fields(found)}
    return inspect.isfunction(vars(found).get("__init__")) or any(
        inspect.isfunction(vars(base).get("__init__")) for base in found.__mro__[1:-1]
    )
