"""lm-evaluation-harness's results of a sweep's policies: read, tabled, made again where they change, errors told."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aipo.command import lm_eval
from aipo.command.app import app
from aipo.miniature.world import ATTRIBUTES, PEOPLE, Fact, state, true_fact
from analysis import alignment_tax, analyse
from analysis.collect import collect

from page_sweep import with_texts  # isort: skip

ROOT = Path(__file__).resolve().parents[2]
TASK = ROOT / "experiments" / "lm_eval"


def record(sweep, policy: str, accuracy: float, **changes) -> Path:
    """As `aipo lm-eval` writes it, with the fields of the harness's file that are read."""
    row = {
        "alias": "facts",
        "acc,none": accuracy,
        "acc_stderr,none": 0.03,
        "exact,strict": 0.5,
        "exact_stderr,strict": "N/A",
    }
    results = {
        "results": {"facts": row, "part_of_a_group": row},
        "n-samples": {"facts": {"original": 192, "effective": 100}},
    }
    folder = sweep.folder / alignment_tax.FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{policy.encode().hex()}.json"
    path.write_text(json.dumps({"policy": policy, "tasks": ["facts"], "arguments": [], "results": results} | changes))
    return path


@pytest.fixture
def sweep(tmp_path):
    made = with_texts(tmp_path)
    runs = collect(made.folder).runs
    policies = {run.objective: run.points[-1].policy for run in runs} | {"base": runs[0].points[0].policy}
    for name, accuracy in (("base", 0.75), ("dpo", 0.5), ("aipo", 0.625)):
        record(made, policies[name], accuracy)
    return made


def test_each_policy_beside_its_base_model(sweep):
    scores, problems = alignment_tax.gather(sweep.folder)
    assert problems == [] and len(scores) == 6
    table = alignment_tax.table(collect(sweep.folder), scores)
    rows = {(row["policy"], row["metric"]): row for row in table.data.to_dict("records")}
    assert set(rows) == {
        (name, metric) for name in ("base model", "DPO", "AIPO") for metric in ("acc", "exact (strict)")
    }
    assert rows["AIPO", "acc"] | {"fingerprints": ""} == {
        "task": "facts", "metric": "acc", "policy": "AIPO", "round": "1", "value": 0.625, "standard_error": 0.03,
        "change_from_base": -0.125, "questions": 100, "seeds": 1, "fingerprints": "",
    }  # fmt: skip
    assert rows["DPO", "acc"]["change_from_base"] == -0.25
    shown = {cell[2]: cell for cell in table.cells if cell[1] == "acc"}
    assert shown["base model"][4:] == ("0.750", "0.030", "–", "100", "1")
    assert shown["AIPO"][4:] == ("0.625", "0.030", "−0.125", "100", "1")
    strict = {cell[2]: cell for cell in table.cells if cell[1] == "exact (strict)"}
    assert strict["AIPO"][4:] == ("0.500", "–", "0.000", "100", "1")


def test_a_sweep_without_records_has_no_table(tmp_path):
    made = with_texts(tmp_path)
    assert alignment_tax.table(collect(made.folder), alignment_tax.gather(made.folder)[0]) is None


def test_the_analysis_shows_it_and_is_made_again_when_a_record_changes(sweep):
    analyse(sweep.folder)
    table = sweep.folder / "tables" / "alignment_tax.csv"
    assert (
        ",0.625,0.03,-0.125,100,1," in table.read_text() and "Alignment tax" in (sweep.folder / "report.md").read_text()
    )
    before = (sweep.folder / "index.html").stat().st_mtime_ns
    analyse(sweep.folder)
    assert (sweep.folder / "index.html").stat().st_mtime_ns == before
    record(sweep, collect(sweep.folder).runs[0].points[0].policy, 0.875)
    analyse(sweep.folder)
    assert ",0.625,0.03,-0.25,100,1," in table.read_text()


def test_other_tasks_and_other_arguments_leave_the_first_record(tmp_path, monkeypatch):
    """Each has a file of its own, and a record under the name of before is met again."""
    asked = []

    def harness(one, tasks, arguments):
        asked.append((one.policy, *tasks, *arguments))
        return {"results": {task: {"acc,none": len(asked) / 8} for task in tasks}}

    monkeypatch.setattr(lm_eval.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(lm_eval, "policies", lambda *_: [lm_eval.Evaluated(p, p, p) for p in ("p", "q")])
    monkeypatch.setattr(lm_eval, "_harness", harness)
    folder = tmp_path / alignment_tax.FOLDER
    folder.mkdir()
    old = {"policy": "p", "tasks": ["a"], "arguments": [], "results": {"results": {"a": {"acc,none": 0.0}}}}
    (folder / "p.json").write_text(json.dumps(old))
    for tasks, arguments in (["a"], []), (["b"], []), (["a"], ["--limit", "5"]), (["a"], []), (["b"], []):
        lm_eval.evaluate(tmp_path, tasks, arguments)
    assert asked == [("q", "a"), ("p", "b"), ("q", "b"), ("p", "a", "--limit", "5"), ("q", "a", "--limit", "5")]
    names = [path.name for path in alignment_tax.files(tmp_path)]
    assert len(names) == 6 and "p.json" in names
    assert all(re.fullmatch(r"[pq]-[0-9a-f]{8}\.json", name) for name in names if name != "p.json")
    scores, problems = alignment_tax.gather(tmp_path)
    assert problems == [] and {(s.policy, s.task, s.arguments, s.value) for s in scores} == {
        ("p", "a", (), 0.0), ("q", "a", (), 0.125), ("p", "b", (), 0.25), ("q", "b", (), 0.375),
        ("p", "a", ("--limit", "5"), 0.5), ("q", "a", ("--limit", "5"), 0.625),
    }  # fmt: skip


def test_two_records_with_the_same_task_and_arguments_count_once(sweep):
    runs = collect(sweep.folder).runs
    record(sweep, next(run for run in runs if run.objective == "aipo").points[-1].policy, 0.625).rename(
        sweep.folder / alignment_tax.FOLDER / "another.json"
    )
    record(sweep, next(run for run in runs if run.objective == "aipo").points[-1].policy, 0.625)
    table = alignment_tax.table(collect(sweep.folder), alignment_tax.gather(sweep.folder)[0])
    rows = {(row["policy"], row["metric"]): row for row in table.data.to_dict("records")}
    assert (rows["AIPO", "acc"]["seeds"], rows["AIPO", "acc"]["standard_error"]) == (1, 0.03)


def test_only_records_with_equal_arguments_are_compared(sweep):
    """DPO was asked again with few examples and its base model was not: a value, and no change from it."""
    runs = {run.objective: run for run in collect(sweep.folder).runs}
    few = ["--num_fewshot", "5"]
    record(sweep, runs["dpo"].points[-1].policy, 0.25, arguments=few).rename(
        sweep.folder / alignment_tax.FOLDER / "few.json"
    )
    record(sweep, runs["dpo"].points[-1].policy, 0.5)
    table = alignment_tax.table(collect(sweep.folder), alignment_tax.gather(sweep.folder)[0])
    assert table.header[:4] == ("task", "metric", "arguments", "policy") and table.text_columns == 4
    shown = {cell[2:4]: (cell[5], cell[7], cell[9]) for cell in table.cells if cell[1] == "acc"}
    assert shown == {
        ("none", "base model"): ("0.750", "–", "1"),
        ("none", "DPO"): ("0.500", "−0.250", "1"),
        ("none", "AIPO"): ("0.625", "−0.125", "1"),
        ("--num_fewshot 5", "DPO"): ("0.250", "–", "1"),
    }


def test_each_base_model_has_a_row_of_its_own(fake_sweep):
    for model, value in (("llama", 0.75), ("mistral", 0.25)):
        run = fake_sweep.job("dpo", iterations=1, benchmarks=("gold",), overrides=[f"model={model}"])
        run["points"][0]["policy"] = model
        fake_sweep.write(run, str(fake_sweep.jobs - 1))
        record(fake_sweep, model, value)
        record(fake_sweep, run["points"][1]["policy"], 0.5)
    table = alignment_tax.table(collect(fake_sweep.folder), alignment_tax.gather(fake_sweep.folder)[0])
    rows = [row for row in table.data.to_dict("records") if row["metric"] == "acc"]
    assert {row["policy"]: (row["value"], row["seeds"]) for row in rows} == {
        "base model [model=llama]": (0.75, 1), "base model [model=mistral]": (0.25, 1),
        "DPO [model=llama]": (0.5, 1), "DPO [model=mistral]": (0.5, 1),
    }  # fmt: skip
    changes = {row["policy"]: row["change_from_base"] for row in rows}
    assert (changes["DPO [model=llama]"], changes["DPO [model=mistral]"]) == (-0.25, 0.25)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "Expecting"),
        ("[]", "list indices"),
        ('{"tasks": []}', "no 'policy'"),
        ('{"policy": "x", "tasks": ["t"]}', "no 'results'"),
    ],
)
def test_a_record_that_cannot_be_read_is_told_and_the_rest_is_shown(sweep, text, found):
    (sweep.folder / alignment_tax.FOLDER / "broken.json").write_text(text)
    analyse(sweep.folder)
    (line,) = json.loads((sweep.folder / "sources.json").read_text())["missing"]
    assert "broken.json: expected a record that `aipo lm-eval` wrote" in line and found in line
    assert (sweep.folder / "tables" / "alignment_tax.md").exists()


def test_the_command_says_what_it_misses(tmp_path, monkeypatch):
    monkeypatch.setattr(lm_eval.importlib.util, "find_spec", lambda name: None)
    shown = CliRunner().invoke(app, ["lm-eval", str(tmp_path), "--tasks", "x"])
    assert shown.exit_code == 1 and "pip install 'aipo[lm_eval]'" in shown.stderr
    monkeypatch.undo()
    with pytest.raises(lm_eval.HarnessError, match="no jobs in it"):
        list(lm_eval.policies(tmp_path))


def test_the_miniatures_task_asks_for_every_fact():
    asked = [json.loads(line) for line in (TASK / "mini_facts.jsonl").read_text().splitlines()]
    facts = [(person, attribute) for person in PEOPLE for attribute in ATTRIBUTES]
    assert len(asked) == len(facts) == 192
    for row, (person, attribute) in zip(asked, facts, strict=True):
        assert row["question"] == f"What is the {attribute} of the {person}?"
        assert row["choices"] == [state(Fact(person, attribute, value)) for value in ATTRIBUTES[attribute]]
        assert row["choices"][row["answer"]] == state(true_fact(person, attribute))


@pytest.mark.slow
def test_the_harness_itself_on_a_sweep_of_the_miniature(tmp_path):
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("needs lm-evaluation-harness: pip install 'aipo[lm_eval]'")
    import subprocess
    import sys

    def call(*command: str) -> str:
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=os.environ | offline, capture_output=True, text=True, timeout=1500
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    sweep = tmp_path / "sweep"
    call("run.py", "-m", "+experiment=smoke", f"store.root={tmp_path}/outputs", f"hydra.sweep.dir={sweep}")
    ask = ("-m", "aipo.command", "lm-eval", str(sweep), "--tasks", "mini_facts")
    ask += ("--", "--include_path", str(TASK), "--apply_chat_template", "--device", "cpu")
    assert call(*ask).count(": mini_facts\n") == 2
    assert call(*ask).count("there already") == 2
    scores, problems = alignment_tax.gather(sweep)
    assert problems == [] and {(score.metric, score.n_questions) for score in scores} == {("acc", 192)}
    assert all(0.5 < score.value <= 1 for score in scores)
