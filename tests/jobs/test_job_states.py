"""How a job stands, from its own record, its heartbeat and what Slurm says."""

from __future__ import annotations

import multiprocessing
import os
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from aipo.jobs import (
    HEARTBEAT,
    JobFile,
    JobFileError,
    JobRecord,
    SlurmState,
    Submission,
    job_folders,
    mark,
    slurm_id,
    slurm_states,
    states,
    submit,
)

RECORD = JobRecord("dpo", 0, "miniature", "uf", True, (), {}, {}, "outputs")


def _command(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that stand for Slurm's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_the_queue_answers_first_and_the_accounting_for_what_left_it(commands: Path) -> None:
    log = commands / "asked"
    _command(
        commands, "squeue", f"echo $* >> {log}; printf '7_0|RUNNING|None\\n7_1|PENDING|JobArrayTaskLimit\\n8|x|y\\n'"
    )
    _command(
        commands,
        "sacct",
        f"echo $* >> {log}; printf '7_2|CANCELLED by 1000|0:0\\n7_[3-4,6%%2]|CANCELLED by 0|0:0\\n9|FAILED|0:9\\n'",
    )
    assert slurm_states(["7_0", "7_1", "7_2", "7_4", "7_5", "9"]) == {
        "7_0": SlurmState("RUNNING"),
        "7_1": SlurmState("PENDING", "JobArrayTaskLimit"),
        "7_2": SlurmState("CANCELLED", "by 1000"),
        "7_4": SlurmState("CANCELLED", "by 0"),
        "7_5": SlurmState("CANCELLED", "Slurm has its array and no longer the task"),
        "9": SlurmState("FAILED", "exit code 0:9"),
    }
    asked = log.read_text().splitlines()
    assert len(asked) == 2 and asked[0].endswith("-j 7,9") and asked[1].endswith("-j 7,9")


def test_a_task_cancelled_while_it_waits_leaves_no_account(commands: Path) -> None:
    """Seen with Slurm 22.05: at first the accounting still has it among those that wait, later nothing."""
    _command(commands, "squeue", "printf '7_0|RUNNING|None\n7_1|PENDING|None\n'")
    gone = SlurmState("CANCELLED", "Slurm has its array and no longer the task")
    for told in ("7_0|RUNNING|0:0\n7_[1-3]|PENDING|0:0\n", "7_0|COMPLETED|0:0\n"):
        _command(commands, "sacct", f"printf '{told}'")
        assert slurm_states(["7_0", "7_1", "7_3"])["7_3"] == gone
    _command(commands, "sacct", "exit 1")  # no accounting: nobody knows
    assert set(slurm_states(["7_0", "7_1", "7_3"])) == {"7_0", "7_1"}


def test_a_slurm_that_does_not_answer_says_nothing_about_the_jobs(commands: Path) -> None:
    _command(commands, "squeue", "exit 1")
    _command(commands, "sacct", "exit 1")
    assert slurm_states(["7_0"]) == {"7_0": SlurmState("UNKNOWN", "Slurm did not answer")}
    _command(commands, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm_states(["7_0"]) == {}


def test_where_there_is_no_slurm_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert slurm_states(["7_0"]) == {}


def _stands(folder: Path, record: JobRecord | None, slurm: SlurmState | None, *, alive: bool = False, number="7_0"):
    submit(folder, [Submission("a", ("seed=0",), number, "a.log")])
    job = folder / "jobs" / "a"
    job.mkdir(parents=True)
    if record is not None:
        file = JobFile(job, record)
        file.record = replace(file.record, scheduler_id="7_0")
        file.finish(record.status, record.error)
    if alive:
        (job / HEARTBEAT).touch()
    (found,) = states(folder, lambda ids: {"7_0": slurm} if slurm and "7_0" in ids else {})
    return found.state, found.why


RUNNING = RECORD
DONE, FAILED = replace(RECORD, status="done"), replace(RECORD, status="failed", error="ValueError: no\nlast line")
REQUEUED = replace(RECORD, status="requeued", error="Terminated: told to end by SIGUSR2")


@pytest.mark.parametrize(
    ("record", "slurm", "alive", "state", "why"),
    [
        (None, None, False, "not started", "Slurm does not know its job 7_0 here"),
        (None, SlurmState("PENDING", "Resources"), False, "pending", "Resources"),
        (None, SlurmState("RUNNING"), False, "pending", "RUNNING: it has not begun"),
        (None, SlurmState("UNKNOWN", "Slurm did not answer"), False, "pending", "Slurm did not answer"),
        (None, SlurmState("CANCELLED", "by 0"), False, "cancelled", "before it began: CANCELLED by 0"),
        (None, SlurmState("FAILED", "exit code 1:0"), False, "failed", "before its first stage"),
        (None, SlurmState("NODE_FAIL"), False, "lost", "before its first stage: NODE_FAIL; see a.log"),
        (RUNNING, SlurmState("RUNNING"), True, "running", ""),
        (RUNNING, SlurmState("RUNNING"), False, "running", "no sign of life for two minutes; Slurm says RUNNING"),
        (RUNNING, None, True, "running", ""),
        (RUNNING, None, False, "lost", "gave no sign of life"),
        (RUNNING, SlurmState("PENDING", "BeginTime"), True, "requeued", "queued again (BeginTime)"),
        (RUNNING, SlurmState("OUT_OF_MEMORY", "exit code 0:125"), True, "lost", "ended without a word: Slurm says OUT"),
        (RUNNING, SlurmState("COMPLETED"), True, "lost", "ended without a word"),
        (RUNNING, SlurmState("TIMEOUT"), True, "timed out", "Slurm says TIMEOUT"),
        (RUNNING, SlurmState("CANCELLED", "by 0"), True, "cancelled", "Slurm says CANCELLED by 0"),
        (REQUEUED, SlurmState("PENDING", "BeginTime"), False, "requeued", "queued again"),
        (REQUEUED, SlurmState("RUNNING"), False, "requeued", "told to end by SIGUSR2"),
        (REQUEUED, SlurmState("CANCELLED"), False, "cancelled", "Slurm says CANCELLED"),
        (REQUEUED, None, False, "requeued", "told to end by SIGUSR2"),
        (DONE, SlurmState("FAILED", "exit code 0:9"), False, "done", ""),
        (FAILED, SlurmState("PENDING"), False, "failed", "last line"),
    ],
)
def test_how_a_submitted_job_stands(tmp_path: Path, record, slurm, alive: bool, state: str, why: str) -> None:
    found, told = _stands(tmp_path, record, slurm, alive=alive)
    assert found == state and why in told


def test_a_job_submitted_anew_stands_as_its_new_number_does(tmp_path: Path) -> None:
    """The record is the first submission's, the number the second's."""
    assert _stands(tmp_path, FAILED, None, number="8_0") == ("not started", "Slurm does not know its job 8_0 here")
    submitted = lambda ids: {"8_0": SlurmState("PENDING", "Priority")}  # noqa: E731
    (again,) = states(tmp_path, submitted)
    assert (again.state, again.why) == ("pending", "Priority")


def test_finished_jobs_are_not_asked_about(tmp_path: Path) -> None:
    asked: list[str] = []
    _stands(tmp_path, DONE, None)
    states(tmp_path, lambda ids: asked.extend(ids) or {})
    assert asked == []


def test_what_became_of_a_job_can_be_written_after_its_end(tmp_path: Path) -> None:
    JobFile(tmp_path, RECORD).finish("requeued", "told")
    mark(tmp_path, "timed out", "too many times")
    assert (
        '"timed out"' in (tmp_path / "run.json").read_text() and "too many times" in (tmp_path / "run.json").read_text()
    )


def test_an_array_task_has_the_number_that_slurm_shows() -> None:
    assert slurm_id({}) is None and slurm_id({"SLURM_JOB_ID": "5"}) == "5"
    assert slurm_id({"SLURM_JOB_ID": "6", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "1"}) == "5_1"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_job_that_this_user_may_not_read_is_not_left_out() -> None:
    """It was in no table and in no list, as if it had never begun."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        sweep = Path(name)
        sweep.chmod(0o755)
        for job in ("closed", "open"):
            (sweep / "jobs" / job).mkdir(parents=True)
            with JobFile(sweep / "jobs" / job, RECORD) as file:
                file.finish("done")
        (sweep / "jobs" / "closed").chmod(0o700)
        folders, found = _as_nobody(_jobs, sweep)
        assert folders == ["closed", "open"]
        assert [(name, state) for name, state, _ in found] == [("closed", "unreadable"), ("open", "done")]
        assert "Permission denied" in found[0][2]
        (sweep / "jobs").chmod(0o700)
        assert (
            _as_nobody(_jobs, sweep) == f"{sweep / 'jobs'} cannot be read: Permission denied; mend the folder's rights"
        )


def _jobs(sweep: Path):
    return [folder.name for folder in job_folders(sweep)], [(job.folder, job.state, job.why) for job in states(sweep)]


def _as_nobody(function, sweep: Path):
    """What `function` gives to another user, or the JobFileError that it raises."""

    def work(answers) -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            answers.put(function(sweep))
        except JobFileError as error:
            answers.put(str(error))

    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    user = context.Process(target=work, args=(answers,))
    user.start()
    found = answers.get(timeout=20)
    user.join()
    return found
