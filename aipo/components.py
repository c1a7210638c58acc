"""Components: objects that a config node describes, and what all kinds of them have in common."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable


def build_component(config: Mapping[str, Any], **arguments: Any) -> Any:
    """The object a config node describes; lists and mappings inside arrive as plain values."""
    from hydra.utils import instantiate  # not above: a command line that builds nothing starts faster without Hydra

    return instantiate(dict(config), **arguments, _convert_="all")


def content_of(node: Mapping[str, Any], *, with_judge: bool = False) -> dict[str, Any]:
    """A component's settings that shape what it makes. Its class names the others in `OPERATIONAL`: how fast, how
    often to retry, where to keep notes. Changing those must not make a finished stage run again. Nor must a setting
    that came later: those named in `OPTIONAL` count only where they are not null. So in every component inside it.
    What of an operational setting counts all the same, its class says in `shaping`.

    `with_judge`: a ranker's judge as well, for whose settings its `identity` stands in a stage's hash: they tell jobs
    apart all the same."""
    from hydra.utils import get_object

    target = get_object(node["_target_"])
    operational = target.OPERATIONAL if isinstance(target, HasOperational) else ()
    optional = target.OPTIONAL if isinstance(target, HasOptional) else ()
    found = {
        key: _content(value, with_judge)
        for key, value in node.items()
        if (key not in operational or (with_judge and key == "judge")) and not (value is None and key in optional)
    }
    return found | (dict(target.shaping(node)) if isinstance(target, HasShaping) else {})


def _content(value: Any, with_judge: bool) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return content_of(value, with_judge=with_judge)
        return {key: _content(item, with_judge) for key, item in value.items()}
    return [_content(item, with_judge) for item in value] if isinstance(value, list | tuple) else value


def require_range(prefix: str, component: object, **limits: tuple[float, float]) -> None:
    """ValueError unless each named attribute lies between its two limits, both included; None is left alone.

    The upper limits are generous: what is beyond them is a slip of the pen, which a run would find out in days.
    """
    for name, (least, most) in limits.items():
        value = getattr(component, name)
        if value is None or least <= value <= most:
            continue
        expected = f"at least {least:g}" if value < least else f"at most {most:.10g}"
        raise ValueError(f"{prefix}.{name} must be {expected}, got {value!r:.60}")


@runtime_checkable
class HasOperational(Protocol):
    """A class of components some of whose settings do not shape what they make."""

    OPERATIONAL: ClassVar[tuple[str, ...]]


@runtime_checkable
class HasShaping(Protocol):
    """A class of components an operational setting of which may hold something that shapes what they make."""

    def shaping(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        """Those parts of a config node, under the names of their settings; empty where there are none."""
        ...


@runtime_checkable
class HasOptional(Protocol):
    """A class of components with settings that came later: null leaves what was made before them as it is."""

    OPTIONAL: ClassVar[tuple[str, ...]]


@runtime_checkable
class HasShortForms(Protocol):
    """A class of components whose constructor turns shorter forms of a value into what its annotation says."""

    SHORT_FORMS: ClassVar[Mapping[str, Any]]
    """By parameter: the type of the shorter forms."""


@runtime_checkable
class HasNeeds(Protocol):
    """A component that needs something beyond this package: files, keys, servers, packages."""

    def missing(self) -> list[str]:
        """Each thing that is needed and not there, with its remedy. Quick, and never a download."""
        ...


def needs_of(*components: object) -> list[str]:
    """What the given components miss, each line once."""
    lines = [line for component in components if isinstance(component, HasNeeds) for line in component.missing()]
    return list(dict.fromkeys(lines))


def missing_package(module: str, extra: str) -> list[str]:
    """One line when `module` cannot be imported; `extra` is the extra of this package that brings it."""
    if importlib.util.find_spec(module) is not None:
        return []
    return [f"package {module}: pip install -c constraints.txt -e '.[{extra}]'"]
