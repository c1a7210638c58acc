"""The verdict store: every reply once, whatever happens to the process that writes it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from faulty_server import FaultyServer
from hypothesis import given, settings
from hypothesis import strategies as st

from aipo.judges import JudgeError
from aipo.judges.replay import ReplayJudge
from aipo.judges.scripted import ScriptedJudge
from aipo.judges.store import StoredJudge, read_replies
from aipo.records import JudgeReply, Judgment, Message

ROOT = Path(__file__).resolve().parents[2]


def chat(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


class Counting:
    """Counts how often each prompt is asked; every reply differs."""

    def __init__(self, name: str = "counting") -> None:
        self.asked: Counter[str] = Counter()
        self.judge = ScriptedJudge(self._script, name)

    def _script(self, asked) -> JudgeReply:
        self.asked[asked[-1].content] += 1
        return JudgeReply(f"{asked[-1].content} #{self.asked[asked[-1].content]}", {"m": -0.5}, "model")


def test_a_second_run_asks_nothing(tmp_path: Path) -> None:
    counting, path = Counting(), tmp_path / "replies.jsonl"
    chats = [chat("a"), chat("b"), chat("a")]
    first = StoredJudge(counting.judge, path).reply(chats, max_tokens=5)
    assert [reply.text for reply in first] == ["a #1", "b #1", "a #2"]  # a repeated request is a request of its own
    assert StoredJudge(counting.judge, path).reply(chats, max_tokens=5) == first
    assert counting.asked == {"a": 2, "b": 1}


def test_what_shapes_a_reply_is_in_its_key(tmp_path: Path) -> None:
    counting, path = Counting(), tmp_path / "replies.jsonl"
    for decoding in ({"max_tokens": 5}, {"max_tokens": 6}, {"max_tokens": 5, "temperature": 1.0}):
        StoredJudge(counting.judge, path).reply([chat("a")], **decoding)
    StoredJudge(ScriptedJudge(counting.judge.script, "another"), path).reply([chat("a")], max_tokens=5)
    assert counting.asked["a"] == 4 == len(path.read_text().splitlines())


def test_a_torn_last_line_is_dropped_and_asked_again(tmp_path: Path) -> None:
    counting, path = Counting(), tmp_path / "replies.jsonl"
    StoredJudge(counting.judge, path).reply([chat("a"), chat("b")], max_tokens=5)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    replies = StoredJudge(counting.judge, path).reply([chat("a"), chat("b")], max_tokens=5)
    assert [reply.text for reply in replies] == ["a #1", "b #2"] and counting.asked == {"a": 1, "b": 2}
    assert [json.loads(line)["reply"]["text"] for line in path.read_text().splitlines()] == ["a #1", "b #2"]


def test_any_other_bad_line_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    StoredJudge(Counting().judge, path).reply([chat("a"), chat("b")], max_tokens=5)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(['{"key": 1}', lines[1]]) + "\n")
    with pytest.raises(ValueError, match="replies.jsonl, line 1: not a stored reply"):
        StoredJudge(Counting().judge, path)


def test_unscored_replies_are_asked_again_on_resume_and_stay_on_file(tmp_path: Path) -> None:
    counting, path = Counting(), tmp_path / "replies.jsonl"
    stored = StoredJudge(counting.judge, path)
    replies = stored.reply([chat("a"), chat("b")], max_tokens=5)
    bad = Judgment("q", 1, "single", None, (replies[1],), "counting", "")
    stored.ask_again([bad])
    again = StoredJudge(counting.judge, path).reply([chat("a"), chat("b")], max_tokens=5)
    assert [reply.text for reply in again] == ["a #1", "b #2"] and counting.asked == {"a": 1, "b": 2}
    assert "b #1" in path.read_text()
    assert StoredJudge(counting.judge, path).reply([chat("a"), chat("b")], max_tokens=5) == again


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_any_text_survives_the_file(texts: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "replies.jsonl"
        echo = ScriptedJudge(lambda asked: asked[-1].content)
        first = StoredJudge(echo, path).reply([chat(text) for text in texts], max_tokens=5)
        silent = ScriptedJudge(lambda asked: pytest.fail("asked again"))
        assert StoredJudge(silent, path).reply([chat(text) for text in texts], max_tokens=5) == first


def test_replay_repeats_and_never_asks(tmp_path: Path) -> None:
    counting, path = Counting(), tmp_path / "judgments" / "fingerprint" / "replies.jsonl"
    path.parent.mkdir(parents=True)
    first = StoredJudge(counting.judge, path).reply([chat("a"), chat("b")], max_tokens=5)
    replay = ReplayJudge(str(tmp_path), "replay")
    assert replay.missing() == [] and replay.identity() == {"name": "counting"}
    assert replay.reply([chat("b"), chat("a")], max_tokens=5) == [first[1], first[0]]
    with pytest.raises(JudgeError, match="1 of 2 prompts have no stored reply"):
        ReplayJudge(str(tmp_path), "replay").reply([chat("a"), chat("c")], max_tokens=5)


def test_replay_refuses_to_mix_judges(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        StoredJudge(Counting(name).judge, tmp_path / name / "replies.jsonl").reply([chat("a")], max_tokens=5)
    with pytest.raises(JudgeError, match="expected the stored replies of one judge, found 2"):
        ReplayJudge(str(tmp_path), "replay").identity()
    (line,) = ReplayJudge(str(tmp_path / "nothing"), "replay").missing()
    assert "no replies.jsonl" in line


WORKER = """
import sys
from pathlib import Path
from aipo.judges.endpoints import OpenAIEndpoint
from aipo.judges.openai_judge import OpenAIJudge
from aipo.judges.store import StoredJudge
from aipo.records import Message
judge = OpenAIJudge("judge", OpenAIEndpoint(sys.argv[1], None), "judge", max_concurrent=1, timeout_s=5.0)
chats = [(Message("user", f"item {number}"),) for number in range(60)]
StoredJudge(judge, Path(sys.argv[2])).reply(chats, max_tokens=5)
"""


@pytest.mark.slow
def test_killed_ten_times_each_item_is_paid_for_once(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    server = FaultyServer(lambda prompt, attempt: None, latency_s=0.15)
    rng = random.Random(0)
    with server.running() as url:
        command = [sys.executable, "-c", WORKER, url, str(path)]
        for _ in range(10):
            before = sum(server.requests.values())
            process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
            while sum(server.requests.values()) < before + 2:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.4))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    stored = read_replies(path)
    assert len(stored.replies) == 60 == len(path.read_text().splitlines())
    assert sorted(reply.text for reply in stored.replies.values()) == sorted(f"verdict on item {n}" for n in range(60))
    # A request under way when its process died was sent, but its reply never arrived: one for each kill at most.
    assert 60 <= sum(server.requests.values()) <= 70
