"""Where and with what an artifact was made: machine, devices, threads, commit, packages. Imports no torch."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

RECORDED_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "scikit-learn", "numpy", "pandas", "aipo")
CODE_FILE = "copied.json"
"""Beside a copy of this package that was made to run jobs: whose commit it is."""
CODE_AND_CONFIGS = (".", ":(exclude)results", ":(exclude)outputs")
"""What a difference from the commit is looked for in."""
_INSTRUCTION_SETS = (("avx512f", "AVX512"), ("avx2", "AVX2"), ("asimd", "ASIMD"), ("neon", "NEON"))
"""A flag in /proc/cpuinfo and what torch calls the kernels it picks for it, the best first."""

CAPABILITY = "ATEN_CPU_CAPABILITY"
"""The environment variable that holds torch to a set of instructions."""
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})
"""Of x86 in /proc/cpuinfo, the first two; of ARM, the others."""


def provenance() -> dict[str, Any]:
    """What a manifest says about the machine and the code. The values that cannot change are read once a process."""
    return {
        "host": socket.gethostname(),
        "cpu": cpu_model(),
        "instruction_set": instruction_set(),
        "devices": list(gpu_names()),
        "threads": _threads(),
        "commit": commit(),
        **({"changes_sha256": hashlib.sha256(diff.encode()).hexdigest()} if (diff := changes()) else {}),
        **({"slurm_job": number} if (number := os.environ.get("SLURM_JOB_ID")) else {}),
        "packages": packages(),
    }


@functools.cache
def cpu_model() -> str:
    """The CPU's name as the system gives it, or its architecture."""
    found = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def instruction_set() -> str:
    """The vector instructions that float sums depend on: torch's word if it is loaded, else from the CPU's flags."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return str(torch.backends.cpu.get_cpu_capability())
    found = next((name for flag, name in _INSTRUCTION_SETS if flag in _cpu_flags()), "DEFAULT")
    asked = os.environ.get(CAPABILITY, "").upper()  # torch obeys it, and takes no more than there is
    return asked if asked == "DEFAULT" or (asked, found) == ("AVX2", "AVX512") else found


def has_instructions(flag: str) -> bool:
    """Whether the CPU's flags name these instructions. False where the system does not tell."""
    return flag in _cpu_flags()


def has_bfloat16_arithmetic() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware, by its flags; without, it converts to float32 and back."""
    return not _BFLOAT16_FLAGS.isdisjoint(_cpu_flags())


@functools.cache
def gpu_names() -> tuple[str, ...]:
    """The machine's NVIDIA GPUs, from the driver's files: asking torch would start CUDA in a process without need."""
    names = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        try:
            found = re.search(r"^Model:\s*(.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        except OSError:
            continue
        names += [found.group(1).strip()] if found else []
    return tuple(names)


@functools.cache
def commit() -> str | None:
    """The commit of the source tree when this process first asked, with `+` when it has uncommitted changes.

    Of a copy that a submission made, what it was copied from. None outside a checkout.
    """
    if (copied := _copied()) is not None:
        return copied.get("commit")
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    return head.strip() + ("+" if (_git("status", "--porcelain", "--untracked-files=no") or "").strip() else "")


@functools.cache
def changes() -> str:
    """What code and configs had beyond their commit when this process first asked, as a diff; empty for nothing."""
    if (copied := _copied()) is not None:
        return str(copied.get("changes") or "")
    if not (commit() or "").endswith("+"):
        return ""
    return _git("diff", "HEAD", "--no-ext-diff", "--no-color", "--", *CODE_AND_CONFIGS) or ""


def _copied() -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((_root() / CODE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], cwd=_root(), capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return result.stdout if result.returncode == 0 else None


def _root() -> Path:
    return Path(__file__).resolve().parent.parent.parent


@functools.cache
def packages() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _threads() -> int:
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() else os.cpu_count() or 1


@functools.cache
def _cpu_flags() -> frozenset[str]:
    """Those of the first processor."""
    return frozenset(" ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", _cpuinfo(), re.MULTILINE)[:1]).split())


@functools.cache
def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
