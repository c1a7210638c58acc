"""A finished run never pays again: judgments deleted, settings changed, scores asked for anew."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_server import FaultyServer

ROOT = Path(__file__).resolve().parents[2]


def run(tmp_path: Path, url: str, *overrides: str) -> str:
    result = subprocess.run(
        [
            *(sys.executable, str(ROOT / "run.py"), "judge=openai_compatible", "judge.model=judge", "sweep=paid"),
            *(
                f"judge.endpoint.base_url={url}",
                "diagnostic_judge=none",
                "iteration.iterations=1",
                "iteration.prompts=32",
            ),
            *("benchmark=[mini_mt_bench,mini_alpaca_eval,mini_arena_hard]", *overrides),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout + result.stderr


@pytest.mark.slow
def test_nothing_is_paid_for_twice(tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: None)
    server.text = lambda prompt: "[[A>B]] [[7]]" if len(prompt) % 5 else "nothing"
    with server.running() as url:
        names = ("mt_bench", "alpaca_eval", "arena_hard")
        shares = [f"benchmark.{name}.max_unscored_share=0.9" for name in names]
        run(tmp_path, url, *shares)
        paid = sum(server.requests.values())
        assert paid > 50
        shutil.rmtree(tmp_path / "outputs" / "judgments")
        shutil.rmtree(tmp_path / "outputs" / "scores")
        run(tmp_path, url, *shares)
        run(tmp_path, url, *shares, "seed=0", "judge.max_concurrent=2", "benchmark.mt_bench.bootstrap_rounds=50")
        assert sum(server.requests.values()) == paid
        run(tmp_path, url, *shares, "judge.asks_per_verdict=2")
        again = sum(server.requests.values()) - paid
        assert 0 < again < paid / 2
        run(tmp_path, url, *shares, "judge.asks_per_verdict=2")
        assert sum(server.requests.values()) == paid + again
