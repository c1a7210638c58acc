"""The command `aipo`: what each subcommand shows."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aipo.artifacts import provenance, seal
from aipo.command.app import app
from aipo.command.doctor import UNCONSTRAINED, examine
from aipo.command.looking import LookError, artifact_folder, differences, policy_folder, rows_of
from aipo.jobs import JobFile, JobRecord, Point, ScoreRecord
from aipo.records import Candidates, Completion, Message, Pair, Prompt, write_parquet

COMMANDS = (
    *("run", "plan", "status", "rerun", "analyse", "view", "compare", "sample", "chat", "export", "score", "assets"),
    *("store", "ls", "show", "doctor", "eval-logs", "lm-eval"),
)


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert all(f" {name} " in shown for name in COMMANDS)
    code = "import sys; from aipo.command.app import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'pandas', 'numpy', 'hydra', 'transformers') if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip().endswith("[]")


@pytest.mark.parametrize("command", ["run", "plan"])
def test_the_help_of_a_run_composes_nothing_and_fits_the_screen(repository: Path, command: str) -> None:
    code = (
        f"import sys; from aipo.command.app import main\ntry: main(['{command}', '--help'])\nexcept SystemExit: pass\n"
    )
    code += "print([name for name in ('torch', 'numpy', 'hydra', 'omegaconf') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown[-1] == "[]"
    assert any(line.startswith("benchmark: alpaca_eval, alpaca_eval_text, arena_hard, ") for line in shown)
    assert "  python run.py                                    one AIPO run" in "\n".join(shown)
    groups = [path.name for path in (repository / "conf").iterdir() if path.is_dir() and path.name != "hydra"]
    assert all(any(line.startswith(f"{group}: ") for line in shown) for group in groups)
    assert [line for line in shown if len(line) > 100] == []


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *((command, f"aipo {command}") for command in ("export", "score", "assets", "store")),
        *((command, f"aipo store {command}") for command in ("ls", "show")),
    ],
)
def test_a_passed_on_command_shows_its_own_help(command: str, name: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0 and shown.stdout.startswith(f"usage: {name} [-h]")


def test_a_page_is_served_at_a_port_that_there_is_or_the_message_names_another(tmp_path: Path) -> None:
    """A traceback of OverflowError, and "Address already in use" without the port."""
    (tmp_path / "jobs" / "one").mkdir(parents=True)
    (tmp_path / "index.html").write_text("")
    for port in ("99999", "-1"):
        refused = CliRunner().invoke(app, ["view", str(tmp_path), "--port", port])
        assert refused.exit_code == 2 and "Invalid value for .--port." in refused.stderr.replace(chr(39), ".")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = CliRunner().invoke(app, ["view", str(tmp_path), "--port", port])
    assert refused.exit_code == 1
    assert refused.stderr == f"error: port {port}: Address already in use; --port 0 takes any that is free\n"


def test_a_search_without_its_package_is_refused_as_a_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aipo.components.importlib.util.find_spec", lambda name: None)
    refused = CliRunner().invoke(app, ["search", "objective=aipo,dpo"])
    assert refused.exit_code == 2
    assert "  1. missing package optuna: pip install -c constraints.txt -e '.[optuna]'" in refused.stderr


def test_a_pair_is_shown_with_its_prompt(tmp_path: Path) -> None:
    sides = [Completion(text, (number,), "stop") for number, text in enumerate(("good", "bad"))]
    made: dict[str, list[object]] = {
        "candidates": [Candidates(Prompt("p1", (Message("user", "Where is it?"),), "pool"), tuple(sides))],
        "pairs": [Pair("p1/0-1", "p1", (1,), *sides, chosen_score=1.0, rejected_score=0.0)],
    }
    for stage, rows in made.items():
        folder = tmp_path / stage / "0123456789abcdef"
        folder.mkdir(parents=True)
        write_parquet(folder / f"{stage}.parquet", rows)
        manifest = {"stage": stage, "fingerprint": folder.name, "version": 1, "config": {}}
        seal(folder, manifest | {"parents": {"candidates": folder.name} if stage == "pairs" else {}})
    shown = CliRunner().invoke(app, ["sample", str(tmp_path / "pairs" / "0123456789abcdef")])
    assert shown.exit_code == 0, shown.output
    places = [shown.stdout.index(text) for text in ("Where is it?", '"good"', '"bad"')]
    assert places == sorted(places)


def test_every_stage_of_a_job_is_found_by_its_record(tmp_path: Path) -> None:
    """`prompts` and `judgments` were promised, and not there; a sweep was taken for an artifact without rows."""
    parents = {
        ("scores", "1" * 16): {"answers": "2" * 16},  # of a benchmark that asks no judge
        ("scores", "3" * 16): {"answers": "2" * 16, "judgments": "4" * 16},
        ("ranking", "5" * 16): {"candidates": "6" * 16},
        ("candidates", "6" * 16): {"prompts": "7" * 16},
    }
    for (stage, digest), found in parents.items():
        (tmp_path / "outputs" / stage / digest).mkdir(parents=True)
        seal(tmp_path / "outputs" / stage / digest, {"stage": stage, "fingerprint": digest, "parents": found})
    job = tmp_path / "s" / "jobs" / "one"
    job.mkdir(parents=True)
    record = JobRecord("dpo", 0, "miniature", "uf", True, (), {}, {}, str(tmp_path / "outputs"))
    scores = tuple(ScoreRecord("gold", "gold", False, digest * 16) for digest in "13")
    JobFile(job, record).add(Point(0, "p", scores, ranking="5" * 16, pairs="8" * 16, kl="9" * 16))
    wanted = {"pairs": "8", "ranking": "5", "kl": "9", "candidates": "6", "prompts": "7", "answers": "2"}
    wanted |= {"judgments": "4", "scores": "1"}
    for stage, digit in wanted.items():
        assert artifact_folder(job, stage) == tmp_path / "outputs" / stage / (digit * 16)
    for stage in ("reference", "nothing"):
        with pytest.raises(LookError) as told:
            artifact_folder(job, stage)
        hint = f"nothing to see of stage '{stage}' in round 1; choose from {', '.join(wanted)}"
        assert str(told.value) == f"{job}: {hint}"  # and each of these is found above
    with pytest.raises(LookError, match="s is a sweep; expected a job's folder"):
        artifact_folder(tmp_path / "s")


def test_a_measured_kl_is_shown(tmp_path: Path) -> None:
    """It was among the stages to choose from, and had no rows."""
    folder = tmp_path / "kl" / ("9" * 16)
    folder.mkdir(parents=True)
    (folder / "kl.json").write_text('{"base": {"nats": 1.5, "standard_error": 0.25}}')
    seal(folder, {"stage": "kl", "fingerprint": folder.name, "parents": {}})
    shown = CliRunner().invoke(app, ["sample", str(folder)])
    assert shown.exit_code == 0 and json.loads(shown.stdout) == {"base": {"nats": 1.5, "standard_error": 0.25}}


def test_a_policy_whose_store_was_moved_is_told_as_missing(tmp_path: Path) -> None:
    """The remedy was to move a folder that is not there."""
    job = tmp_path / "s" / "jobs" / "one"
    job.mkdir(parents=True)
    record = JobRecord("dpo", 0, "miniature", "uf", True, (), {}, {}, str(tmp_path / "outputs"))
    JobFile(job, record).add(Point(0, "p", (), train="1" * 16))
    told = CliRunner().invoke(app, ["chat", str(job)])
    assert told.exit_code == 1 and told.stderr == (
        f"error: artifact train/{'1' * 16} is missing from {tmp_path / 'outputs'}; run the same command again to make "
        "it, or put the store back there\n"
    )


def test_what_is_no_job_is_told_as_such(tmp_path: Path) -> None:
    """The remedy was to run the command again, which would write it."""
    (tmp_path / "README.md").write_text("")
    told = CliRunner().invoke(app, ["compare", str(tmp_path / "README.md"), str(tmp_path / "README.md")])
    assert told.exit_code == 1
    assert told.stderr == (
        f"error: {tmp_path}/README.md/run.json: no such file; expected a job's folder, as results/<sweep>/jobs/<job>\n"
    )


def test_rows_are_shown_as_text_without_ids(tmp_path: Path) -> None:
    write_parquet(tmp_path / "answers.parquet", [Completion("[bold]hello[/bold]", (1, 2), "stop")])
    shown = CliRunner().invoke(app, ["sample", str(tmp_path)])
    assert shown.exit_code == 0
    assert "[bold]hello[/bold]" in shown.stdout and "token_ids" not in shown.stdout
    write_parquet(tmp_path / "prompts.parquet", [Prompt("p", (Message("user", "Where?"),), "pool")])
    assert len(list(rows_of(tmp_path))) == 2
    nothing = CliRunner().invoke(app, ["sample", str(tmp_path), "--search", "absent"])
    assert "no row holds 'absent'" in nothing.stdout


def test_a_row_is_json_however_long_its_text_is(tmp_path: Path) -> None:
    text = "The gardener keeps a cat. " * 20
    write_parquet(tmp_path / "answers.parquet", [Completion(text, (1, 2), "stop")] * 2)
    shown = CliRunner().invoke(app, ["sample", str(tmp_path), "-n", "1"])
    assert json.loads(shown.stdout) == {"text": text, "finish": "stop", "logp": None}
    for number in ("0", "-3"):
        refused = CliRunner().invoke(app, ["sample", str(tmp_path), "-n", number])
        assert refused.exit_code == 2 and refused.stdout == ""


def test_what_is_shown_or_talked_with_is_what_its_manifest_says(tmp_path: Path) -> None:
    answers, trained = tmp_path / "answers" / "a", tmp_path / "train" / "t"
    (trained / "model").mkdir(parents=True)
    answers.mkdir(parents=True)
    write_parquet(answers / "answers.parquet", [Completion("hello", (1, 2), "stop")])
    for name in ("config.json", "model.safetensors"):
        (trained / "model" / name).write_text("{}")
    for folder in (answers, trained):
        seal(folder, {"stage": folder.parent.name, "fingerprint": folder.name})
    assert policy_folder(trained) == policy_folder(trained / "model") == trained / "model"
    assert CliRunner().invoke(app, ["sample", str(answers)]).exit_code == 0
    (answers / "answers.parquet").write_bytes(b"changed")
    (trained / "model" / "model.safetensors").write_text("[]")
    for arguments in (["sample", str(answers)], ["chat", str(trained)], ["chat", str(trained / "model")]):
        told = CliRunner().invoke(app, arguments)
        assert told.exit_code == 1 and "the manifest lists" in told.stderr and told.stderr.count("\n") == 1


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    for arguments in (["status", str(tmp_path)], ["sample", str(tmp_path)], ["view", str(tmp_path)]):
        told = CliRunner().invoke(app, arguments)
        assert told.exit_code == 1 and told.stderr.startswith("error: ") and told.stderr.count("\n") == 1
    wanted = "expected a job's folder (results/<sweep>/jobs/<job>), "
    with pytest.raises(LookError) as no_policy:
        policy_folder(tmp_path)
    assert str(no_policy.value) == f"{tmp_path}: no policy in it; {wanted}a train artifact's, or a model's"
    for place in (tmp_path / "absent", Path(__file__)):
        with pytest.raises(LookError) as no_folder:
            policy_folder(place)
        assert str(no_folder.value) == f"{place}: no such folder; {wanted}a train artifact's, or a model's"
        told = CliRunner().invoke(app, ["sample", str(place)])
        assert told.stderr == f"error: {place}: no such folder; {wanted}or an artifact's (outputs/<stage>/<digits>)\n"
    with pytest.raises(LookError, match="expected an artifact with rows"):
        list(rows_of(tmp_path))


def test_differences_are_told_by_their_path() -> None:
    one = {"trainer": {"lr": 1e-4, "epochs": 1}, "seed": 0}
    other = {"trainer": {"lr": 3e-4, "epochs": 1}, "seed": 0, "judge": "x"}
    assert list(differences(one, other)) == [("judge", "null", '"x"'), ("trainer.lr", "0.0001", "0.0003")]


def test_the_doctor_shows_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted")
    found = {what: state for what, state, _ in examine(tmp_path)}
    assert found["OPENAI_API_KEY"] == "set" and found["torch"].startswith("2.13")
    assert "sk-planted" not in str(found)


def test_the_doctor_tells_of_every_extra_that_a_user_may_need(repository: Path, tmp_path: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = set(extras["optional-dependencies"]) - {"dev"}
    remedies = {
        what.removeprefix("extra "): remedy
        for what, state, remedy in examine(tmp_path)
        if what.startswith("extra ") and (state == "not installed") == bool(remedy)
    }
    assert set(remedies) == wanted and set(UNCONSTRAINED) <= wanted
    for extra, remedy in remedies.items():
        assert not remedy or f"-e '.[{extra}]'" in remedy
        assert not remedy or ("-c constraints.txt" in remedy) == (extra not in UNCONSTRAINED)


@pytest.mark.parametrize(
    ("flags", "there"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16", True),
        ("flags\t\t: fpu avx2 amx_bf16 amx_tile", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", False),
        ("Features\t: fp asimd i8mm", False),
        ("", False),
    ],
)
def test_the_doctor_tells_of_bfloat16_by_the_first_processors_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, there: bool
) -> None:
    monkeypatch.setattr(provenance, "_cpuinfo", lambda: f"model name\t: X\n{flags}\n\nmodel name\t: Y\n")
    monkeypatch.setattr(provenance, "_cpu_flags", provenance._cpu_flags.__wrapped__)
    found = {what: state for what, state, _ in examine(tmp_path)}
    assert found["CPU bfloat16"].startswith("in hardware" if there else "none")


def test_the_doctor_tells_what_is_wrong_with_a_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file was a store with so much free, and a folder that this user may not enter a traceback."""
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        assert examine(tmp_path / place)[-1][1:] == (f"{tmp_path}/file is no folder", "choose another store.root")
    assert examine(tmp_path / "new" / "store")[-1][1].endswith(" GiB free")

    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr(Path, "exists", refused)
    assert examine(tmp_path)[-1][1].endswith(" GiB free, not readable and writable")


@pytest.mark.slow
def test_a_wheel_runs_without_a_checkout(repository: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", str(repository), "--no-deps", "-w", str(tmp_path)], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)], check=True)
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from aipo.command.app import main; main()"
    given = ["plan", "objective=dpo", "iteration.iterations=1"]
    planned = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr[-2000:]
    assert "Missing: nothing" in planned.stdout
