"""Many combinations of overrides, composed: what chooses files is composed once, plain values are put into copies.

Hydra reads and merges every file again for each combination, a sixth of a second of CPU each. Files depend on the
options chosen alone; `key=value` is applied after they are merged, by Hydra too.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


@dataclass(frozen=True)
class Combination:
    """A composed job: its config without Hydra's own node, and what was chosen for each group."""

    config: DictConfig
    overrides: tuple[str, ...]
    choices: dict[str, str]
    hydra: DictConfig
    """Hydra's own settings, shared by combinations of the same options."""


class Composer:
    """Composes one combination after another. Hydra must be initialized, as it is in its callbacks."""

    def __init__(self, config_name: str) -> None:
        self.config_name = config_name
        self._parser = OverridesParser.create()
        self._whole: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}
        self._groups: dict[str, bool] = {}
        self._parsed: dict[str, Override] = {}

    def compose(self, overrides: Sequence[str]) -> Combination:
        """The job that these overrides give. Raises what Hydra raises."""
        parsed = [self._parse(item) for item in overrides]
        files = tuple(item for item, found in zip(overrides, parsed, strict=True) if self._is_group(found))
        values = [found for found in parsed if not self._is_group(found)]
        if all(_is_plain(found) for found in values):
            config, hydra = self._composed(files)
            config = copy.deepcopy(config)
            try:
                for found in values:
                    OmegaConf.update(config, found.key_or_group, found.value(), merge=True)
            except OmegaConfBaseException:
                config, hydra = self._composed(tuple(overrides))  # Hydra says better what is wrong
        else:
            config, hydra = self._composed(tuple(overrides))
        choices = {str(key): str(value) for key, value in hydra.runtime.choices.items()}
        return Combination(config, tuple(overrides), choices, hydra)

    def _composed(self, overrides: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
        if overrides not in self._whole:
            whole = compose(self.config_name, overrides=list(overrides), return_hydra_config=True)
            job = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
            OmegaConf.set_struct(job, True)
            self._whole[overrides] = job, whole.hydra
        return self._whole[overrides]

    def _parse(self, text: str) -> Override:
        if text not in self._parsed:
            self._parsed[text] = self._parser.parse_override(text)
        return self._parsed[text]

    def _is_group(self, override: Override) -> bool:
        key = override.key_or_group
        if key not in self._groups:
            loader: Any = GlobalHydra.instance().config_loader()
            self._groups[key] = bool(loader.get_group_options(key))
        return self._groups[key]


def _is_plain(override: Override) -> bool:
    """`key=value`, not `+key`, `++key`, `~key` nor a value that stands for several."""
    return not (override.is_add() or override.is_force_add() or override.is_delete() or override.is_sweep_override())
