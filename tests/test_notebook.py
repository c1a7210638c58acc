"""The notebook: its cells run in order, in a folder of their own, and nothing of a machine stands in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "five_minutes.ipynb"


def cells() -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_it_is_committed_without_outputs_or_paths() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells())
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "/home/" not in text and "/work" not in text and "/tmp" not in text
    for cell in cells():
        compile("".join(cell["source"]), NOTEBOOK.name, "exec")


@pytest.mark.slow
def test_its_cells_run_in_order(tmp_path: Path) -> None:
    program = "\n".join("".join(cell["source"]) for cell in cells())
    program += "\nassert len(rows) > 0 and completion.text.startswith('The judge ')\n"
    program += "assert gold['objective'].nunique() == 2 and len(gold) == 12 and len(answered) == 5\n"
    script = tmp_path / "cells.py"
    script.write_text(program, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", str(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "objective.loss" in done.stdout and "chosen   (" in done.stdout
