"""The running average of policies: exact in float32, loadable, and refused where it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import build, pairs

from aipo.models.policy import PolicyRef
from aipo.training.reference import compute_reference_logps
from aipo.training.weights.average import averaged, write_average


def moved(policy: PolicyRef, folder: Path, by: float) -> PolicyRef:
    """The same policy, every weight raised."""
    model = policy.load_model()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(by)
    model.save_pretrained(folder)
    policy.load_tokenizer().save_pretrained(folder)
    return replace(policy, path=str(folder))


def weights(policy: PolicyRef) -> dict[str, torch.Tensor]:
    return dict(policy.load_masters().named_parameters())


def test_averages_over_rounds_by_hand(tmp_path: Path) -> None:
    base = build("llama", tmp_path / "base")
    first, second = moved(base, tmp_path / "first", 0.5), moved(base, tmp_path / "second", 2.0)
    write_average(base, first, 0.75, tmp_path / "one")
    one = averaged(first, tmp_path / "one")
    write_average(one, second, 0.75, tmp_path / "two")
    two = averaged(second, tmp_path / "two")
    start = weights(base)
    for name, weight in weights(one).items():  # 0.25 * 0.5
        torch.testing.assert_close(weight, start[name] + 0.125, rtol=0, atol=1e-6)
    for name, weight in weights(two).items():  # 0.75 * 0.125 + 0.25 * 2
        torch.testing.assert_close(weight, start[name] + 0.59375, rtol=0, atol=1e-6)


def test_the_average_of_rounded_policies_is_exact_and_scores_pairs(tmp_path: Path) -> None:
    base = replace(build("llama", tmp_path / "base"), dtype="bfloat16")
    # A step far below the grid of bfloat16: only the float32 masters hold it.
    masters = moved(replace(base, dtype="float32"), tmp_path / "masters", 1e-5)
    policy = replace(base, masters=masters.path)
    write_average(base, policy, 0.5, tmp_path / "out")
    average = averaged(policy, tmp_path / "out")
    assert average.dtype == "bfloat16" and average.load_model().dtype == torch.bfloat16
    start = weights(base)
    for name, weight in weights(average).items():
        torch.testing.assert_close(weight, start[name] + 5e-6, rtol=0, atol=1e-7)
    rows = compute_reference_logps(average, pairs(3, seed=0), progress=False)
    assert len(rows) == 3 and all(row.chosen < 0 for row in rows)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    one, other = build("llama", tmp_path / "one"), build("gpt2", tmp_path / "other")
    with pytest.raises(ValueError, match="have different weights, the first: "):
        write_average(one, other, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_average_that_is_there_already_is_found_without_torch(repository: Path) -> None:
    code = """
import sys
from pathlib import Path
from aipo.models.policy import PolicyRef
from aipo.training.weights.average import averaged
policy = PolicyRef(path="trained", masters="masters", revision="0" * 40, dtype="bfloat16")
found = averaged(policy, Path("stage"))
print(found.path, found.masters, found.revision, found.dtype, "torch" in sys.modules, "pandas" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(repository)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["stage/model", "stage/model", "None", "bfloat16", "False", "False"], done.stderr
