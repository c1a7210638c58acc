"""Keys planted in the environment, echoed by an endpoint and put into an address: found in no file, on no console."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

from faulty_server import FaultyServer

ROOT = Path(__file__).resolve().parents[2]
KEY = "planted-zq81-key"


def run(tmp_path: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, str(ROOT / "run.py"), "judge=openai_compatible", "judge.model=judge", "sweep=keys"),
            *("judge.endpoint.key_variable=MY_JUDGE", "judge.first_wait_s=0.01", "judge.max_attempts=2"),
            *("diagnostic_judge=none", "benchmark=mini_mt_bench", *overrides),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MY_JUDGE": KEY},
        capture_output=True,
        text=True,
        timeout=300,
    )


def leaks(tmp_path: Path, result: subprocess.CompletedProcess[str]) -> list[str]:
    found = ["console"] if KEY in result.stdout + result.stderr else []
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            kept = path.parent.parent.name == "replies" and path.suffix == ".jsonl"
            raw = [json.loads(line).get("raw_base64", "") for line in data.splitlines()] if kept else []
            if KEY.encode() in data or any(KEY.encode() in base64.b64decode(text) for text in raw):
                found.append(str(path))
    return found


def test_no_planted_key_is_written_anywhere(tmp_path: Path) -> None:
    server = FaultyServer(lambda prompt, attempt: None)
    server.text = lambda prompt: f"your key is {KEY}. [[7]]"
    broken = {"choices": [None], "key": KEY, "header": f"Bearer {KEY}"}
    echoes = {
        0: None,
        1: (200, json.dumps(broken).encode(), {}),
        2: (400, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode(), {}),
    }
    server.raw = lambda prompt, attempt: echoes[len(prompt) % 3]
    with server.running() as url:
        result = run(tmp_path, f"judge.endpoint.base_url={url}")
        assert result.returncode == 1 and "verdicts are unscored" in result.stderr, result.stderr[-2000:]
        assert any(path.name == "run.json" for path in tmp_path.rglob("*")), "there is nothing to search"
        assert leaks(tmp_path, result) == []
        address = url.replace("http://", f"http://user:{KEY}@")
        result = run(tmp_path, f"judge.endpoint.base_url={address}")
    assert result.returncode == 2 and "without user, password or key" in result.stderr
    assert leaks(tmp_path, result) == []
