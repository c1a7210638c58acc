"""A judge's endpoint is asked for a sign of life only where a stage to come would send it a request."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from composing import composed
from faulty_server import FaultyServer

from aipo.artifacts.files import hash_file
from aipo.jobs import read_job
from aipo.pipeline.asked import asked
from aipo.pipeline.check import ConfigError, check
from aipo.pipeline.loop import loop, run
from aipo.pipeline.run import build_run

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Done:
    """A finished job with a paid judge and a paid ranker, whose server is gone by now."""

    server: FaultyServer
    url: str
    store: Path
    overrides: list[str]


def settings(url: str, *more: str) -> list[str]:
    """One round of everything that is paid for, as small as it goes."""
    ranking = ["ranker=llm_judge", "judge@ranker.judge=openai_compatible", "ranker.judge.model=ranking"]
    ranking += [f"ranker.judge.endpoint.base_url={url}", "objective=dpo"]
    judging = [
        "judge=openai_compatible",
        "judge.model=judge",
        f"judge.endpoint.base_url={url}",
        "diagnostic_judge=none",
    ]
    judging += ["benchmark=[mini_mt_bench]", "limit=3", "benchmark.mt_bench.max_unscored_share=0.9"]
    size = ["iteration.iterations=1", "iteration.prompts=6", "iteration.candidates=3", "kl_prompts=0"]
    size += ["iteration.decoding.max_new_tokens=48", "trainer.pairs_per_step=4", "trainer.warmup_ratio=0.0"]
    return [*ranking, *judging, *size, "data=pairrm_gen_uf", *more]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("done")
    server = FaultyServer(lambda prompt, attempt: None)
    server.text = lambda prompt: f"Score: {len(prompt) % 6} [[7]]" if len(prompt) % 7 else "Score: 3"
    with server.running() as url:
        overrides = settings(url, f"store.root={folder}/outputs")
        run_job(overrides, folder / "job")
        assert len(server.requests) > 10
    return Done(server, url, folder / "outputs", overrides)


@pytest.fixture
def copy(done: Done, tmp_path: Path) -> Path:
    """The finished store, to be changed."""
    shutil.copytree(done.store, tmp_path / "outputs")
    return tmp_path / "outputs"


def job_of(done: Done, store: Path, *more: str) -> list[str]:
    return [*done.overrides, f"store.root={store}", *more]


def run_job(overrides: list[str], folder: Path) -> None:
    run(composed(*overrides), folder, (), {"model": "miniature", "data": "generated"})


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    whole = [sys.executable, str(ROOT / "run.py"), *sorted(arguments)]  # -m first
    return subprocess.run(whole, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


def state(store: Path) -> dict[str, str]:
    """SHA-256 of what the scores are made of, and of the scores."""
    names = ("judgments.jsonl", "metrics.json", "questions.parquet", "ranking.parquet")
    files = [path for path in store.rglob("*") if path.name in names and ".partial" not in str(path)]
    return {str(path.relative_to(store)): hash_file(path) for path in files}


def named(overrides: list[str]) -> set[str]:
    job = build_run(check(composed(*overrides)))
    return set(asked(job, loop))


def without_reply(done: Done, store: Path, model: str) -> None:
    """Take the last kept reply of a model away; what it answered is asked for again."""
    (who,) = [path for path in store.glob("replies/*/judge.json") if json.loads(path.read_text())["model"] == model]
    journal = max(who.parent.glob("*.jsonl"))
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if line.startswith(b'{"key"'))
    journal.write_bytes(b"".join(lines[:last] + lines[last + 1 :]))


def test_a_fresh_job_asks_everyone_and_a_finished_one_nobody(done: Done, tmp_path: Path) -> None:
    assert named(job_of(done, tmp_path / "none")) == {"judge", "ranker", "sampler"}
    assert named(done.overrides) == set()


def test_kept_replies_need_no_answer(done: Done, copy: Path) -> None:
    for stage in ("judgments", "scores", "ranking"):
        shutil.rmtree(copy / stage)
    assert named(job_of(done, copy)) == set()


@pytest.mark.parametrize(("model", "who", "stage"), [("judge", "judge", "judgments"), ("ranking", "ranker", "ranking")])
def test_a_single_reply_that_is_not_kept_needs_its_judge(
    done: Done, copy: Path, monkeypatch: pytest.MonkeyPatch, model: str, who: str, stage: str
) -> None:
    """Not while what was made of it is there."""
    monkeypatch.setattr("aipo.judges.replies.ReplyStore._open", {})
    without_reply(done, copy, model)
    assert named(job_of(done, copy)) == set()
    shutil.rmtree(copy / stage)
    assert named(job_of(done, copy)) == {who}


def test_a_verdict_that_is_to_be_asked_for_again_needs_the_judge(done: Done, copy: Path) -> None:
    """asks_per_verdict=2: replies are kept, but some hold no verdict. The check itself writes nothing."""
    replies = {path: path.read_bytes() for path in copy.glob("replies/**/*.jsonl")}
    (copy / "judgments").rename(copy / "elsewhere")
    assert named(job_of(done, copy, "judge.asks_per_verdict=2")) == {"judge"}
    assert named(job_of(done, copy, "judge.asks_per_verdict=1")) == set()
    assert {path: path.read_bytes() for path in copy.glob("replies/**/*.jsonl")} == replies


def test_answers_that_are_not_there_need_the_sampler_and_the_judge(done: Done, copy: Path) -> None:
    """Only sampling tells what would be asked."""
    for stage in ("judgments", "answers"):
        shutil.rmtree(copy / stage)
    assert named(job_of(done, copy)) == {"judge", "sampler"}


def test_an_artifact_that_was_changed_lets_everyone_be_looked_at(done: Done, copy: Path) -> None:
    manifest = next(copy.glob("answers/*/manifest.json"))
    manifest.write_text(manifest.read_text().replace('"answers"', '"Answers"'))
    assert named(job_of(done, copy)) == {"judge", "ranker", "sampler"}


def test_all_replies_are_kept_and_the_server_is_dead(done: Done, copy: Path, tmp_path: Path) -> None:
    for stage in ("judgments", "scores", "ranking"):
        shutil.rmtree(copy / stage)
    run_job(job_of(done, copy), tmp_path / "job")
    record = read_job(tmp_path / "job")
    assert record.status == "done"
    assert [len(point.scores) for point in record.points] == [1, 1]
    assert state(copy) == state(done.store)


def test_one_reply_is_missing_and_the_server_is_dead(done: Done, copy: Path, tmp_path: Path) -> None:
    without_reply(done, copy, "judge")
    shutil.rmtree(copy / "judgments")
    with pytest.raises(ConfigError) as caught:
        run_job(job_of(done, copy), tmp_path / "job")
    assert caught.value.problems == [f"missing judge {done.url}: it does not answer; start it, or set judge.endpoint"]
    assert not (tmp_path / "job").exists() and not (copy / "judgments").exists()


def test_one_reply_is_missing_and_the_server_is_back(done: Done, copy: Path, tmp_path: Path) -> None:
    without_reply(done, copy, "judge")
    shutil.rmtree(copy / "judgments")
    before = sum(done.server.requests.values())
    with done.server.running(int(done.url.rpartition(":")[2].split("/")[0])):
        run_job(job_of(done, copy), tmp_path / "job")
    assert sum(done.server.requests.values()) == before + 1
    assert state(copy) == state(done.store)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        (["seed=0"], 2, "1 problem(s) in the configuration; nothing was run:\n  1. missing judge http"),
        (["-m", "trainer.learning_rate=1e-3,2e-3"], 2, "  1. missing judge http"),
        (["plan=true"], 0, "Missing, 1:"),
    ],
)
def test_the_command_says_so_before_anything(
    done: Done, copy: Path, tmp_path: Path, given: list[str], status: int, said: str
) -> None:
    without_reply(done, copy, "judge")
    shutil.rmtree(copy / "judgments")
    result = command(tmp_path, *job_of(done, copy, *given))
    assert result.returncode == status, result.stderr
    assert said in (result.stderr if status else result.stdout)
    assert "Traceback" not in result.stderr and not (tmp_path / "results").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("given", "said"), [(["plan=true"], "Missing: nothing"), (["-m", "seed=0", "sweep=kept"], "")])
def test_the_command_runs_and_plans_without_the_server(
    done: Done, copy: Path, tmp_path: Path, given: list[str], said: str
) -> None:
    shutil.rmtree(copy / "judgments")
    result = command(tmp_path, *job_of(done, copy, *given))
    assert result.returncode == 0, result.stderr
    assert said in result.stdout
    assert (tmp_path / "results" / "kept").exists() == (given[0] == "-m")
