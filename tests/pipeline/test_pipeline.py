"""The loop as one: shared stages, resume, and an end state that does not depend on how often it was killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from aipo.jobs import read_job
from aipo.records import QuestionScore, RankedPrompt, read_jsonl, read_parquet

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "model.steps=30",
    "model.n_documents=400",
    "iteration.iterations=2",
    "iteration.prompts=24",
    "iteration.candidates=3",
    "benchmark=[gold]",
    "benchmark.gold.n_questions=16",
    "kl_prompts=12",
]
NOT_CONTENT = {"manifest.json", "metrics.jsonl", "replies.jsonl"}
"""Files that carry times: how fast a step was, when a reply came."""


def _command(folder: Path, *overrides: str, sweep: bool = False) -> list[str]:
    where = [
        f"store.root={folder}/outputs",
        f"hydra.run.dir={folder}/sweep/jobs/${{job_folder:}}",
        f"hydra.sweep.dir={folder}/sweep",
    ]
    return [sys.executable, str(ROOT / "run.py"), *(["-m"] if sweep else []), *SMALL, *where, *overrides]


def _run(folder: Path, *overrides: str, sweep: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        _command(folder, *overrides, sweep=sweep),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=300,
    )


def _content(folder: Path) -> dict[str, str]:
    """SHA-256 of every data file of the store and of every generated table."""
    files = [path for path in (folder / "outputs").rglob("*") if path.is_file() and ".locks" not in path.parts]
    files += list((folder / "sweep" / "tables").rglob("*.csv"))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in NOT_CONTENT
    }


FINGERPRINT = re.compile("[0-9a-f]{16}")


def _outcomes(log: str) -> list[tuple[str, str]]:
    """(stage, run | cached) of each console line of a stage, which verbose=true shows."""
    words = [line.split() for line in log.splitlines()]
    return [
        (word[index - 2], word[index])
        for word in words
        for index in range(2, len(word))
        if word[index] in ("run", "cached") and FINGERPRINT.fullmatch(word[index - 1])
    ]


def _job(folder: Path, objective: str) -> Path:
    """The folder of the last job of that objective."""
    jobs = (folder / "sweep" / "jobs").glob(f"{objective}-seed0-*")
    return max(jobs, key=lambda job: (job / "run.json").stat().st_mtime_ns)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    result = _run(folder, "objective=dpo,simpo", "verbose=true", sweep=True)
    assert result.returncode == 0, result.stderr[-3000:]
    (folder / "log").write_text(result.stdout)
    return folder


def test_a_sweep_shares_all_that_does_not_depend_on_the_objective(finished: Path) -> None:
    outcomes = _outcomes((finished / "log").read_text())
    ran = [stage for stage, outcome in outcomes if outcome == "run"]
    cached = [stage for stage, outcome in outcomes if outcome == "cached"]
    assert ran.count("base_model") == ran.count("pool") == 1
    for stage in ("prompts", "candidates", "ranking", "pairs", "reference"):
        assert ran.count(stage) == 3, stage  # round 0 once, round 1 once for each objective
        assert cached.count(stage) == 1, stage
    assert ran.count("train") == 4 and ran.count("scores") == 5


def test_the_record_names_every_artifact(finished: Path) -> None:
    for objective in ("dpo", "simpo"):
        record = read_job(_job(finished, objective))
        assert (record.status, record.objective, record.seed, record.needs_world) == ("done", objective, 0, True)
        assert [point.iteration for point in record.points] == [-1, 0, 1]
        for point in record.points:
            for stage in ("ranking", "pairs", "reference", "train"):
                digest = getattr(point, stage)
                assert (digest is None) == (point.iteration == -1)
                if digest:
                    assert (finished / "outputs" / stage / digest / "manifest.json").exists()
            (score,) = point.scores
            assert (score.benchmark, score.diagnostic) == ("gold", False)
            assert (finished / "outputs" / "scores" / score.fingerprint / "metrics.json").exists()
        steps = read_jsonl(_job(finished, objective) / "metrics.jsonl")
        assert {row["iteration"] for row in steps if row["kind"] == "train"} == {0, 1}


def test_dpo_starts_at_ln_2(finished: Path) -> None:
    rows = read_jsonl(_job(finished, "dpo") / "metrics.jsonl")
    first = [
        row for row in rows if row["kind"] == "train" and row["step"] == min(r["step"] for r in rows if "step" in r)
    ]
    assert len(first) == 2
    for row in first:
        assert row["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_the_same_command_again_runs_no_stage(finished: Path) -> None:
    before = _content(finished)
    result = _run(finished, "objective=dpo,simpo", "-v", sweep=True)
    assert result.returncode == 0
    outcomes = _outcomes(result.stdout)
    assert outcomes and {outcome for _, outcome in outcomes} == {"cached"}
    assert _content(finished) == before


def test_every_policy_has_its_kl_and_its_proxy_score(finished: Path) -> None:
    base, first, second = read_job(next((finished / "sweep" / "jobs").iterdir())).points
    assert base.kl is None and [record.benchmark for record in base.proxies] == ["gold"]
    kls = [json.loads((finished / "outputs" / "kl" / point.kl / "kl.json").read_text()) for point in (first, second)]
    # After the first round the policy before is the base model.
    assert kls[0]["base"] == kls[0]["previous"] and kls[1]["base"] != kls[1]["previous"]
    for estimate in (estimate for kl in kls for estimate in kl.values()):
        assert estimate["nats"] > 0 and estimate["standard_error"] > 0
    for point in (base, first, second):
        rows = read_parquet(
            finished / "outputs" / "proxy" / point.proxies[0].fingerprint / "proxy.parquet", RankedPrompt
        )
        questions = read_parquet(
            finished / "outputs" / "scores" / point.scores[0].fingerprint / "questions.parquet", QuestionScore
        )
        assert [row.prompt_id for row in rows] == [question.question_id for question in questions]
        # proxy = gold + 0.005 a token + noise of sd 0.15 each: over 16 answers within five standard errors.
        gap = sum(row.scores[0] - q.value - 0.005 * q.n_tokens for row, q in zip(rows, questions, strict=True)) / 16
        assert abs(gap) < 5 * 0.15 / 4


def test_plan_runs_nothing_and_knows_what_is_there(finished: Path, tmp_path: Path) -> None:
    known = _run(finished, "objective=dpo", "plan=true")
    assert known.returncode == 0 and "planned" not in known.stdout.split("Estimates")[0], known.stdout
    # How a stage is computed is not what it computes: other batch sizes and checkpoint times leave all as it is.
    tuned = _run(
        finished, "objective=dpo", "plan=true", "sampler.cache_tokens=999", "trainer.checkpoint_every_seconds=7"
    )
    assert "0 to run" in tuned.stdout, tuned.stdout
    fresh = _run(tmp_path, "objective=dpo", "plan=true")
    assert fresh.returncode == 0, fresh.stderr
    assert "stages: 0 cached, 25 to run" in fresh.stdout
    assert not (tmp_path / "outputs").exists()


def _killed(folder: Path, after_s: float) -> bool:
    """Start the run and kill it and its children after `after_s` seconds; False when it ended before."""
    process = subprocess.Popen(
        _command(folder, "objective=dpo"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        process.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    assert process.returncode == 0
    return False


@pytest.mark.slow
def test_killed_at_ten_random_moments_the_end_state_is_the_same(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    started = time.perf_counter()
    assert _run(whole, "objective=dpo").returncode == 0
    seconds = time.perf_counter() - started
    expected, moments = _content(whole), random.Random(0)
    kills, attempt = 0, 0
    while kills < 10:
        folder = tmp_path / f"broken_{attempt}"
        while _killed(folder, moments.uniform(0.2, 0.7) * seconds):
            kills += 1
        actual = _content(folder)
        assert set(expected) == set(actual)
        assert {name for name in expected if expected[name] != actual[name]} == set()
        attempt += 1


def test_the_samplers_own_log_probs_take_the_references_place(finished: Path) -> None:
    result = _run(finished, "objective=dpo", "iteration.reference_logps=sampler", "iteration.iterations=1")
    assert result.returncode == 0, result.stderr[-3000:]
    record = read_job(_job(finished, "dpo"))
    sides = ["chosen", "rejected"]
    found: dict[str, pd.DataFrame] = {}
    for manifest in (finished / "outputs" / "reference").glob("*/manifest.json"):
        content = json.loads(manifest.read_text())
        if content["parents"]["pairs"] == record.points[1].pairs:
            rows = pd.read_parquet(manifest.parent / "reference.parquet").set_index("pair_id")
            found["sampler" if manifest.parent.name == record.points[1].reference else "model"] = rows
    assert set(found) == {"sampler", "model"}
    assert len(found["model"]) > 10 and (found["model"][sides] < -1).all(axis=None)
    pd.testing.assert_frame_equal(found["sampler"][sides], found["model"][sides], atol=1e-3, rtol=0)
    assert found["sampler"][["chosen_prefix", "rejected_prefix"]].isna().all(axis=None)


def test_a_failing_stage_is_recorded_and_loses_nothing(finished: Path) -> None:
    result = _run(finished, "objective=dpo", "data.filters.max_prompt_tokens=1")
    assert result.returncode == 1
    job = _job(finished, "dpo")
    record = read_job(job)
    assert record.status == "failed" and record.error and "prompt_too_long" in record.error
    assert (job / "traceback.txt").exists()
