"""`python -m aipo.artifacts`: what a store holds, what changed in it, what may go without anything running twice."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from aipo.artifacts import StageReport, Store, StoreError
from aipo.artifacts.claims import Claim
from aipo.artifacts.command import main
from aipo.artifacts.garbage import best_policy
from aipo.artifacts.inventory import Inventory
from aipo.jobs import BenchmarkRecord, JobFile, JobRecord, Point, ScoreRecord


class Pipeline:
    """Two rounds of a small loop: base -> candidates -> train -> scores. Counts what it builds."""

    def __init__(self, root: Path, weights: str = "w") -> None:
        self.store, self.built, self.weights = Store(root), [], weights

    def stage(self, name: str, parents: dict[str, str], file: str, text: str, **more):
        def build(folder: Path) -> StageReport:
            self.built.append((name, text))
            (folder / file).write_text(text)
            return StageReport({"rows": 2})

        return self.store.run(name, version=1, config={"text": text}, parents=parents, build=build, **more)

    def run(self, rounds: int = 2, benchmark: str = "gold") -> list[dict]:
        policy = self.stage("base_model", {}, "model.safetensors", "base")
        points = [{"iteration": -1, "policy": policy.fingerprint, "scores": {}}]
        for number in range(rounds):
            candidates = self.stage("candidates", {"policy": policy.fingerprint}, "rows", f"c{number}")
            parents = {"policy": policy.fingerprint, "candidates": candidates.fingerprint}
            policy = self.stage("train", parents, "model.safetensors", f"{self.weights}{number}", verify=("policy",))
            scores = self.stage("scores", {"policy": policy.fingerprint}, "metrics.json", f"{benchmark}{number}")
            points.append(
                {"iteration": number, "policy": policy.fingerprint, "scores": {benchmark: scores.fingerprint}}
            )
        return points


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    pipeline = Pipeline(tmp_path / "outputs")
    record(tmp_path, "done", pipeline.run())
    return pipeline


def record(folder: Path, status: str, points: list[dict], job: str = "0") -> None:
    place = folder / "results" / "sweep" / "jobs" / job
    place.mkdir(parents=True, exist_ok=True)
    (place / "run.json").write_text(json.dumps({"status": status, "points": points}))


def command(folder: Path, *words: str) -> int:
    return main([words[0], "--store", str(folder / "outputs"), *words[1:]])


def gc(folder: Path, *words: str) -> int:
    return command(folder, "gc", "--results", str(folder / "results"), *words)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_ls_du_and_show_say_what_is_there(pipeline: Pipeline, tmp_path: Path, capsys) -> None:
    assert command(tmp_path, "ls", "train") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(" train " in line and "rows=2" in line for line in lines)
    assert command(tmp_path, "du") == 0
    found = {line.split()[2]: line.split()[-1] for line in capsys.readouterr().out.splitlines()}
    assert found["train"] == "2" and found["base_model"] == "1" and found["locks"] == "7"
    assert command(tmp_path, "show", lines[0][:8]) == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["counts"] == {"rows": 2}
    assert command(tmp_path, "show", "zz") == 1
    told = f"zz: 0 artifacts begin with it in {tmp_path / 'outputs'}; expected one; `aipo ls` lists them"
    assert capsys.readouterr().err == f"error: {told}\n"
    assert command(tmp_path / "elsewhere", "ls") == 1
    assert "no such store" in capsys.readouterr().err


def test_verify_names_every_changed_file(pipeline: Pipeline, tmp_path: Path, capsys) -> None:
    assert command(tmp_path, "verify") == 0
    for path in sorted((tmp_path / "outputs" / "train").glob("*/model.safetensors")):
        path.write_text("x" + path.read_text()[1:])
    assert command(tmp_path, "verify") == 1
    said = capsys.readouterr().out
    assert said.count("model.safetensors: the manifest lists SHA-256") == 2 and "5 of 7 artifacts are" in said


def test_gc_tells_first_and_keeps_what_a_sweep_reaches(pipeline: Pipeline, tmp_path: Path, capsys) -> None:
    before = set(names(tmp_path / "outputs"))
    pipeline.stage("answers", {}, "rows", "of no sweep")
    after = set(names(tmp_path / "outputs"))
    assert gc(tmp_path) == 0
    assert "answers" in capsys.readouterr().out and set(names(tmp_path / "outputs")) == after
    assert gc(tmp_path, "--delete") == 0
    assert set(names(tmp_path / "outputs")) == {name for name in before if not name.startswith(".locks")}
    pipeline.built.clear()
    pipeline.run()
    assert pipeline.built == []


def test_gc_keeps_weights_replies_and_what_was_set_aside_unless_named(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "outputs")
    points = pipeline.run()
    (tmp_path / "results").mkdir()
    pipeline.stage("judgments", {}, "replies.jsonl", "paid")
    (tmp_path / "outputs" / "judgments" / f"{'a' * 16}.partial").mkdir()
    (tmp_path / "outputs" / "judgments" / f"{'a' * 16}.partial" / "replies.jsonl").write_text("paid")
    (tmp_path / "outputs" / "replies" / "judge").mkdir(parents=True)
    (tmp_path / "outputs" / "replies" / "judge" / "replies.jsonl").write_text("paid")
    (tmp_path / "outputs" / ".aside").mkdir()
    (tmp_path / "outputs" / ".aside" / "x").write_text("maybe paid")
    assert gc(tmp_path, "--delete") == 0
    kept = [name.split("/")[0] for name in names(tmp_path / "outputs") if not name.endswith("manifest.json")]
    assert sorted(kept) == [".aside", "base_model", "judgments", "judgments", "replies", "train", "train"]
    assert gc(tmp_path, "--also", "weights", "replies", "aside", "--delete") == 0
    assert names(tmp_path / "outputs") == []
    assert points


def test_gc_keeps_what_an_unfinished_job_may_go_on_from(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "outputs")
    points = pipeline.run()
    record(tmp_path, "failed", points[:2])
    partial = tmp_path / "outputs" / "train" / f"{'b' * 16}.partial"
    partial.mkdir()
    (partial / "checkpoint").write_text("hours of work")
    assert gc(tmp_path, "--delete") == 0 and partial.exists()
    pipeline.built.clear()
    pipeline.run()
    assert pipeline.built == []
    assert gc(tmp_path, "--also", "unfinished", "--delete") == 0
    assert not partial.exists()
    pipeline.run()
    assert [stage for stage, _ in pipeline.built] == ["candidates", "scores"]  # its weights would have to be named


def test_gc_touches_nothing_that_a_process_works_on(pipeline: Pipeline, tmp_path: Path, capsys) -> None:
    partial = tmp_path / "outputs" / "train" / f"{'b' * 16}.partial"
    partial.mkdir()
    with Claim(tmp_path / "outputs", "train", "b" * 16, "flock"):
        assert gc(tmp_path, "--delete") == 0
        assert partial.exists() and "a process works on them" in capsys.readouterr().out
    assert gc(tmp_path, "--delete") == 0 and not partial.exists()


def test_gc_without_a_results_folder_or_with_a_torn_record_removes_nothing(tmp_path: Path, capsys) -> None:
    pipeline = Pipeline(tmp_path / "outputs")
    pipeline.run()
    before = names(tmp_path / "outputs")
    assert gc(tmp_path, "--delete") == 1 and "no such folder" in capsys.readouterr().err
    record(tmp_path, "done", [])
    (tmp_path / "results" / "sweep" / "jobs" / "0" / "run.json").write_text('{"status": "do')
    assert gc(tmp_path, "--delete") == 1 and "nothing is removed" in capsys.readouterr().err
    assert names(tmp_path / "outputs") == before


def test_gc_keeps_what_a_linked_sweep_needs_and_ends_where_links_form_a_loop(tmp_path: Path, capsys) -> None:
    pipeline = Pipeline(tmp_path / "outputs")
    record(tmp_path / "elsewhere", "done", pipeline.run())
    results, sweep = tmp_path / "results", tmp_path / "elsewhere" / "results" / "sweep"
    results.mkdir()
    (results / "linked").symlink_to(sweep)
    (sweep / "back").symlink_to(results)
    before = [name for name in names(tmp_path / "outputs") if not name.startswith(".locks")]
    assert gc(tmp_path, "--delete") == 0
    assert names(tmp_path / "outputs") == before
    sweep.rename(tmp_path / "unmounted")
    assert gc(tmp_path, "--delete") == 1
    said = capsys.readouterr().err
    assert f"{results / 'linked'} cannot be read" in said and f"it leads to {sweep}" in said
    assert names(tmp_path / "outputs") == before


def test_gc_passes_over_a_jobs_own_links(pipeline: Pipeline, tmp_path: Path) -> None:
    """A tracker links its last log, and the link outlives what it names."""
    (tmp_path / "results" / "sweep" / "jobs" / "0" / "wandb").mkdir()
    (tmp_path / "results" / "sweep" / "jobs" / "0" / "wandb" / "latest-run").symlink_to("gone")
    assert gc(tmp_path, "--delete") == 0


def test_gc_removes_nothing_where_a_folder_or_record_cannot_be_read(
    pipeline: Pipeline, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the refusal is the test's."""
    before = names(tmp_path / "outputs")
    closed, scandir = tmp_path / "results" / "sweep" / "jobs", os.scandir

    def refuse(path=".", *more):
        if str(path) == str(closed):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        assert gc(tmp_path, "--delete") == 1
    assert capsys.readouterr().err == (
        f"error: {closed} cannot be read (Permission denied); nothing is removed while it is unclear\n"
    )
    (closed / "0" / "run.json").write_bytes(b"\xff")
    assert gc(tmp_path, "--delete") == 1
    assert f"{closed / '0' / 'run.json'} cannot be read" in capsys.readouterr().err
    assert names(tmp_path / "outputs") == before


def test_gc_keeps_what_the_sweeps_of_another_checkout_need(tmp_path: Path) -> None:
    """Of a shared store, everything that only the others' sweeps had made was removed, and could not be kept."""
    pipeline = Pipeline(tmp_path / "outputs")
    record(tmp_path / "theirs", "done", pipeline.run())
    (tmp_path / "results").mkdir()
    before = names(tmp_path / "outputs")
    assert gc(tmp_path, str(tmp_path / "theirs" / "results"), "--delete") == 0
    assert names(tmp_path / "outputs") == [name for name in before if not name.startswith(".locks")]
    assert gc(tmp_path, str(tmp_path / "absent"), "--delete") == 1
    assert gc(tmp_path, "--delete") == 0
    assert len(names(tmp_path / "outputs")) < len(before) - 1


def test_pruned_weights_never_retrain_and_come_back_when_a_stage_needs_them(pipeline: Pipeline, tmp_path: Path) -> None:
    whole = names(tmp_path / "outputs" / "train")
    assert gc(tmp_path, "--weights", "last", "--delete") == 0
    left = [name for name in names(tmp_path / "outputs") if name.endswith("safetensors")]
    assert sorted(name.split("/")[0] for name in left) == ["base_model", "train"]
    assert command(tmp_path, "verify") == 0
    pipeline.built.clear()
    pipeline.run()
    assert pipeline.built == []
    Pipeline(tmp_path / "outputs").run()  # as another process
    pipeline.run(benchmark="a new one")
    assert sorted(pipeline.built) == [("scores", "a new one0"), ("scores", "a new one1"), ("train", "w0")]
    assert [name for name in names(tmp_path / "outputs" / "train")] == whole
    assert command(tmp_path, "verify") == 0


def test_pruned_weights_that_come_back_different_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    """Answers of the old weights and answers of the new ones must not stand in one table as one policy's."""
    assert gc(tmp_path, "--weights", "last", "--delete") == 0
    other = Pipeline(tmp_path / "outputs")
    real = Path.write_text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", lambda path, text, **more: real(path, f"{text}'" if text == "w0" else text))
        with pytest.raises(StoreError, match="was pruned, and this machine makes other weights"):
            other.run(benchmark="a new one")
    assert command(tmp_path, "verify") == 0


def test_the_best_rounds_weights_are_those_of_the_highest_primary_metric(tmp_path: Path) -> None:
    """Round 1 of three scores highest; the last round and the base model do not matter."""
    store = Store(tmp_path / "outputs")
    points = []
    for number, score in ((-1, 9.0), (0, 1.0), (1, 3.0), (2, 2.0)):

        def weights(folder: Path, number: int = number) -> StageReport:
            (folder / "model.safetensors").write_text(str(number))
            return StageReport()

        def metrics(folder: Path, score: float = score) -> StageReport:
            rows = [{"name": "gold_score", "value": score}, {"name": "mean_tokens", "value": 100 - score}]
            (folder / "metrics.json").write_text(json.dumps(rows))
            return StageReport()

        stage = "train" if number >= 0 else "base_model"
        made = store.run(stage, version=1, config={"n": number}, parents={}, build=weights)
        parents = {"policy": made.fingerprint}
        scored = store.run("scores", version=1, config={}, parents=parents, build=metrics)
        points.append(Point(number, made.fingerprint, (ScoreRecord("gold", "gold", False, scored.fingerprint),)))
    record = JobRecord(
        *("aipo", 0, "miniature", "pool", True, (), {}, {}, "outputs"),
        benchmarks=(BenchmarkRecord("gold", "gold_score", "mean_tokens", False),),
        points=tuple(points),
    )
    folder = tmp_path / "results" / "sweep" / "jobs" / "0"
    folder.mkdir(parents=True)
    JobFile(folder, record).finish("done")
    assert best_policy(Inventory.of(tmp_path / "outputs"), folder) == points[2].policy
    assert gc(tmp_path, "--weights", "best", "--delete") == 0
    left = sorted(path.read_text() for path in (tmp_path / "outputs").rglob("*.safetensors"))
    assert left == ["-1", "1"]
    assert command(tmp_path, "verify") == 0
