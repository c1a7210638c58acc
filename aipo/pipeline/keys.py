"""Keys in a config or an override: refused before anything is written, for both are kept in files that others read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from aipo.remote.redaction import is_secret_name, keep_secret, key_in_address, secret_values

_NAME = re.compile(r"""\b([A-Za-z_]\w*)["']?\s*[:=]""")
ENVIRONMENT = "env_set"
"""Hydra's setting `hydra.job.env_set`: variables of a job's environment, with their values."""


def in_config(plain: Mapping[str, Any]) -> list[str]:
    """What is wrong with the texts of a job's config. From now on the variables that it names hold secrets."""
    texts = list(_texts("", plain))
    for place, text in texts:
        if place.endswith(".key_variable"):
            keep_secret(text)
    secrets = secret_values()
    return [problem for place, text in texts for problem in _problems(place, text, secrets)]


def in_overrides(overrides: Iterable[str]) -> list[str]:
    """What is wrong with overrides, whether or not they can be composed."""
    secrets = secret_values()
    found: list[str] = []
    for override in overrides:
        key, _, text = override.partition("=")
        found += map(_exported, filter(is_secret_name, _NAME.findall(override.partition(ENVIRONMENT)[2])))
        found += _problems(key.lstrip("+~"), text, secrets)
    return list(dict.fromkeys(found))


def in_hydra(hydra: DictConfig) -> list[str]:
    """What is wrong with Hydra's own settings, by their overrides or by a file of the user's; the rest of a command
    line stands in the jobs' configs."""
    given = [item for item in hydra.overrides.hydra if item.lstrip("+~").startswith("hydra")]
    names = OmegaConf.to_container(hydra.job, resolve=False).get(ENVIRONMENT) or {}  # type: ignore[union-attr]
    found = [*in_overrides(given), *map(_exported, filter(is_secret_name, map(str, names)))]
    return list(dict.fromkeys(found))


def _exported(name: str) -> str:
    return (
        f"hydra.job.{ENVIRONMENT}.{name}: a key would be written into .hydra/hydra.yaml; export {name} in the shell, "
        "from which jobs take it"
    )


def _problems(place: str, text: str, secrets: Mapping[str, str]) -> Iterator[str]:
    if problem := key_in_address(place, text):
        yield problem
    elif name := next((name for value, name in secrets.items() if value in text), None):
        yield (
            f"{place}: holds the value of {name}, which would be written into the sweep's files; keys come from "
            f"environment variables alone (if it is no key, give {name} another value)"
        )


def _texts(path: str, node: Any) -> Iterator[tuple[str, str]]:
    """Every text of a config, and where it stands; of a mapping its keys, too."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            place = f"{path}.{key}" if path else str(key)
            yield path, str(key)
            yield from _texts(place, value)
    elif isinstance(node, list):
        for number, item in enumerate(node):
            yield from _texts(f"{path}[{number}]", item)
    elif isinstance(node, str):
        yield path, node
