"""Components: objects that a config node describes, and what all kinds of them have in common."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from hydra.utils import get_object, instantiate


def build_component(config: Mapping[str, Any], **arguments: Any) -> Any:
    """The object a config node describes; lists and mappings inside arrive as plain values."""
    return instantiate(dict(config), **arguments, _convert_="all")


def content_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """A component's settings that shape what it makes. Its class names the others in `OPERATIONAL`: how fast, how
    often to retry, where to keep notes. Changing those must not make a finished stage run again."""
    operational = getattr(get_object(node["_target_"]), "OPERATIONAL", ())
    return {key: value for key, value in node.items() if key not in operational}


@runtime_checkable
class HasNeeds(Protocol):
    """A component that needs something beyond this package: files, keys, servers, packages."""

    def missing(self) -> list[str]:
        """Each thing that is needed and not there, with its remedy. Quick, and never a download."""
        ...


def missing_package(module: str, extra: str) -> list[str]:
    """One line when `module` cannot be imported; `extra` is the extra of this package that brings it."""
    if importlib.util.find_spec(module) is not None:
        return []
    return [f"package {module}: pip install -c constraints.txt -e '.[{extra}]'"]
