"""The folder of a job in its sweep: named by what the job computes, so that no other job ever replaces it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from aipo.jobs import SUBMITTED

RESOLVER = "job_folder"
RESULTS, JOBS = "results", "jobs"


def job_folder(root: DictConfig) -> str:
    """`<objective>-seed<seed>-<8 hex digits>`. Equal settings give the same folder, whatever is operational in them.

    A config that `check` will refuse gets a name from its text.
    """
    config = OmegaConf.masked_copy(root, [str(key) for key in root if key != "hydra"])
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
        return named(plain)
    except Exception:  # whatever is wrong with it, `check` says it better
        return hashlib.sha256(OmegaConf.to_yaml(config).encode()).hexdigest()[:8]


def named(plain: Mapping[str, Any]) -> str:
    """The name of a job's folder, from its config's resolved values."""
    from aipo.pipeline.run import content

    text = json.dumps(content(plain), sort_keys=True, ensure_ascii=False)
    return f"{plain['objective']['name']}-seed{plain['seed']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def sweep_problem(name: str) -> str | None:
    """What is wrong with the name of a sweep: its folder must lie below results/, for there alone `aipo store gc` looks
    for what sweeps need, and in no other sweep's."""
    parts = PurePath(name).parts
    if not parts or PurePath(name).is_absolute() or {"..", JOBS} & set(parts):
        return f"expected the name of a folder below {RESULTS}/, without '..' and '{JOBS}', got {name!r}"
    for depth in range(1, len(parts)):
        above = Path(RESULTS, *parts[:depth])
        if (above / JOBS).is_dir() or (above / SUBMITTED).exists():
            return f"{name!r} lies inside the sweep {above}; choose a name beside it"
    return None


def without_screen(overrides: Iterable[str]) -> tuple[str, ...]:
    """The overrides of a job without those that only say how it is shown."""
    return tuple(item for item in overrides if not item.startswith(("verbose=", "live_page=", "jobs_at_once=")))


def register() -> None:
    """Let configs say `${job_folder:}`. Needed in every process that composes or runs a job."""
    OmegaConf.register_new_resolver(RESOLVER, lambda *, _root_: job_folder(_root_), replace=True)
