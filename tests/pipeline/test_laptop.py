"""scale=laptop: it passes the check, every experiment composes at it, and what cannot work there is said."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from composing import composed
from omegaconf import open_dict

from aipo.pipeline.check import ConfigError, check
from aipo.pipeline.conflicts import MINIATURE, _value
from aipo.pipeline.loop import walk
from aipo.pipeline.run import build_run
from aipo.pipeline.sweep import combinations

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


def problems(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(composed(*overrides))
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_can_be_planned_at_this_scale(name: str, tmp_path: Path):
    overrides = [f"+experiment={name}", "scale=laptop", f"store.root={tmp_path / 'none'}"]
    config = composed(*overrides, with_hydra=True)
    with open_dict(config):
        config.hydra.overrides.task = overrides
    jobs = list(combinations(config))
    for job in jobs[:: max(1, len(jobs) // 30)]:  # of the league every sixth, which are all objectives
        last = check(composed(*job))
    stages = [event.stage for event in walk(build_run(last))]
    assert stages.count("train") == last["iteration"]["iterations"] and "judgments" not in stages


def test_the_toy_worlds_questions_are_not_asked_of_a_real_model(tmp_path: Path):
    told = problems("model=smollm2_135m_instruct")
    assert "data.source: aipo.miniature.MiniatureSource asks about the miniature's world" in told
    assert "benchmark.alpaca_eval: aipo.benchmarks.AlpacaEval asks" in told and "scale=laptop" in told
    told = problems("scale=laptop", "judge=gold", "benchmark=[constraints,gold]")
    assert "benchmark.gold: aipo.miniature.GoldBenchmark" in told
    from aipo.miniature.tokenizer import build_tokenizer

    build_tokenizer().save_pretrained(tmp_path)  # a policy trained in the miniature knows its world
    check(composed("model=local", f"model.path={tmp_path}"))


def test_the_miniatures_settings_are_not_inherited_unseen_by_a_real_model(tmp_path: Path):
    mine = ["ranker=length_only", "data=pairrm_gen_uf", "data/source=constraints", "judge=none"]
    mine += ["benchmark=[constraints]", "diagnostic_judge=none", "model=local", f"model.path={tmp_path}"]
    told = problems(*mine)
    assert told.count("\n") == 0
    assert "the miniature's settings (trainer.learning_rate=0.0003, iteration.decoding.temperature=1" in told
    for stated in ("trainer.learning_rate=1e-5", "iteration.decoding.top_k=50", "iteration=laptop"):
        check(composed(*mine, stated))
    config = composed()  # the values named are the miniature's
    assert all(_value(config, path) == value for path, value in MINIATURE.items())


def test_a_judge_is_needed_only_where_one_is_asked():
    check(composed("judge=none", "benchmark=[gold]", "diagnostic_judge=none"))
    check(composed("scale=laptop", "judge=gold"))  # never called
    assert "judge=none answers nothing, but benchmark alpaca_eval" in problems("judge=none")


def test_the_ranker_needs_prompts_that_bring_constraints():
    assert "choose data/source=constraints" in problems("data=pairrm_gen_uf", "ranker=verifiable")
    assert "data.prompts=self_instruct" in problems("scale=laptop", "data=pairrm_gen_si_uf", "data/source=constraints")


@pytest.mark.slow
def test_a_round_on_the_real_model(tmp_path: Path):
    """16 prompts, one round: the weights change, the margin saved is positive, the first loss is ln 2."""
    model = os.environ.get("AIPO_SMOLLM2")
    if not model:
        pytest.skip("AIPO_SMOLLM2 names no folder; python -m aipo.models smollm2 --out <folder> builds it")
    overrides = [
        "scale=laptop", f"model.path={model}", "objective=dpo", "iteration.iterations=1", "iteration.prompts=16",
        "iteration.decoding.max_new_tokens=96", "benchmark=[]", "kl_prompts=0", "trainer.pairs_per_step=4",
        f"store.root={tmp_path}/outputs", f"hydra.run.dir={tmp_path}/job",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "run.py", *overrides], cwd=ROOT, capture_output=True, text=True, timeout=3000,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (metrics,) = (tmp_path / "outputs" / "train").glob("*/metrics.jsonl")
    steps = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    (manifest,) = (tmp_path / "outputs" / "train").glob("*/manifest.json")
    counts = json.loads(manifest.read_text())["counts"]
    assert counts["share_of_weights_changed"] > 0.5 and counts["share_of_update_kept"] > 0.95
    assert _saved_margin(tmp_path / "outputs", model) > 0


def _saved_margin(outputs: Path, model: str) -> float:
    """Mean change, in nats, of the log-prob margin of the round's pairs, by the policy as saved."""
    from aipo.models.policy import PolicyRef
    from aipo.records import Pair, ReferenceLogps, read_parquet
    from aipo.training import Trainer

    (pairs_file,) = (outputs / "pairs").glob("*/pairs.parquet")
    (before_file,) = (outputs / "reference").glob("*/reference.parquet")
    (policy,) = (outputs / "train").glob("*/model")
    pairs, before = read_parquet(pairs_file, Pair), read_parquet(before_file, ReferenceLogps)
    settings = {key: value for key, value in composed("scale=laptop").trainer.items() if key != "_target_"}
    after = Trainer(**settings).reference(policy=PolicyRef(str(policy)), pairs=pairs, out=outputs / "after")
    gained = [(new.chosen - new.rejected) - (old.chosen - old.rejected) for new, old in zip(after, before, strict=True)]
    return sum(gained) / len(gained)
