"""docs/extending.md, run as it stands: its parts live in a module outside the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from composing import composed
from omegaconf import OmegaConf

from aipo.jobs import read_job
from aipo.pipeline.check import ConfigError, check


@pytest.fixture(scope="module")
def parts(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module `my_parts` that holds the page's code, and the ranker's YAML where the page has it."""
    page = (repository / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    assert len(blocks) == 3
    folder = tmp_path_factory.mktemp("parts")
    (folder / "my_parts.py").write_text("\n\n".join(blocks), encoding="utf-8")
    (config,) = re.findall(r"```yaml\n# conf/ranker/shortest\.yaml\n(.*?)```", page, flags=re.S)
    (file,) = re.findall(r"`(ours/ranker/shortest\.yaml)`", page)
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_text(config, encoding="utf-8")
    return folder


def test_the_pages_parts_work_together(parts: Path, repository: Path, tmp_path: Path) -> None:
    decoding = "{_target_: aipo.records.Decoding, temperature: 0.7, top_p: 1.0, top_k: 0, max_new_tokens: 32}"
    given = [
        *("--config-dir", str(parts / "ours"), "ranker=shortest"),  # options stand before the settings
        *("model.retrain=true", "model.steps=20", "model.n_documents=300", "iteration.iterations=1"),
        *("iteration.prompts=16", "iteration.candidates=2", "benchmark=[mini_mt_bench]", "diagnostic_judge=none"),
        *("benchmark.mt_bench.assets.n_questions=8", f"store.root={tmp_path}/store", "sweep=x"),
        *("~judge", "+judge={_target_: my_parts.Indifferent}"),
        f"+benchmark.brevity={{_target_: my_parts.Brevity, limit: 30, decoding: {decoding}}}",
    ]
    environment = {**os.environ, "PYTHONPATH": f"{parts}{os.pathsep}{repository}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(repository / "run.py"), *given]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (job,) = (tmp_path / "results/x/jobs").glob("*/run.json")
    record = read_job(job.parent)
    assert [(score.benchmark, score.judge) for score in record.points[-1].scores] == [
        ("mt_bench", "indifferent"),
        ("brevity", "brevity"),
    ]
    tables = {path.stem for path in (tmp_path / "results/x/tables").glob("*.csv")}
    assert {"mt_bench", "brevity"} <= tables


def test_what_a_part_lacks_is_named(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(parts))
    config = composed()
    OmegaConf.set_struct(config, False)
    config.ranker = {"_target_": "my_parts.Indifferent"}
    with pytest.raises(ConfigError) as caught:
        check(config)
    (problem,) = caught.value.problems
    assert "expected Ranker, got my_parts.Indifferent" in problem and "lacks" in problem and "rank" in problem
