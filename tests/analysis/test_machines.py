"""A table says when its jobs were made on different kinds of machine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis import machines


@pytest.mark.parametrize(("second", "told"), [("AVX512", False), ("AVX2", True)])
def test_two_instruction_sets_are_told(monkeypatch: pytest.MonkeyPatch, second: str, told: bool) -> None:
    sets = {"t0": "AVX512", "t1": second}
    monkeypatch.setattr(
        machines,
        "read_manifest",
        lambda store, stage, digest: {"cpu": "A CPU", "instruction_set": sets[digest], "devices": [], "threads": 1},
    )
    runs = [
        SimpleNamespace(
            job=f"job{n}", store=Path(), points=[SimpleNamespace(train=None), SimpleNamespace(train=f"t{n}")]
        )
        for n in (0, 1)
    ]
    note = machines.note(SimpleNamespace(runs=runs))  # type: ignore[arg-type]
    assert (note is not None) == told
    if note:
        assert "2 kinds of machine" in note and "A CPU, AVX2, 1 thread(s): 1 job" in note
