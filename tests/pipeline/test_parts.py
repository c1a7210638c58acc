"""A job as several jobs of the cluster, without one: what each does, who submits whom, what a sweep begins with."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from composing import composed
from divided_jobs import OWN, asked_for, kept_signals, run_parts  # noqa: F401
from fake_slurm import fake_slurm
from omegaconf import OmegaConf

from aipo.jobs import (
    JobFile,
    JobRecord,
    SlurmState,
    Submission,
    hand_on,
    read_job,
    read_submitted,
    states,
    submit,
)
from aipo.pipeline import folders, sweep
from aipo.pipeline.check import check
from aipo.pipeline.cluster import job, launcher_problems, launcher_settings, launches, nodes_of, slurm, snapshot
from aipo.pipeline.cluster.executor import with_resources
from aipo.pipeline.cluster.parts import Common, Part, common_first
from aipo.pipeline.ends import HandedOn
from aipo.planning.resources import STAGES, Resources

pytestmark = pytest.mark.usefixtures("kept_signals")
RECORD = JobRecord("dpo", 0, "miniature", "uf", True, (), {}, {}, "outputs")
DIVIDED = Resources(training={"nodes": 4}, judging={"gpus_per_node": None})


@pytest.mark.parametrize(
    ("part", "stage", "goes_to"),
    [
        (Part(), "candidates", "here"),
        (Part(), "train", "training"),
        (Part(), "reference", "training"),
        (Part(), "judgments", "judging"),
        (Part("training"), "train", "here"),
        (Part("training"), "pairs", "here"),
        (Part("training"), "answers", "drawing"),
        (Part("judging"), "judgments", "here"),
        (Part("judging"), "scores", "here"),
        (Part("judging"), "candidates", "drawing"),
        (Part(only=frozenset({("candidates", "iter 0")})), "candidates", "here"),
        (Part(only=frozenset({("prompts", "iter 0")})), "candidates", None),
        (Part(only=frozenset({("train", "iter 0")})), "train", None),  # its devices are not here
    ],
)
def test_a_part_makes_what_it_has_the_resources_for(part: Part, stage: str, goes_to: str | None) -> None:
    begins = part.gate(DIVIDED)
    if goes_to == "here":
        begins(stage, "iter 0")
        return
    with pytest.raises(HandedOn) as handed:
        begins(stage, "iter 0")
    assert handed.value.kind == goes_to and handed.value.code == 0


def test_a_job_that_is_not_divided_makes_everything() -> None:
    for stage in (*STAGES, "pool", "pairs", "scores"):
        Part().gate(Resources())(stage, "")


def test_other_settings_come_on_top() -> None:
    launcher = {"gpus_per_node": 8, "setup": ["module load x"], "additional_parameters": {"hold": True}, "nodes": 1}
    asked = {"gpus_per_node": None, "setup": ["export Y=1"], "additional_parameters": {"nodes": 4}}
    assert with_resources(launcher, asked) == {
        "gpus_per_node": None, "setup": ["module load x", "export Y=1"], "nodes": 1,
        "additional_parameters": {"hold": True, "nodes": 4},
    }  # fmt: skip
    config = check(composed("resources=by_stage", "trainer.nodes=4", "trainer.processes=32", "trainer.strategy=fsdp2"))
    assert nodes_of(config, launcher) == 4
    whole = check(composed("trainer.nodes=4", "trainer.processes=32", "trainer.strategy=fsdp2"))
    assert [nodes_of(whole, one) for one in (launcher, {"nodes": 2}, {"additional_parameters": {"nodes": 4}})] == [
        *(1, 2, 4)
    ]


def test_a_sweep_that_asks_slurm_for_its_nodes_is_not_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """It was: the nodes were sought where the command runs, and the remedy named what had been done."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    folders.register()
    given = ["trainer.nodes=4", "trainer.processes=32", "trainer.strategy=fsdp2"]

    def refused(*more: str) -> str:
        config = composed(*given, *more, with_hydra=True)
        plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        settings = launcher_settings(config) if launches(config) else None
        try:
            sweep._refuse([(plain, "")], launcher=settings)
        except SystemExit:
            return capsys.readouterr().err
        return ""

    assert refused("hydra/launcher=slurm_nodes") == "" == refused("hydra/launcher=slurm", "resources=by_stage")
    assert "expected a Slurm job of as many nodes, this one has 1;" in refused("hydra/launcher=slurm")
    assert "this is no Slurm job" in refused()
    assert "resources: only a sweep on Slurm has jobs of the cluster to divide" in refused("resources=by_stage")


def test_a_setting_that_the_launcher_has_not_is_named() -> None:
    config = check(composed("resources.judging={gpu_per_node: 1, mem_gb: 2}"))
    (told,) = launcher_problems(config, {"gpus_per_node": 1, "mem_gb": 4})
    assert told.startswith("resources.judging.gpu_per_node: no setting of hydra.launcher (did you mean gpus_per_node?)")


def test_a_limit_must_leave_time_before_its_warning() -> None:
    config = check(composed("resources.judging={timeout_min: 5}"))
    launcher = {"timeout_min": 60, "signal_delay_s": 300}
    (told,) = launcher_problems(config, launcher)
    assert told.startswith(
        "resources.judging: a limit of 5 minutes and a warning 300 s before it would stop every start"
    )
    assert launcher_problems(check(composed()), launcher) == []
    assert len(launcher_problems(check(composed()), {"timeout_min": 5, "signal_delay_s": 300})) == 1
    (told,) = launcher_problems(check(composed("resources.training={timeout_min: 1h}")), launcher)
    assert told == "resources.training: expected numbers for timeout_min and signal_delay_s, got '1h'"


def test_what_several_jobs_begin_with_is_made_by_the_first(tmp_path: Path) -> None:
    jobs = [
        asked_for(tmp_path, f"seed={seed}", "resources.common_first=true", objective=objective)
        for seed in (0, 1)
        for objective in ("dpo", "aipo")
    ]
    common = common_first(jobs)
    first, second, third, fourth = (one.folder for one in jobs)
    assert list(common.parts) == [first, third]
    assert common.awaited == {first: (first,), second: (first,), third: (first, third), fourth: (first, third)}
    only = common.parts[first].only
    assert only is not None and Counter(stage for stage, _ in only) == {
        **{"base_model": 1, "pool": 1, "prompts": 1, "candidates": 1, "ranking": 1, "pairs": 1, "reference": 1},
        **{"answers": 2, "judgments": 1, "scores": 2, "proxy": 1},
    }
    assert common_first([replace(one, config=one.config | {"resources": None}) for one in jobs]) == Common()
    assert common_first(jobs[:1]) == Common(awaited={first: ()}), "alone, it needs nothing that others need"


def test_jobs_wait_for_what_they_have_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    commands = fake_slurm(tmp_path, monkeypatch)
    place = tmp_path / "results" / "s"
    names = ("dpo", "aipo")
    jobs = [asked_for(tmp_path, "resources.common_first=true", objective=objective) for objective in names]
    sent = slurm.submit_jobs(place, jobs, {"partition": "gpu"}, analyse=True)
    assert [(item.slurm_id, item.what) for item in sent] == [
        ("100", "dpo-0: what others need, too"),
        *(("101_0", "dpo-0"), ("101_1", "aipo-0")),
        ("102", "the tables, when they are done"),
    ]
    scripts = [(commands / f"script{number}").read_text() for number in range(3)]
    assert "dependency" not in scripts[0] and "#SBATCH --dependency=afterany:100\n" in scripts[1]
    assert "#SBATCH --dependency=afterany:101\n" in scripts[2]
    assert [item.slurm_id for item in read_submitted(place)] == ["101_0", "101_1"]


@pytest.mark.parametrize(("at_once", "shares"), [(2, ["2", "1", "1"]), (3, ["3", "1", "1", "1"])])
def test_what_jobs_have_in_common_runs_no_more_of_them_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, shares: list[str]
) -> None:
    """Each group of jobs that waited for the same was an array of its own, and the parts before them were in none."""
    pytest.importorskip("submitit")
    commands = fake_slurm(tmp_path, monkeypatch)
    jobs = [
        asked_for(tmp_path, f"seed={seed}", "resources.common_first=true", objective=objective)
        for seed in (0, 1, 2)
        for objective in ("dpo", "aipo")
    ]
    slurm.submit_jobs(tmp_path / "results" / "s", jobs, {"array_parallelism": at_once}, analyse=False)
    scripts = [path.read_text() for path in sorted(commands.glob("script*"))]
    assert [re.findall("%([0-9]+)", script) for script in scripts] == [[one] for one in shares]


def test_a_job_is_known_by_the_number_that_it_has_by_now(tmp_path: Path) -> None:
    submit(tmp_path, [Submission("a", ("x=1",), "7_0", "a.log"), Submission("b", (), "7_1", "b.log")])
    folder = tmp_path / "jobs" / "a"
    folder.mkdir(parents=True)

    def handed(mine: dict[str, str], then: str) -> list[str | None]:
        hand_on(folder, then, f"{then}.log", mine)
        return [item.slurm_id for item in read_submitted(tmp_path)]

    assert handed({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}, "9") == ["9", "7_1"]
    assert handed({"SLURM_JOB_ID": "9"}, "12") == ["12", "7_1"]
    assert read_submitted(tmp_path)[0] == Submission("a", ("x=1",), "12", "12.log")
    JobFile(folder, replace(RECORD)).finish("requeued")
    waiting = states(tmp_path, lambda ids: {one: SlurmState("PENDING", "Resources") for one in ids})
    assert [(one.state, one.slurm_id, one.why) for one in waiting][0] == ("pending", "12", "Resources")
    submit(tmp_path, [Submission("b", (), "15", "b.log")])  # leaves the other as it was
    assert [item.slurm_id for item in read_submitted(tmp_path)] == ["12", "15"]
    submit(tmp_path, [Submission("a", (), "20", "a.log")])  # begins anew
    assert [item.slurm_id for item in read_submitted(tmp_path)] == ["20", "15"]


def test_the_parts_of_a_job_make_what_the_whole_job_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, divided = tmp_path / "whole", tmp_path / "divided"
    job.run_asked(asked_for(whole))
    asked = asked_for(divided, *OWN)
    assert run_parts(divided, asked, monkeypatch) == [
        *("drawing", "training", "drawing", "training", "drawing", "judging")
    ]
    records = [read_job(folder / "results" / "s" / "jobs" / "dpo-0") for folder in (whole, divided)]
    assert records[1].status == "done" and records[0].points == records[1].points
    names = ("metrics.json", "answers.parquet", "judgments.jsonl", "model.safetensors", "pairs.parquet")
    made = []
    for folder in (whole, divided):
        paths = [path for path in (folder / "outputs").rglob("*") if path.name in names]
        made.append({str(path.relative_to(folder)): path.read_bytes() for path in paths})
    assert len(made[0]) == 3 * (2 + 2 + 1 + 1) + 2 and made[0] == made[1]
    assert not list(divided.rglob("*.partial")) and not list(divided.rglob("traceback.txt"))


def test_a_part_that_cannot_be_submitted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asked_for(tmp_path, *OWN)
    kept = snapshot.take(tmp_path / "results" / "s", [asked], {})

    def refuses(*arguments: Any) -> tuple[str, str]:
        raise RuntimeError("sbatch: error: this node may not submit")

    monkeypatch.setattr(job, "submit_one", refuses)
    with pytest.raises(RuntimeError, match="may not submit"):
        job.SweepJob()(kept / "jobs" / "dpo-0.json")
    record = read_job(Path(asked.folder))
    assert record.status == "interrupted"
    assert record.error is not None and "its next part, training, could not be submitted" in record.error


def test_tables_wait_for_jobs_that_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([["12", "9"], ["12"]])
    monkeypatch.setattr(
        job, "states", lambda sweep: [type("J", (), {"state": "pending", "slurm_id": one})() for one in next(found)]
    )
    again: list[Any] = []
    monkeypatch.setattr(job, "submit_analysis", lambda sweep, kept, waited: again.append(list(waited)))
    monkeypatch.setattr("analysis.__main__.analyse_sweep", lambda sweep: 3)
    assert job.SweepAnalysis()(tmp_path, tmp_path, ("7_0", "9")) == 0 and again == [["12", "9"]]
    assert job.SweepAnalysis()(tmp_path, tmp_path, ("12", "9")) == 3, "nothing new to wait for"
