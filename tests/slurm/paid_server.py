"""A judge on loopback that answers by hash, counts what it answered, and does with each model what the test wants."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class PaidServer:
    """`refused`: models whose requests get status 400. `held`: models whose requests wait until they are not, after
    `free` more were answered."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.answered: Counter[tuple[str, str]] = Counter()
        self.refused: set[str] = set()
        self.held: set[str] = set()
        self.free = 0
        self.waiting: Counter[str] = Counter()
        """Requests of each model that were made to wait, so far."""
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[str]:
        """The base URL, while the server runs."""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, reply = owner.answer(body["model"], body["messages"][-1]["content"])
                try:
                    self.send(status, reply)
                except OSError:
                    pass  # the client is gone

            def do_GET(self) -> None:
                self.send(200, {})

            def send(self, status: int, reply: dict) -> None:
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, model: str, prompt: str) -> tuple[int, dict]:
        """Status and body."""
        time.sleep(self.latency_s)
        with self._lock:
            self.free -= model in self.held
            self.waiting[model] += self.free < 0
        while model in self.held and self.free < 0:
            time.sleep(0.05)
        if model in self.refused:
            return 400, {"error": {"message": "no such model here", "type": "refused", "code": "refused"}}
        with self._lock:
            self.answered[model, prompt] += 1
        number = int(hashlib.sha256(prompt.encode()).hexdigest(), 16)
        text = f"Rating: [[{1 + number % 10}]]\nScore: {number % 6}"
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        content = {"id": "x", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}
        return 200, content | {"usage": usage}
