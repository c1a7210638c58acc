"""What a person sees in a terminal: lines, folding, time left, and the recordings in docs/console."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aipo.artifacts import StageEvent, StageReport
from aipo.jobs import BASE_ITERATION, Point
from aipo.pipeline import console
from aipo.pipeline.console import JobConsole, Place, overrides_shown
from aipo.terminal import Bar, listen, say
from aipo.terminal import console as screen
from analysis.closing import closing, table_lines, without_shared

RECORDINGS = ("main_job", "warm_run", "failing_run", "ctrl_c", "two_workers")


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tests' own terminal is: 100 columns."""
    monkeypatch.setattr(screen, "_environ", {})


def job(rounds: int = 3) -> Any:
    gold = SimpleNamespace(primary_metric="gold_score", length_metric="mean_tokens", limit=None)
    return SimpleNamespace(
        objective=SimpleNamespace(name="dpo"), seed=1, iteration=SimpleNamespace(iterations=rounds),
        benchmarks={"gold": gold}, kl_prompts=0, store=SimpleNamespace(root="none"),
    )  # fmt: skip


def rows(score: float) -> list[dict[str, Any]]:
    found = {"gold_score": score, "mean_tokens": 20.0}
    return [{"benchmark": "gold", "diagnostic_judge": None, "name": name, "value": v} for name, v in found.items()]


def event(outcome: Any, seconds: float = 0.5) -> StageEvent:
    return StageEvent("train", "f" * 16, outcome, seconds, StageReport(), "iter 0")


def point(iteration: int) -> Point:
    return Point(iteration, "p", ())


def test_what_was_there_is_folded_into_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with JobConsole(job(), Place(2, 5, details=("trainer.epochs=2",))) as shown:
        for number in (BASE_ITERATION, 0, 1):
            shown.ends(event("cached"))
            shown.reached(point(number), rows(0.1 * number))
        shown.begins("train", "iter 2")
        shown.ends(event("run"))
        shown.reached(point(2), rows(0.75))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "job 2/5 · dpo, seed 1 · trainer.epochs=2"
    assert lines[1].strip() == "base model to round 2 were there already"
    assert [line.split() for line in lines[2:5]] == [
        ["round", "gold", "tokens", "time"], ["2/3", "0.100", "20.0"], ["3/3", "0.750", "20.0", "00:00"]
    ]  # fmt: skip
    assert lines[5].strip() == "done in 00:00: 1 stage made, 3 there already" and len(lines) == 6


def test_jobs_that_share_a_screen_name_themselves_in_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    with JobConsole(job(), Place(1, 2, shares_screen=True, details=("trainer.epochs=2",))) as shown:
        shown.begins("train", "iter 0")
        shown.ends(event("run", seconds=75))
        shown._last_point -= 75
        shown.reached(point(0), rows(0.5))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "job 1/2 · dpo, seed 1 · trainer.epochs=2"
    assert lines[1] == "1/2 dpo, seed 1 · round 1/3 · train · 01:15"
    assert lines[2] == "1/2 dpo, seed 1 · round 1/3 · gold 0.500 · tokens 20.0 · time 01:15 · 02:30 left"
    assert all(line.startswith("1/2 dpo, seed 1 · ") for line in lines[1:])


def test_the_living_line_says_where_a_job_is_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    shown = JobConsole(job(15), Place(1, 2))
    shown.begins("answers", "base gold")
    assert shown._living().plain == "job 1/2 · base model · answers gold"
    shown.begins("train", "iter 0")
    assert shown._living().plain == "job 1/2 · round 1/15 · train"  # nothing to estimate from
    shown.ends(event("run"))
    now[0] += 10
    shown.reached(point(0), rows(0.5))
    shown.begins("train", "iter 1")
    shown._progressed("train", 3, 12)
    now[0] += 4
    assert shown._living().plain == "job 1/2 · round 2/15 · train 25 % · 02:16 left"  # 14 rounds of 10 s, 4 s gone


def test_a_failure_says_where_and_is_kept_for_the_last_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="beta"), JobConsole(job(), Place()) as shown:
        shown.begins("train", "iter 1")
        raise ValueError("beta is 0\nsecond line")
    assert "job 1/1 failed in round 2/3, train: beta is 0\n" in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt), JobConsole(job(), Place()) as shown:
        shown.begins("judgments", "iter 0 mt_bench by x")
        raise KeyboardInterrupt
    assert console.stopped.at == "job 1/1, round 1/3, judgments mt_bench by x"
    assert "failed" not in capsys.readouterr().out


def test_overrides_that_tell_a_job_apart() -> None:
    given = ["objective=dpo", "seed=1", "trainer.epochs=2", "store.root=x", "verbose=true", "sweep=s", "hydra.a=1"]
    assert overrides_shown(given) == ("trainer.epochs=2",)


def test_words_are_not_cut_and_a_path_stays_whole(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/a/" + "b" * 150
    say(f"see {path} and " + "word " * 40, indent="- ")
    lines = capsys.readouterr().out.splitlines()
    assert path in [line.strip() for line in lines]
    assert all(len(line) <= 100 for line in lines if path not in line) and lines[0] == "- see"
    assert screen.width == 100


def test_a_table_folds_headers_and_names_but_no_other_cell() -> None:
    rows = [("a long name of a variant, " * 5, "0.856", "0.82 to 0.89", "1"), ("DPO", "0.1", "–", "2")]
    heads, body = table_lines(("objective", "gold score (−1 to 1)", "95 % interval", "seeds"), rows)
    assert max(map(len, heads + body)) <= 100
    assert [line.split() for line in heads] == [
        ["gold", "score", "95", "%"],
        ["objective", "(−1", "to", "1)", "interval", "seeds"],
    ]
    assert body[0].split()[-5:] == ["0.856", "0.82", "to", "0.89", "1"]
    named = [body[0].removesuffix(body[0][body[0].index("0.856") :]), *body[1:-1]]
    assert " ".join(" ".join(named).split()) == rows[0][0].strip() and len(body) == 4  # nothing of the name is lost
    assert body[-1].split() == ["DPO", "0.1", "–", "2"]


def test_what_is_said_to_compare_with_the_control_has_the_control_in_it(repository: Path) -> None:
    """It named +experiment=headline, which trains by AIPO alone."""
    row = SimpleNamespace(series="AIPO", score="1", interval="", length="1", ratio="–", p="", n=10, seeds="1")
    verdict: Any = SimpleNamespace(caption="", header=("a", "b"), rows=(row,), notes=(), sentences=(), compared=False)
    hint, *_ = closing(verdict).sentences
    (name,) = re.findall(r"\+experiment=(\w+)", hint)
    text = (repository / "conf" / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    assert re.search(r"objective: (\w+,)*dpo,", text)


def test_equal_counts_give_their_room_to_a_long_name() -> None:
    header = ("objective", "score", "questions", "seeds")
    rows = [("AIPO [alpha=0.07,nll_weight=0]", "0.9", "256", "10"), ("DPO", "0.8", "256", "10")]
    assert without_shared(header, rows) == (
        ["objective", "score"],
        [["AIPO [alpha=0.07,nll_weight=0]", "0.9"], ["DPO", "0.8"]],
        ["In every row questions: 256, seeds: 10."],
    )
    for kept in (rows[1:], [rows[0], ("DPO", "0.8", "256", "9")]):  # short names, or counts that differ
        assert without_shared(header, kept) == (list(header), [list(row) for row in kept], [])


def test_progress_is_told_to_the_listener(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[tuple[str, int, int]] = []
    listen(lambda *told: heard.append(told))
    try:
        with Bar(4, "train", initial=1) as bar:
            bar.update()
            bar.update(2)
        Bar(4, "elsewhere", hidden=True).update()
    finally:
        listen(None)
    assert heard == [("train", 2, 4), ("train", 4, 4)] and capsys.readouterr().err == ""


def test_a_second_ctrl_c_shows_no_frames(repository: Path) -> None:
    code = """
import atexit, os, signal, sys
from aipo.command import run
def main():
    raise KeyboardInterrupt
run.main = main
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["aipo run"]
run.command()
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(repository)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 130
    assert [line.partition(" ")[0] for line in ended.stderr.splitlines()] == ["stopped", "Finished", "The"]


@pytest.mark.parametrize("name", RECORDINGS)
def test_no_recorded_line_is_wider_than_the_screen(repository: Path, name: str) -> None:
    text = (repository / "docs" / "console" / f"{name}.txt").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith("$ aipo run ") and "Traceback" not in text


def test_every_recording_is_one_of_the_script_and_tells_what_it_must(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository / "docs" / "console"
    spec = importlib.util.spec_from_file_location("console_record", folder / "record.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "console_record", script)  # where its dataclass looks for itself
    spec.loader.exec_module(script)
    names = [recording.name for recording in script.RECORDINGS]
    assert {path.stem for path in folder.glob("*.txt")} == set(RECORDINGS) == set(names)
    text = {name: (folder / f"{name}.txt").read_text(encoding="utf-8") for name in RECORDINGS}
    assert "1/2 aipo, seed 0 · round 3/3 · gold " in text["main_job"] and " left" in text["main_job"]
    assert "page: " in text["main_job"] and "~ job 1/1 · round 1/2 · " in text["ctrl_c"]
    assert "0 stages made" in text["warm_run"]
    stopped = text["ctrl_c"].splitlines()[-3:]
    assert stopped[0].startswith("stopped by Ctrl-C at job 1/1, round 1/2")
    assert stopped[2] == "The same command goes on from here."
    assert "the same command goes on from here" in text["failing_run"].replace("\n", " ")
    assert "aipo, seed 0 · " in text["two_workers"] and "dpo, seed 0 · " in text["two_workers"]
