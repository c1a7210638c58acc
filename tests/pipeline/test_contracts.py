"""What a changed setting costs: a stage hashes the settings that shape its own content, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from composing import composed

from aipo.artifacts import StageEvent
from aipo.pipeline.check import check
from aipo.pipeline.loop import walk
from aipo.pipeline.run import build_run

GIVEN = ("iteration.iterations=1", "benchmark=[gold,mini_alpaca_eval,mini_mt_bench,mini_arena_hard]")
SCORING = (
    *("benchmark.gold.bootstrap_rounds=77", "benchmark.alpaca_eval.bootstrap_rounds=500"),
    *("benchmark.alpaca_eval.lc_bootstrap_rounds=20", "benchmark.alpaca_eval.max_unscored_share=0.1"),
    *("benchmark.alpaca_eval.length_metric=mean_chars", "benchmark.mt_bench.bootstrap_rounds=9"),
    *("benchmark.mt_bench.max_unscored_share=0.5", "benchmark.mt_bench.length_metric=mean_chars"),
    *("benchmark.arena_hard.bootstrap_rounds=9", "benchmark.arena_hard.max_unscored_share=0.2"),
    *("benchmark.arena_hard.strong_weight=2", "benchmark.arena_hard.name=arena"),
)
JUDGING = (
    *("benchmark.alpaca_eval.order_seed=3", "+benchmark.alpaca_eval.both_orders=true"),
    *("benchmark.alpaca_eval.annotator.max_tokens=2", "benchmark.mt_bench.judge_max_tokens=99"),
    *("benchmark.arena_hard.judge_temperature=0.5", "judge.noise_sd=0.2"),
)
OPERATIONAL = (
    *("trainer.checkpoint_every_seconds=7", "sampler.cache_tokens=99999", "tracker=wandb", "cpu_threads=2"),
    *("sweep=elsewhere", "hardware=h100_8"),
)


def _stages(tmp_path: Path, *overrides: str) -> dict[tuple[str, str], StageEvent]:
    config = check(composed(*GIVEN, f"store.root={tmp_path}/none", *overrides))
    return {(event.stage, event.fingerprint): event for event in walk(build_run(config))}


def _changed(tmp_path: Path, *overrides: str) -> set[str]:
    """The stages that would run again after a finished run without these overrides."""
    return {stage for stage, _ in set(_stages(tmp_path, *overrides)) - set(_stages(tmp_path))}


@pytest.mark.parametrize("override", SCORING)
def test_a_scoring_setting_reruns_scores_alone(tmp_path: Path, override: str) -> None:
    assert _changed(tmp_path, override) == {"scores"}


@pytest.mark.parametrize("override", JUDGING)
def test_a_judging_setting_samples_no_answer(tmp_path: Path, override: str) -> None:
    assert _changed(tmp_path, override) == {"judgments", "scores"}


@pytest.mark.parametrize("override", OPERATIONAL)
def test_an_operational_setting_reruns_nothing(tmp_path: Path, override: str) -> None:
    assert _changed(tmp_path, override) == set()


def test_an_answering_setting_reruns_its_benchmark_alone(tmp_path: Path) -> None:
    changed = set(_stages(tmp_path, "benchmark.alpaca_eval.decoding.temperature=0.9"))
    changed -= (before := set(_stages(tmp_path)))
    assert {stage for stage, _ in changed} == {"answers", "judgments", "scores"}
    # Two policies: their answers, and judgments and scores by two judges.
    assert len(changed) == 2 * (1 + 2 + 2) and len(before) > 30
