"""Kills and preemptions at sixteen requests at once under faults: replies lost 0, paid twice 0, budget kept."""

from __future__ import annotations

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

from aipo.judges.replies import open_replies
from aipo.records import read_jsonl

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ("429", "500", "not_json", "no_choices", "cut")
WORKER = """
import os, signal, sys
from aipo.judges import JudgeError, OpenAIEndpoint, OpenAIJudge, ReplyStore, stored
from aipo.records import Message
def preempted(*_):
    raise SystemExit(143)
signal.signal(signal.SIGTERM, preempted)
lock = sys.argv[4] if len(sys.argv) > 4 else "flock"
settings = {"max_requests": int(sys.argv[5])} if len(sys.argv) > 5 else {}
judge = OpenAIJudge(
    "judge", OpenAIEndpoint(sys.argv[1], None), "judge", timeout_s=5.0, max_attempts=30, first_wait_s=0.01, **settings
)
chats = [(Message("user", f"item {number}"),) for number in range(int(sys.argv[3]))]
try:
    stored(judge, ReplyStore(sys.argv[2], lock)).reply(chats, max_tokens=5)
except JudgeError as error:
    sys.exit(f"judge error: {error}")
"""


def start(url: str, folder: Path, items: int, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, url, str(folder), str(items), *more],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )


def interrupted(tmp_path: Path, items: int, trials: int, seed: int, latency_s: float) -> dict[str, int]:
    """Counts after `trials` interrupted starts and one that is left alone."""
    rng = random.Random(seed)
    faults = random.Random(seed + 1)
    drawn = {
        (f"item {item}", attempt): faults.choice(FAULTS) if faults.random() < 0.25 else None
        for item in range(items)
        for attempt in range(40)
    }
    server = FaultyServer(lambda prompt, attempt: drawn[prompt, attempt], latency_s=latency_s)
    in_flight_at_kills, kinds = 0, Counter()
    with server.running() as url:
        for _ in range(trials):
            before = sum(server.requests.values())
            process = start(url, tmp_path, items)
            while sum(server.requests.values()) < before + 2 and process.poll() is None:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.3))
            how = rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
            kinds[how.name] += 1
            process.send_signal(how)
            process.wait()
            if how == signal.SIGKILL:
                server.settle()  # it goes on with what it had begun
                (replies,) = open_replies(tmp_path)
                in_flight_at_kills = sum(server.answered.values()) - readable(replies.ledger())
                assert in_flight_at_kills <= 16 * kinds["SIGKILL"]
        assert start(url, tmp_path, items).wait() == 0
    (replies,) = open_replies(tmp_path)
    rows = [row for path in tmp_path.rglob("*.jsonl") for row in read_jsonl(path) if "key" in row]
    kept = Counter(row["key"] for row in rows)
    texts = [row["reply"]["text"] for row in rows]
    unreadable = sum(row["reply"]["error"] is not None for row in rows)
    assert len(kept) == items and set(texts) - {""} <= {f"verdict on item {number}" for number in range(items)}
    return {
        "kept twice": sum(kept.values()) - items,
        "unreadable": unreadable,
        "answered": sum(server.answered.values()),
        "paid twice": sum(count - 1 for count in server.answered.values()),
        "in flight at kills": in_flight_at_kills,
        "requests": sum(server.requests.values()),
        "counted": replies.ledger().requests,
        **kinds,
    }


def readable(ledger) -> int:
    return ledger.replies - ledger.unreadable


def check(counts: dict[str, int]) -> None:
    assert counts["kept twice"] == 0
    # What is paid twice had been answered, and was on its way when its process was killed. Never after a signal that
    # lets a process end by itself.
    assert counts["paid twice"] <= counts["in flight at kills"]
    assert counts["counted"] >= counts["requests"]


def test_a_few_kills(tmp_path: Path) -> None:
    check(interrupted(tmp_path, items=30, trials=2, seed=0, latency_s=0.05))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_what_arrives_while_a_process_is_being_stopped_is_kept(tmp_path: Path, how: signal.Signals) -> None:
    server = FaultyServer(lambda prompt, attempt: None, latency_s=0.4)
    with server.running() as url:
        process = start(url, tmp_path, 100)
        while sum(server.requests.values()) < 16:
            time.sleep(0.01)
        process.send_signal(how)
        assert process.wait() != 0
        assert sum(server.answered.values()) == 16
    (replies,) = open_replies(tmp_path)
    assert replies.ledger().replies == 16 == replies.ledger().requests


@pytest.mark.slow
def test_twenty_kills_and_preemptions(tmp_path: Path) -> None:
    counts = interrupted(tmp_path, items=800, trials=20, seed=1, latency_s=0.1)
    print(counts)
    assert min(counts["SIGKILL"], counts["SIGTERM"], counts["SIGINT"]) >= 3
    check(counts)


@pytest.mark.parametrize("processes", [3, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("lock", ["flock", "lease"])
def test_processes_at_once_pay_for_each_reply_once(tmp_path: Path, lock: str, processes: int) -> None:
    """They all want the same; one of them is killed, and what it was asking is asked by another."""
    server = FaultyServer(lambda prompt, attempt: None, latency_s=0.1)
    items = 40 * processes
    with server.running() as url:
        jobs = [start(url, tmp_path, items, lock) for _ in range(processes)]
        while sum(server.requests.values()) < 20:
            time.sleep(0.005)
        jobs[0].kill()
        jobs[0].wait()
        assert [job.wait() for job in jobs[1:]] == [0] * (processes - 1)
    twice = sum(count - 1 for count in server.answered.values())
    assert len(server.answered) == items and twice <= 16, "more than were under way at the kill"
    (replies,) = open_replies(tmp_path)
    ledger = replies.ledger()
    # What was under way at the kill, and nothing else. Some of it was written down and never reached the server.
    assert twice <= ledger.requests - ledger.replies <= 16
    assert list(tmp_path.rglob("*.lock.*")) == []
    assert lock == "flock" or list((replies.folder / "asking").iterdir()) == []


@pytest.mark.parametrize("lock", ["flock", "lease"])
@pytest.mark.parametrize("restarts", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_budget_holds_over_restarts_and_jobs(tmp_path: Path, restarts: int, lock: str) -> None:
    """Two jobs at once, killed and started again: never a request beyond the budget."""
    faults = random.Random(0)
    server = FaultyServer(lambda prompt, attempt: "500" if faults.random() < 0.25 else None, latency_s=0.05)
    with server.running() as url:
        for _ in range(restarts):
            jobs = [start(url, tmp_path, 300, lock, "100") for _ in range(2)]
            time.sleep(1.5)
            jobs[0].kill()
            for job in jobs:
                job.wait()
        assert start(url, tmp_path, 300, lock, "100").wait() == 1
    (replies,) = open_replies(tmp_path)
    assert sum(server.requests.values()) <= 100 == replies.ledger().requests
