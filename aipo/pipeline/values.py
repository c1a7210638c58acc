"""Whether a plain value of a config fits the annotation of the parameter it is for, in YAML's terms.

A component inside another is judged when it is built (`aipo.pipeline.roles`); here it only has to be one.
"""

from __future__ import annotations

import collections.abc
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from aipo.components import HasShortForms

PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
LARGEST = 2**53
"""Whole numbers beyond it lose digits wherever JSON or a float carries them."""
SHOWN_CHARACTERS = 80
_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping)
_FUNCTIONS = (collections.abc.Callable, type)


def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotation of each parameter; Any where it names what only a type checker imports.

    A class whose constructor turns shorter forms of a value into what the annotation says names them in `SHORT_FORMS`.
    """
    hints = {name: _resolved(parameter, target) for name, parameter in inspect.signature(target).parameters.items()}
    shorter: Mapping[str, Any] = target.SHORT_FORMS if isinstance(target, HasShortForms) else {}
    return {name: Union[hint, shorter[name]] if name in shorter else hint for name, hint in hints.items()}  # noqa: UP007


def _resolved(parameter: inspect.Parameter, target: Callable[..., Any]) -> Any:
    if parameter.annotation is parameter.empty:
        return Any
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    for module in _modules(target):
        try:
            return eval(parameter.annotation, vars(module))  # noqa: S307  (our own source text, never a config's)
        except Exception:
            continue
    return Any


def _modules(target: Callable[..., Any]) -> list[types.ModuleType]:
    """Where the annotations of a function, or of a class and its bases, may have been written."""
    owners = inspect.getmro(target) if inspect.isclass(target) else (inspect.unwrap(target),)
    return [sys.modules[owner.__module__] for owner in owners if getattr(owner, "__module__", None) in sys.modules]


def misfit(value: Any, hint: Any) -> str | None:
    """What was expected in place of `value`, or None where it fits."""
    if _fits(value, hint):
        return None
    limit = ""
    if type(value) is float and not math.isfinite(value):
        limit = " that is finite"
    elif type(value) is int and abs(value) > LARGEST:
        limit = " of at most 2^53"
    return " or ".join(dict.fromkeys(_expected(hint))) + limit


def shown(value: Any) -> str:
    """A value as an error names it: short, whatever it is."""
    if isinstance(value, Mapping) and "_target_" in value:
        return str(value["_target_"])
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def is_component(value: Any) -> bool:
    """Whether a value of a config describes an object."""
    return isinstance(value, Mapping) and "_target_" in value


def component_types(hint: Any) -> list[type]:
    """The classes and Protocols of which a component may be one, when it stands where `hint` is expected."""
    if get_origin(hint) in (Union, types.UnionType):
        return [kind for part in get_args(hint) for kind in component_types(part)]
    kind = get_origin(hint) or hint  # Assets[MTBenchAssets] is a component of the kind Assets
    if not inspect.isclass(kind) or kind in (*PLAIN, *_LISTS, *_MAPPINGS, *_FUNCTIONS, Path):
        return []
    return [] if kind in (Any, object) else [kind]


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in (Any, object) or isinstance(hint, typing.TypeVar):
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in arguments)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if hint in (int, float) and type(value) is int:
        return abs(value) <= LARGEST
    if hint is float:
        return type(value) is float and math.isfinite(value)
    if hint is int:
        return False
    if hint in (bool, str, None, type(None)):
        return type(value) is (type(None) if hint is None else hint)
    if hint is Path:
        return type(value) is str
    if (origin or hint) in _LISTS:
        return isinstance(value, list | tuple) and _items_fit(value, origin or hint, arguments)
    if (origin or hint) in _MAPPINGS:
        if not isinstance(value, Mapping) or is_component(value):
            return False
        return not arguments or all(_fits(k, arguments[0]) and _fits(v, arguments[1]) for k, v in value.items())
    return is_component(value)


def _items_fit(value: Any, kind: Any, arguments: tuple[Any, ...]) -> bool:
    if not arguments:
        return True
    if kind is tuple and (len(arguments) != 2 or arguments[1] is not Ellipsis):
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    return all(_fits(item, arguments[0]) for item in value)


def _expected(hint: Any) -> list[str]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        names = [name for part in arguments if part is not type(None) for name in _expected(part)]
        return names + ["null"] * (type(None) in arguments)
    if origin is Literal:
        return [", ".join(map(str, arguments[:-1])) + (" or " if arguments[:-1] else "") + str(arguments[-1])]
    if hint is None or hint in PLAIN:
        return [PLAIN[type(None) if hint is None else hint]]
    if hint is Path:
        return ["a path"]
    if (origin or hint) in _LISTS:
        if (origin or hint) is tuple and arguments and arguments[-1] is not Ellipsis:
            return [f"a list of {len(arguments)}: {', '.join(_expected(part)[0] for part in arguments)}"]
        return [f"a list, each item {' or '.join(_expected(arguments[0]))}" if arguments else "a list"]
    if (origin or hint) in _MAPPINGS:
        typed = bool(arguments) and arguments[1] is not Any
        return [f"a mapping, each value {' or '.join(_expected(arguments[1]))}" if typed else "a mapping"]
    return [f"a component ({getattr(hint, '__name__', 'a function')}) with a _target_"]
