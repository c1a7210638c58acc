"""What is wrong with the overrides of a command line that Hydra cannot compose, in the words of `ConfigError`.

Hydra stops at the first one with a message of its own for each kind. Here every override is looked at by itself: is
there such a group, such an option, such a key; and what was probably meant.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.utils import get_method
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aipo.objectives.aliases import ALIASES, EXPLANATIONS
from aipo.pipeline import keys
from aipo.pipeline.check import ConfigError, did_you_mean
from aipo.pipeline.roles import COLLECTIONS

OPTION_ALIASES: Mapping[tuple[str, str], str] = {
    **{
        ("objective", alias): f"{name} ({EXPLANATIONS[alias]})" if alias in EXPLANATIONS else name
        for alias, name in ALIASES.items()
    },
    ("sampler", "transformers"): "hf",
    ("sampler", "huggingface"): "hf",
    ("ranker", "rm"): "reward_model",
    ("judge", "openai"): "openai_compatible",
}
"""Other people's names of an option."""
KEY_ALIASES: Mapping[str, str] = {
    "lr": "learning_rate",
    "batch_size": "pairs_per_step",
    "num_epochs": "epochs",
    "lambda": "nll_weight",
    "lambda_": "nll_weight",
    "rpo_alpha": "nll_weight",
    "sft_weight": "nll_weight",
    "gamma": "margin",
    "rounds": "iterations",
    "n": "candidates",
    "num_candidates": "candidates",
    "n_prompts": "prompts",
    "ref": "reference",
    "lora_rank": "lora",
    "max_tokens": "max_new_tokens",
    "num_gpus": "processes",
}
"""Other people's names of a setting; told only where the setting is one of the place."""


def explain(error: Exception, overrides: Sequence[str], *folders: Path) -> ConfigError | None:
    """The problems of the overrides with which Hydra raised `error`; where none is found, Hydra's own words.

    `folders`: where configs lie, conf/ first, then what `--config-dir` and the like name. None for an error that is
    neither Hydra's nor explained by an override.
    """
    if kept := keys.in_overrides(overrides):  # Hydra's own words repeat an override whole
        return ConfigError(kept)
    if absent := [folder for folder in folders if not folder.is_dir()]:
        return ConfigError([f"{folder}: no such folder of configs" for folder in absent])
    found = list(_problems(overrides, folders, several="Ambiguous value" in str(error)))
    if not found and not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    if not found:
        texts = (str(part) for part in (error, error.__cause__) if part)
        found = ["; ".join(line.strip() for text in texts for line in text.splitlines() if _says_something(line))]
    return ConfigError(found)


def replaced(overrides: Iterable[str], *folders: Path) -> list[str]:
    """Which options of a list take the place of others before them: both are the same node of the config, which Hydra
    merges without a word. `folders` as for `explain`."""
    problems: list[str] = []
    for text in dict.fromkeys(item for item in overrides if item.partition("=")[0] in COLLECTIONS):
        override = OverridesParser.create().parse_override(text)
        group, value = override.key_or_group, override.value()
        places: dict[str, str] = {}
        for name in map(str, value if isinstance(value, list) else ()):
            if (place := _place(group, name, folders)) is None:
                continue
            if (other := places.setdefault(place, name)) != name:
                problems.append(
                    f"{group}=[{other},{name}]: both are {place}, where one would replace the other; choose one, or "
                    f"sweep over both: -m {group}=[{other}],[{name}]"
                )
    return problems


def _place(group: str, name: str, folders: Sequence[Path]) -> str | None:
    """Where in a config an option says that it stands; None where it does not say."""
    for path in (folder / group / f"{name}.yaml" for folder in folders):
        if path.is_file():
            found = re.search(r"^# @package (\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
            return found[1] if found else None
    return None


def _says_something(line: str) -> bool:
    hidden = ("See https", "full_key:", "object_type=", "Config search path", "provider=")
    return bool(line.strip()) and not line.strip().startswith(hidden)


def _problems(overrides: Sequence[str], folders: Sequence[Path], several: bool) -> Iterator[str]:
    parser = OverridesParser.create()
    chosen: list[str] = []
    settings: list[Override] = []
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            if not text.startswith("-"):
                yield f"{text}: expected key=value"
            continue
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            yield f"{text}: cannot be read ({str(error).splitlines()[0]}); quote a text: '{_quoted(text)}'"
            continue
        if several and override.is_sweep_override():
            yield f"{text}: several values are a sweep, which needs -m; one list is written [...]"
        group = override.key_or_group
        if not any((folder / group).is_dir() for folder in folders) or group.split("/")[0] == "hydra":
            settings.append(override)
        elif wrong := list(_wrong_options(override, folders)):
            yield from wrong
        elif not override.is_delete():
            chosen.append(_one_of(override))
    conf, *others = folders
    begun = GlobalHydra.instance().is_initialized()
    if others and not begun:
        searched = ", ".join(f'"file://{folder.absolute()}"' for folder in others)
        chosen.append(f"hydra.searchpath=[{searched}]")
    try:
        with nullcontext() if begun else initialize_config_dir(str(conf), version_base="1.3"):
            config = compose("config", overrides=chosen)
    except Exception:  # the error at hand may stop this as well
        return
    for override in settings:
        key = override.key_or_group
        if not override.is_add() and not override.is_force_add() and key.split(".")[0].split("/")[0] != "hydra":
            yield from _wrong_key(key, config, folders)


def _quoted(text: str) -> str:
    key, _, value = text.partition("=")
    return f'{key}="{value}"'


def _one_of(override: Override) -> str:
    """The override with one value where it sweeps over several."""
    if not override.is_sweep_override():
        return override.input_line or ""
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def _wrong_options(override: Override, folders: Sequence[Path]) -> Iterator[str]:
    if override.is_sweep_override():
        named: list[Any] = list(override.sweep_string_iterator())
    else:
        value = override.value()
        named = list(value) if isinstance(value, list) else [value]
    group = override.key_or_group
    options = sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})
    if named == [None]:
        yield f"{group}=null: no such option; choose from {', '.join(options)}; groups of a list also take []"
        return
    for name in map(str, named):
        names = name.strip("[]").split(",") if name.startswith("[") else [name]
        for one in (part.strip().removesuffix(".yaml") for part in names):
            if one and one not in options:
                alias = OPTION_ALIASES.get((group, one.lower().replace("-", "_")))
                meant = f"; use {group}={alias}" if alias else did_you_mean(one, options)
                yield f"{group}={one}: no such option{meant}; choose from {', '.join(options)}"


def _wrong_key(key: str, config: DictConfig, folders: Sequence[Path]) -> Iterator[str]:
    node: Any = config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        path = ".".join(parts[:depth])
        keys = list(map(str, node)) if isinstance(node, DictConfig) else []
        if part in keys or (OmegaConf.is_list(node) and part.isdigit() and int(part) < len(node)):
            node = node[int(part)] if OmegaConf.is_list(node) else node._get_node(part)
            if isinstance(node, Container) and not node._is_missing() and not node._is_none():
                continue
            node = None
            continue
        place = f"{path}.{part}" if path else part
        if path == "":
            known = sorted({*keys, *(group.name for folder in folders for group in folder.iterdir() if group.is_dir())})
            yield f"{place}: unknown key or group{did_you_mean(part, known)}; expected one of {', '.join(known)}"
        elif not keys:
            yield f"{place}: {path} is no mapping here, so it has no key {part!r}; set it whole: {path}={{{part}: ...}}"
        elif part in (takes := _parameters(node)):
            yield f"{place}: left at its default by the config; set it with +{key}=..."
        else:
            known = list(dict.fromkeys([*(name for name in keys if not name.startswith("_")), *takes]))
            alias = KEY_ALIASES.get(part)
            meant = f"; use {alias}" if alias in known else did_you_mean(part, known)
            yield f"{place}: unknown key{meant}; {path} takes {', '.join(known)}"
        return


def _parameters(node: Any) -> list[str]:
    """What the class of a component takes, beyond what its YAML states."""
    try:
        return [name for name in inspect.signature(get_method(node["_target_"])).parameters if name != "self"]
    except Exception:  # no component, or one that `check` will refuse
        return []
