"""Judged answers as inspect_ai's logs: inspect_ai's own reader finds what the artifacts hold, every sample of it."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from aipo.command.app import app
from analysis import eval_logs
from analysis.collect import AnalysisError
from analysis.judged import judged

from page_sweep import HOSTILE, with_texts  # isort: skip


@pytest.fixture
def sweep(tmp_path):
    return with_texts(tmp_path)


def test_every_scores_artifact_is_read_once_with_all_that_is_behind_it(sweep):
    found = list(judged(sweep.folder))
    assert [item.point.iteration for item in found] == [-1, 0, 0]
    assert {item.run.record.objective for item in found[1:]} == {"aipo", "dpo"}
    assert len({item.score.fingerprint for item in found}) == 3
    first, second, third = found[1].samples
    assert first.turns[0].text == HOSTILE and [one.score.value for one in (first, second, third)] == [0.25, 0.5, None]
    assert third.turns[0].finish == "length" and third.judgments[0].value is None
    assert {metric.name: metric.value for metric in found[1].metrics}["lc_win_rate"] == 50.0


def test_what_is_missing_is_told_and_nothing_is_left_out(sweep, tmp_path):
    with pytest.raises(AnalysisError, match="no runs in it; expected the folder of a sweep"):
        list(judged(tmp_path / "nowhere"))
    next((sweep.store / "judgments").glob("*/judgments.jsonl")).write_text("{}\n")
    with pytest.raises(AnalysisError, match="judgments"):
        list(judged(sweep.folder))


def test_a_job_whose_record_cannot_be_reached_is_told(sweep):
    """A link to itself: no user can follow it."""
    loop = sweep.folder / "jobs" / "loop" / "run.json"
    loop.parent.mkdir()
    loop.symlink_to("run.json")
    with pytest.raises(AnalysisError, match="loop/run.json cannot be read"):
        list(judged(sweep.folder))


def test_without_inspect_the_command_names_the_extra(sweep, monkeypatch):
    monkeypatch.setattr(eval_logs.importlib.util, "find_spec", lambda name: None)
    shown = CliRunner().invoke(app, ["eval-logs", str(sweep.folder)])
    assert shown.exit_code == 1 and shown.stderr.startswith("error: ") and "aipo[inspect]" in shown.stderr
    assert not (sweep.folder / eval_logs.FOLDER).exists()


needs_inspect = pytest.mark.skipif(
    importlib.util.find_spec("inspect_ai") is None, reason="needs inspect_ai: pip install 'aipo[inspect]'"
)


def artifact(sweep, stage: str, digest: str) -> Path:
    return sweep.store / stage / digest


def rows(path: Path) -> dict[str, dict]:
    return {row["question_id"]: row for row in pq.read_table(path).to_pylist()}


@needs_inspect
def test_inspects_own_reader_finds_the_artifacts_values(sweep):
    from inspect_ai.log import list_eval_logs, read_eval_log

    shown = CliRunner().invoke(app, ["eval-logs", str(sweep.folder)])
    assert shown.exit_code == 0 and shown.stdout.startswith("3 logs in ")
    logs = [read_eval_log(info) for info in list_eval_logs(str(sweep.folder / eval_logs.FOLDER))]
    assert sum(len(log.samples) for log in logs) == 9 and {log.status for log in logs} == {"success"}
    for log in logs:
        behind = log.eval.metadata
        answers = rows(artifact(sweep, "answers", behind["answers"]) / "answers.parquet")
        scores = rows(artifact(sweep, "scores", behind["scores"]) / "questions.parquet")
        lines = (artifact(sweep, "judgments", behind["judgments"]) / "judgments.jsonl").read_text().splitlines()
        verdicts = {row["question_id"]: row for row in map(json.loads, lines)}
        metrics = json.loads((artifact(sweep, "scores", behind["scores"]) / "metrics.json").read_text())
        (score,) = log.results.scores
        assert {name: metric.value for name, metric in score.metrics.items()} == {
            metric["name"]: metric["value"] for metric in metrics
        }
        assert score.scored_samples == sum(row["value"] is not None for row in scores.values())
        assert sorted(sample.id for sample in log.samples) == sorted(answers)
        for sample in log.samples:
            (turn,) = answers[sample.id]["turns"]
            assert sample.output.completion == turn["text"] == sample.messages[-1].text
            assert sample.output.stop_reason == {"length": "max_tokens", "stop": "stop"}[turn["finish"]]
            assert sample.metadata["turns"][0]["n_tokens"] == len(turn["token_ids"]) - (turn["finish"] == "stop")
            assert sample.metadata["n_chars"] == scores[sample.id]["n_chars"]
            value, found = scores[sample.id]["value"], sample.scores["lc_win_rate"]
            assert math.isnan(found.value) if value is None else found.value == value
            assert found.metadata["verdicts"] == [verdicts[sample.id]] and found.explanation == "because <b>"


@needs_inspect
def test_a_log_that_is_there_is_left_and_a_missing_one_is_written(sweep):
    first = list(eval_logs.write_eval_logs(sweep.folder))
    before = {path: path.stat().st_mtime_ns for path in first}
    first[0].unlink()
    assert list(eval_logs.write_eval_logs(sweep.folder)) == first
    assert {path for path in first if path.stat().st_mtime_ns != before[path]} == {first[0]}
    assert sorted(path for path in (sweep.folder / eval_logs.FOLDER).rglob("*") if path.is_file()) == sorted(first)
