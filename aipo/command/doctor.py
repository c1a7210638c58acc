"""`aipo doctor`: what this machine has of all that a run may need."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY")
PACKAGES = ("torch", "transformers", "accelerate", "hydra-core", "pandas", "pyarrow", "wandb", "fschat")
EXTRAS = {
    "data": "datasets",
    "embed": "sentence_transformers",
    "inspect": "inspect_ai",
    "instructions": "if_verifiable",
    "lm_eval": "lm_eval",
    "official": "alpaca_eval",
    "optuna": "optuna",
    "peft": "peft",
    "s3": "s3fs",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
    "small": "gguf",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
}
"""Extra of this package -> a module that it brings. All of pyproject.toml, but for `dev`."""
UNCONSTRAINED = ("inspect", "lm_eval", "official", "s3", "tensorboard", "trackio")
"""Extras that need other versions than constraints.txt names."""


def examine(store: Path) -> list[tuple[str, str, str]]:
    """(what, state, remedy) of everything; the remedy is empty where nothing is wrong. No key is ever shown."""
    found = [("python", platform.python_version(), "" if sys.version_info >= (3, 11) else "needs 3.11 or newer")]
    for name in PACKAGES:
        try:
            found.append((name, metadata.version(name), ""))
        except metadata.PackageNotFoundError:
            found.append((name, "not installed", "pip install -c constraints.txt -e ."))
    found.append(("processor", f"{os.cpu_count()} cores, {platform.machine()}", ""))
    found.append(("CPU bfloat16", _bfloat16(), ""))
    found.append(("GPU", _gpu(), ""))
    for extra, module in EXTRAS.items():
        there = _importable(module)
        found.append((f"extra {extra}", "there" if there else "not installed", "" if there else _install(extra)))
    for key in KEYS:
        found.append((key, "set" if os.environ.get(key) else "not set", "" if os.environ.get(key) else "if needed"))
    return [*found, (f"store {store}", *_store(store))]


def _store(store: Path) -> tuple[str, str]:
    # os.path.exists, as Path.exists raises below a folder that this user may not enter
    place = next(path for path in (store.absolute(), *store.absolute().parents) if os.path.exists(path))
    if not place.is_dir():
        return f"{place} is no folder", "choose another store.root"
    free = f"{shutil.disk_usage(place).free / 2**30:,.0f} GiB free"
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        return f"{free}, not readable and writable", "choose another store.root"
    return free, ""


def _install(extra: str) -> str:
    if extra in UNCONSTRAINED:
        return f"if needed: pip install -e '.[{extra}]', in an environment of its own"
    return f"if needed: pip install -c constraints.txt -e '.[{extra}]'"


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _bfloat16() -> str:
    from aipo.artifacts.provenance import has_bfloat16_arithmetic

    if has_bfloat16_arithmetic():
        return "in hardware: a real model runs faster with model.dtype=bfloat16"
    return "none found"


def _gpu() -> str:
    if shutil.which("nvidia-smi") is None:
        return "none found"
    import torch

    if not torch.cuda.is_available():
        return "a driver is there, but this build of PyTorch uses none"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(names)


def show(store: Path) -> None:
    """Print it all as a table."""
    table = Table(box=None, pad_edge=False)
    for name in ("what", "state", "remedy"):
        table.add_column(name, overflow="fold")
    for row in examine(store):
        table.add_row(*map(Text, row))
    Console().print(table)
