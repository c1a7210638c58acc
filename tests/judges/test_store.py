"""The reply store: every reply once, whatever happens to the processes that write it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from faulty_server import FaultyServer
from hypothesis import given, settings
from hypothesis import strategies as st

from aipo.judges import JudgeError, LengthOnlyJudge
from aipo.judges.budget import Budget
from aipo.judges.judge import Receipt
from aipo.judges.replay import ReplayJudge
from aipo.judges.replies import Replies, ReplyStore, open_replies
from aipo.judges.scripted import ScriptedJudge
from aipo.judges.store import judged, stored
from aipo.records import JudgeReply, Judgment, Message
from aipo.remote import JournalError

ROOT = Path(__file__).resolve().parents[2]


def chat(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


class Counting:
    """Counts how often each prompt is asked; every reply differs."""

    def __init__(self, name: str = "counting", asks: int = 1) -> None:
        self.asked: Counter[str] = Counter()
        self.judge = ScriptedJudge(self._script, name, keeps_replies=True, asks_per_verdict=asks)

    def _script(self, asked) -> JudgeReply:
        self.asked[asked[-1].content] += 1
        return JudgeReply(f"{asked[-1].content} #{self.asked[asked[-1].content]}", {"m": -0.5}, "model")


def lines(root: Path) -> list[dict]:
    return [json.loads(line) for path in sorted(root.rglob("*.jsonl")) for line in path.read_text().splitlines()]


def test_a_second_judging_asks_nothing_and_identical_requests_get_a_reply_each(tmp_path: Path) -> None:
    counting, store = Counting(), ReplyStore(tmp_path)
    chats = [chat("a"), chat("b"), chat("a")]
    first = stored(counting.judge, store).reply(chats, max_tokens=5)
    assert [reply.text for reply in first] == ["a #1", "b #1", "a #2"]
    assert stored(counting.judge, store).reply(chats, max_tokens=5) == first
    one_judging = stored(counting.judge, store)
    assert [one_judging.reply([chat("a")], max_tokens=5)[0].text for _ in range(2)] == ["a #1", "a #2"]
    assert counting.asked == {"a": 2, "b": 1}


def test_what_shapes_a_reply_is_in_its_key(tmp_path: Path) -> None:
    counting, store = Counting(), ReplyStore(tmp_path)
    for decoding in ({"max_tokens": 5}, {"max_tokens": 6}, {"max_tokens": 5, "temperature": 1.0}):
        stored(counting.judge, store).reply([chat("a")], **decoding)
    another = ScriptedJudge(counting.judge.script, "another", keeps_replies=True)
    stored(another, store).reply([chat("a")], max_tokens=5)
    assert counting.asked["a"] == 4 == sum("key" in line for line in lines(tmp_path))
    assert len(open_replies(tmp_path)) == 2


def test_a_free_judge_is_not_kept(tmp_path: Path) -> None:
    judge = LengthOnlyJudge()
    assert stored(judge, ReplyStore(tmp_path)) is judge and list(tmp_path.iterdir()) == []


def test_another_process_shares_and_sees_what_is_new(tmp_path: Path) -> None:
    """Two stores that know nothing of each other: what two processes have."""
    counting = Counting()
    one, two = (Replies(tmp_path, counting.judge.identity()) for _ in range(2))
    one.keep("k" * 64, {}, JudgeReply("é\u2028\n\x85"), Receipt(3, 4, 0.5))
    assert "k" * 64 not in two
    two.refresh()
    assert two.get("k" * 64) == JudgeReply("é\u2028\n\x85") == one.get("k" * 64)
    assert two.ask_again("k" * 64, 2) and not two.ask_again("k" * 64, 2)
    one.refresh()
    assert "k" * 64 not in one
    one.keep("k" * 64, {}, JudgeReply("new"), Receipt(1, 1))
    two.refresh()
    assert two.get("k" * 64).text == "new" and not two.ask_again("k" * 64, 2)
    ledger = one.ledger()
    assert (ledger.replies, ledger.input_tokens, ledger.output_tokens, ledger.dollars) == (2, 4, 5, 0.5)


def test_a_torn_last_line_is_left_alone_and_asked_again(tmp_path: Path) -> None:
    counting = Counting()
    stored(counting.judge, ReplyStore(tmp_path)).reply([chat("a"), chat("b")], max_tokens=5)
    (path,) = tmp_path.rglob("*.jsonl")
    torn = path.read_bytes()[:-20]
    copied = tmp_path / "copy" / "replies" / path.parent.name / path.name
    copied.parent.mkdir(parents=True)
    copied.write_bytes(torn)
    replies = stored(counting.judge, ReplyStore(tmp_path / "copy")).reply([chat("a"), chat("b")], max_tokens=5)
    assert [reply.text for reply in replies] == ["a #1", "b #2"] and counting.asked == {"a": 1, "b": 2}
    assert copied.read_bytes() == torn, "a reader has cut a file that another process may be writing"


@pytest.mark.parametrize(("old", "new"), [(b"a #1", b"a #9"), (b"{", b"["), (b'"take": 0', b'"take": 7')])
def test_a_changed_line_is_an_error_that_names_it(tmp_path: Path, old: bytes, new: bytes) -> None:
    stored(Counting().judge, ReplyStore(tmp_path)).reply([chat("a"), chat("b")], max_tokens=5)
    (path,) = tmp_path.rglob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    number = 1 if old == b"{" else 2
    with pytest.raises(JournalError, match=f"jsonl, line {number}: not as it was written .* delete this line"):
        open_replies(tmp_path)


def verdicts(replies, bad: str) -> list[Judgment]:
    return [
        Judgment(str(number), 1, "single", None if reply.text.startswith(bad) else 1.0, (reply,), "counting", "")
        for number, reply in enumerate(replies)
    ]


def test_replies_without_a_verdict_alone_are_asked_again_and_only_when_that_is_allowed(tmp_path: Path) -> None:
    once, twice, store = Counting(), Counting(asks=2), ReplyStore(tmp_path)

    def judging(asked) -> list[Judgment]:
        return verdicts(asked.reply([chat("a"), chat("b")], max_tokens=5), bad="b")

    for _ in range(3):  # as when the limit of unscored verdicts is raised, or the run is started again
        assert [judgment.value for judgment in judged(once.judge, store, judging)] == [1.0, None]
    assert once.asked == {"a": 1, "b": 1}
    for _ in range(3):
        assert [judgment.value for judgment in judged(twice.judge, store, judging)] == [1.0, None]
    assert twice.asked == {"b": 1}
    assert [line["reply"]["text"] for line in lines(tmp_path) if "key" in line] == ["a #1", "b #1", "b #1"]


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=8))
@settings(max_examples=30)
def test_any_text_survives_the_file(texts: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = ReplyStore(folder)
        echo = ScriptedJudge(lambda asked: asked[-1].content, keeps_replies=True)
        first = stored(echo, store).reply([chat(text) for text in texts], max_tokens=5)
        assert [reply.text for reply in first] == texts
        silent = ScriptedJudge(lambda asked: pytest.fail("asked again"), keeps_replies=True)
        assert stored(silent, store).reply([chat(text) for text in texts], max_tokens=5) == first
        (read,) = open_replies(Path(folder))
        assert read.ledger().replies == len(texts)


def test_a_prompt_with_a_lone_surrogate_has_a_key(tmp_path: Path) -> None:
    counting = Counting()
    for _ in range(2):
        stored(counting.judge, ReplyStore(tmp_path)).reply([chat("\ud800")], max_tokens=5)
    assert sum(counting.asked.values()) == 1


def test_what_another_process_is_asking_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "aipo")
    counting, store = Counting(), ReplyStore(tmp_path)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    threading.Timer(0.3, lambda: other.communicate(b"go\n")).start()
    replies = stored(counting.judge, store).reply([chat("a"), chat("b")], max_tokens=5)
    assert [reply.text for reply in replies] == ["theirs", "b #1"] and counting.asked == {"b": 1}
    assert "waiting for replies that another process asks for" in caplog.text


HOLDER = """
import sys
from collections import Counter
from aipo.judges.judge import Receipt
from aipo.judges.replies import ReplyStore, reply_key
from aipo.records import JudgeReply, Message
who = {"name": "counting"}
replies = ReplyStore(sys.argv[1]).of(who)
decoding = {"max_tokens": 5, "temperature": 0.0, "top_logprobs": 0}
key = reply_key(who, (Message("user", "a"),), decoding, Counter())
assert replies.claim(key)
print("held", flush=True)
sys.stdin.readline()
replies.keep(key, decoding, JudgeReply("theirs"), Receipt())
replies.release(key)
"""


def test_replay_repeats_and_never_asks(tmp_path: Path) -> None:
    counting = Counting()
    first = stored(counting.judge, ReplyStore(tmp_path)).reply([chat("a"), chat("b")], max_tokens=5)
    replay = ReplayJudge(str(tmp_path / "replies"), "replay")
    assert replay.missing() == [] and replay.identity() == {"name": "counting"}
    for _ in range(2):
        one_judging = stored(replay, ReplyStore(tmp_path))
        assert one_judging.reply([chat("b"), chat("a")], max_tokens=5) == [first[1], first[0]]
    with pytest.raises(JudgeError, match="1 of 2 prompts have no stored reply"):
        ReplayJudge(str(tmp_path), "replay").reply([chat("a"), chat("c")], max_tokens=5)


def test_replay_refuses_to_mix_judges(tmp_path: Path) -> None:
    for name in ("one", "two"):
        stored(Counting(name).judge, ReplyStore(tmp_path)).reply([chat("a")], max_tokens=5)
    with pytest.raises(JudgeError, match="expected the stored replies of one judge, found 2"):
        ReplayJudge(str(tmp_path), "replay").identity()
    (line,) = ReplayJudge(str(tmp_path / "nothing"), "replay").missing()
    assert "no judge.json" in line


def test_the_ledger_is_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from aipo.judges.__main__ import main

    assert main(["spent", str(tmp_path)]) == 1 and "no judge's replies" in capsys.readouterr().err
    replies = ReplyStore(tmp_path).of({"name": "j"})
    for number in range(3):
        replies.spend(Budget(), 0.3)
        if number:
            replies.keep(f"{number}" * 64, {}, JudgeReply("x"), Receipt(100, 10, 0.25, up_to=0.3))
    assert main(["spent", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| j | 3 | 2 | 0 | 200 | 20 | 0.50 | 0.30 |"


WORKER = """
import sys
from aipo.judges.endpoints import OpenAIEndpoint
from aipo.judges.openai_judge import OpenAIJudge
from aipo.judges.replies import ReplyStore
from aipo.judges.store import stored
from aipo.records import Message
judge = OpenAIJudge("judge", OpenAIEndpoint(sys.argv[1], None), "judge", max_concurrent=1, timeout_s=5.0)
chats = [(Message("user", f"item {number}"),) for number in range(60)]
stored(judge, ReplyStore(sys.argv[2])).reply(chats, max_tokens=5)
"""


@pytest.mark.slow
def test_killed_ten_times_each_item_is_paid_for_once(tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: None, latency_s=0.15)
    rng = random.Random(0)
    with server.running() as url:
        command = [sys.executable, "-c", WORKER, url, str(tmp_path)]
        for _ in range(10):
            before = sum(server.requests.values())
            process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
            while sum(server.requests.values()) < before + 2:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.4))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    (replies,) = open_replies(tmp_path)
    ledger = replies.ledger()
    texts = [line["reply"]["text"] for line in lines(tmp_path) if "key" in line]
    assert sorted(texts) == sorted(f"verdict on item {number}" for number in range(60)) and ledger.replies == 60
    # A request under way when its process died was sent, but its reply never arrived: one for each kill at most.
    assert 60 <= sum(server.requests.values()) <= ledger.requests <= 70
