"""A store's remote one: pulled instead of made, pushed whole, refused when changed, only read where that is asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import fsspec
import pytest

from aipo.artifacts import Artifact, PlanStore, StageEvent, StageReport, Store, StoreError, garbage
from aipo.artifacts.command import main
from aipo.artifacts.files import prune
from aipo.artifacts.garbage import Sweeps, carry_out, plan
from aipo.artifacts.inventory import Inventory
from aipo.artifacts.mirror import PUSHED
from aipo.artifacts.remote_store import RemoteStore
from aipo.judges import Judge, ReplyStore, replies
from aipo.judges.scripted import ScriptedJudge
from aipo.judges.store import stored
from aipo.records import JudgeReply, Message

ROOT = Path(__file__).resolve().parent.parent


class Machine:
    """A process with a disk of its own: two stages, one of which makes weights that the next one reads."""

    def __init__(self, root: Path, remote: str | None = None, push: bool = True, kind: str = "a") -> None:
        self.store = Store(root, "flock", remote, push)
        self.kind = kind
        self.built: list[str] = []
        self.events: list[StageEvent] = []
        self.store.listeners.append(self.events.append)

    def train(self) -> Artifact:
        def build(folder: Path) -> StageReport:
            self.built.append("train")
            (folder / "model").mkdir()
            (folder / "model" / "model.safetensors").write_bytes(b"weights" * 1000)
            (folder / "model" / "config.json").write_text('{"layers": 1}')
            (folder / "machine.txt").write_text(self.kind)
            return StageReport({"steps": 3}, {"tie": 1})

        return self.store.run("train", version=1, config={}, parents={}, build=build)

    def answers(self, policy: Artifact) -> Artifact:
        def build(folder: Path) -> StageReport:
            self.built.append("answers")
            weights = (policy.path / "model" / "model.safetensors").read_bytes()
            (folder / "answers.txt").write_text(str(len(weights)))
            return StageReport({"answers": len(weights)})

        parents = {"policy": policy.fingerprint}
        verify = ("policy/model",)
        return self.store.run("answers", version=1, config={}, parents=parents, build=build, verify=verify)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["memory", "folder", "file"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    kind = request.param
    return {
        "memory": f"memory://{uuid.uuid4().hex}/store/",
        "folder": str(tmp_path / "remote"),
        "file": f"file://{tmp_path / 'remote'}",
    }[kind]


def test_a_second_machine_makes_nothing_and_reads_the_same_bytes(remote: str, tmp_path: Path) -> None:
    first, second, alone = (
        Machine(tmp_path / name, url) for name, url in (("a", remote), ("b", remote), ("alone", None))
    )
    trained = first.train()
    assert first.built == ["train"] and not (tmp_path / "b").exists()
    pulled = second.train()
    assert second.built == [] and not pulled.executed
    assert second.events[-1].outcome == "cached"
    assert second.events[-1].report.counts == {"steps": 3} and second.events[-1].report.dropped == {"tie": 1}
    here = files_of(pulled.path)
    assert json.loads(here.pop(".pruned")) == ["model/model.safetensors"], "a finished job reads no weights"
    whole = files_of(trained.path)
    assert here == {name: data for name, data in whole.items() if not name.endswith(".safetensors")}
    answered = second.answers(pulled)
    assert second.built == ["answers"] and (answered.path / "answers.txt").read_text() == "7000"
    assert files_of(pulled.path) == whole, "its weights came when a stage was about to read them"
    alone.answers(alone.train())
    told = {name: data for name, data in files_of(tmp_path / "b").items() if not name.startswith(".")}
    expected = {name: data for name, data in files_of(tmp_path / "alone").items() if not name.startswith(".")}
    assert told.keys() == expected.keys()
    assert all(told[name] == expected[name] for name in told if not name.endswith("manifest.json"))


def test_what_lies_there_is_not_announced_as_being_made(tmp_path: Path) -> None:
    """A job whose training has nodes of its own went there, and waited for them, to pull what was trained."""
    remote = str(tmp_path / "remote")
    begun: list[str] = []
    for machine in ("one", "two"):
        found = Machine(tmp_path / machine, remote)
        found.store.on_begin.append(lambda stage, note: begun.append(stage))
        found.answers(found.train())
    assert begun == ["train", "answers"]


def test_what_was_made_before_there_was_a_remote_store_is_pushed_at_its_next_use(remote: str, tmp_path: Path) -> None:
    Machine(tmp_path / "a").train()
    later = Machine(tmp_path / "a", remote)
    later.train()
    assert later.built == [] and len(list((tmp_path / "a" / PUSHED).rglob("train-*"))) == 1
    other = Machine(tmp_path / "b", remote)
    other.train()
    assert other.built == []


def test_a_known_artifact_costs_no_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path / "a", f"memory://{uuid.uuid4().hex}")
    machine.train()
    monkeypatch.setattr(machine.store.mirror.remote, "_call", None)
    assert not machine.train().executed


def test_a_plan_knows_what_lies_there_and_brings_nothing(remote: str, tmp_path: Path) -> None:
    Machine(tmp_path / "a", remote).train()
    planned = Machine(tmp_path / "b", remote)
    planned.store = PlanStore.of(planned.store)
    planned.store.listeners.append(planned.events.append)
    planned.answers(planned.train())
    assert [event.outcome for event in planned.events] == ["cached", "planned"]
    assert planned.events[0].report.counts == {"steps": 3} and not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["machine.txt", "manifest.json", "model/model.safetensors"])
def test_a_changed_file_is_refused_and_named(tmp_path: Path, name: str) -> None:
    remote = tmp_path / "remote"
    Machine(tmp_path / "a", str(remote)).train()
    (path,) = remote.glob(f"train/*/{name}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    second = Machine(tmp_path / "b", str(remote))
    with pytest.raises(
        StoreError, match=f"{name}.*Remove {remote}/train/[0-9a-f]{{16}} and run the same command again"
    ):
        second.answers(second.train())
    assert second.built == []
    shutil.rmtree(next(remote.glob("train/*")))
    again = Machine(tmp_path / "c", str(remote))
    assert again.train().executed and len(list(remote.glob("train/*/manifest.json"))) == 1


def test_two_machines_that_make_other_bytes_both_keep_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote = tmp_path / "remote"
    Machine(tmp_path / "a").train()
    Machine(tmp_path / "b", kind="b").train()
    Machine(tmp_path / "a", str(remote)).train()
    Machine(tmp_path / "b", str(remote)).train()
    assert "with other bytes than here" in caplog.text
    found = [next(tmp_path.glob(f"{name}/train/*/machine.txt")).read_text() for name in ("a", "b", "remote")]
    assert found == ["a", "b", "a"]


def test_pruned_weights_come_back_without_training(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "a", f"memory://{uuid.uuid4().hex}")
    trained = machine.train()
    whole = files_of(trained.path)
    prune(trained.path)
    machine.answers(machine.train())
    assert machine.built == ["train", "answers"] and files_of(trained.path) == whole


def test_a_pruned_artifact_is_never_pushed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prune(Machine(tmp_path / "a").train().path)
    Machine(tmp_path / "a", str(tmp_path / "remote")).train()
    assert "its weights were pruned" in caplog.text and not (tmp_path / "remote" / "train").exists()


def test_a_colleagues_store_is_linked_to_and_never_written(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    Machine(shared).train()
    before = {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in [shared, *shared.rglob("*")]}
    machine = Machine(own, str(shared), push=False)
    assert machine.store.missing() == []
    linked = machine.train()
    machine.answers(linked)
    assert machine.built == ["answers"]
    assert all(path.is_symlink() for path in linked.path.rglob("*") if path.is_file())
    assert [path.name for path in sorted(own.glob("*/*/answers.txt"))] == ["answers.txt"]
    assert not (shared / "answers").exists()
    prune(linked.path)
    results = tmp_path / "results"
    results.mkdir()
    store = Inventory.of(own)
    carry_out(store, plan(store, Sweeps.of(results), garbage.ALSO), "flock")
    assert Inventory.of(own).entries == {}
    assert {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in [shared, *shared.rglob("*")]} == before


def test_push_and_pull_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine, url = Machine(tmp_path / "a"), f"file://{tmp_path}/remote"
    trained = machine.train()
    Paid().judge_with(tmp_path / "a", str(tmp_path / "elsewhere"), "x")
    assert main(["push", "--store", str(tmp_path / "a"), "--remote", url]) == 0
    assert capsys.readouterr().out == f"1 artifacts and the replies of 1 judges are in {url}\n"
    short = trained.fingerprint[:8]
    assert main(["pull", short, "--store", str(tmp_path / "b"), "--remote", url]) == 0
    assert files_of(tmp_path / "b" / "train" / trained.fingerprint) == files_of(trained.path)
    assert main(["pull", "ffff", "--store", str(tmp_path / "b"), "--remote", url]) == 1
    assert "ffff: 0 artifacts begin with it" in capsys.readouterr().err
    paid = Paid()
    assert paid.judge_with(tmp_path / "c", url, "x") == ["x!"] and not paid.asked


def test_an_unfinished_download_is_removed_by_gc(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "a")
    digest = machine.train().fingerprint
    left = tmp_path / "a" / ".incoming" / f"train-{digest}.partial"
    left.mkdir(parents=True)
    (left / "machine.txt").write_text("half")
    (tmp_path / "results").mkdir()
    store = Inventory.of(tmp_path / "a")
    planned = plan(store, Sweeps.of(tmp_path / "results"))
    assert [(item.path, item.why) for item in planned.removals if item.path == left] == [
        (left, "an unfinished download")
    ]
    carry_out(store, planned, "flock")
    assert not left.exists()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nosuch://bucket", "Protocol not known"),
        ("file:///proc/no/such", "cannot write to it"),
    ],
)
def test_a_remote_store_out_of_reach_is_told_with_a_remedy(tmp_path: Path, url: str, says: str) -> None:
    (told,) = Store(tmp_path, "flock", url).missing()
    assert told.startswith(f"store.remote={url}: cannot") and says in told and "or set store.remote=null" in told


def test_a_url_s_password_is_shown_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="store.remote: expected an address without user") as refused:
        Store(tmp_path, "flock", "nosuch://user:pass-word@host/x")
    (told,) = RemoteStore("nosuch://user:pass-word@host/x").missing()  # as of `aipo store push --remote`
    assert not any("pass-word" in text for text in (told, str(refused.value)))


def test_a_run_that_cannot_reach_it_ends_before_anything_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), f"store.root={tmp_path}/store", "store.remote=file:///proc/none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 2, done.stderr
    assert "store.remote=file:///proc/none: cannot write to it" in done.stderr
    assert list(tmp_path.iterdir()) == []


class Paid:
    """A judge that counts what it is asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.judge: Judge = ScriptedJudge(self._reply, "paid", keeps_replies=True)

    def _reply(self, chat: tuple[Message, ...]) -> JudgeReply:
        self.asked[chat[-1].content] += 1
        return JudgeReply(f"{chat[-1].content}!", {"m": -0.5}, "model")

    def judge_with(self, root: Path, url: str, texts: str, push: bool = True) -> list[str]:
        store = Store(root, "flock", url, push)
        asked = stored(self.judge, ReplyStore(root, "flock", store.mirror))
        chats = [(Message("user", text),) for text in texts]
        return [reply.text for reply in asked.reply(chats, max_tokens=5)]


def test_replies_are_paid_once_over_all_machines(remote: str, tmp_path: Path) -> None:
    paid = Paid()
    assert paid.judge_with(tmp_path / "a", remote, "xy") == ["x!", "y!"]
    assert paid.judge_with(tmp_path / "b", remote, "yz") == ["y!", "z!"]
    shutil.rmtree(tmp_path / "a")  # a machine that is gone
    assert paid.judge_with(tmp_path / "a2", remote, "xyz") == ["x!", "y!", "z!"]
    assert paid.asked == {"x": 1, "y": 1, "z": 1}


def test_replies_that_could_not_be_sent_are_sent_by_the_next_judging(tmp_path: Path) -> None:
    paid, remote = Paid(), tmp_path / "remote"
    remote.write_text("a file where a folder is needed")
    with pytest.raises(StoreError, match="cannot"):
        paid.judge_with(tmp_path / "a", str(remote), "xy")
    remote.unlink()
    assert paid.judge_with(tmp_path / "a", str(remote), "xy") == ["x!", "y!"]
    assert paid.judge_with(tmp_path / "b", str(remote), "xy") == ["x!", "y!"]
    assert set(paid.asked.values()) == {1}


def test_in_a_long_judging_replies_are_sent_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(replies, "PUSH_SECONDS", 0.0)
    monkeypatch.setattr(replies.Replies, "push", lambda self: sent.append(len(list(self.folder.glob("*.jsonl")))))
    Paid().judge_with(tmp_path / "a", f"memory://{uuid.uuid4().hex}", "xyz")
    assert sent == [1, 1, 1, 1], "after each reply, as the minute is over at once, and at the end"


def test_replies_of_a_store_that_is_only_read_are_used_and_none_is_sent(tmp_path: Path) -> None:
    paid, remote = Paid(), tmp_path / "remote"
    paid.judge_with(tmp_path / "a", str(remote), "xy")
    before = files_of(remote)
    assert paid.judge_with(tmp_path / "b", str(remote), "xz", push=False) == ["x!", "z!"]
    assert paid.asked == {"x": 1, "y": 1, "z": 1} and files_of(remote) == before


def test_a_changed_reply_is_refused(tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    Paid().judge_with(tmp_path / "a", url, "x")
    files, root = fsspec.core.url_to_fs(url)
    (journal,) = (name for name in files.find(root) if name.endswith(".jsonl"))
    files.pipe_file(journal, files.cat_file(journal).replace(b"x!", b"y!"))
    with pytest.raises(ValueError, match="not as it was written"):
        Paid().judge_with(tmp_path / "b", url, "x")
