"""Compose a config as the command line does: one function for every test."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

CONF = Path(__file__).resolve().parent.parent / "conf"


def composed(*overrides: str, name: str | None = "config", with_hydra: bool = False) -> DictConfig:
    """The config that these overrides give. `name` is a file below conf/, or None for an empty start;
    `with_hydra` keeps Hydra's own settings, which a sweep reads."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=list(overrides), return_hydra_config=with_hydra)
