"""Slurm's commands where there is no Slurm."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest


def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands that take jobs and keep their scripts, in the folder that is returned: at most 4 in an array."""
    folder = tmp_path / "bin"
    folder.mkdir()
    commands = {
        "srun": "exit 1",
        "scontrol": "echo 'MaxArraySize            = 4'",
        "sbatch": f'n=$(ls {folder} | grep -c script); cp "$1" {folder}/script$n; echo Submitted batch job 10$n',
    }
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder
