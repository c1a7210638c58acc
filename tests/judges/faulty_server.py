"""An OpenAI-protocol server on loopback whose faults are scripted, and which counts what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = str | None
"""What a request gets (see `handle`): a status, a broken reply, or a broken connection; None: a good reply."""


class FaultyServer:
    """`fault(prompt, attempt)` decides what the attempt-th request (from 0) of a prompt gets."""

    def __init__(self, fault: Callable[[str, int], Fault], latency_s: float = 0.0) -> None:
        self.fault = fault
        self.latency_s = latency_s
        self.model = "judge-2024-01-01"
        self.text: Callable[[str], str] = lambda prompt: f"verdict on {prompt}"
        self.raw: Callable[[str, int], tuple[int, bytes, dict[str, str]] | None] = lambda prompt, attempt: None
        """A whole response (status, body, headers) in place of the one `fault` stands for; None: that one."""
        self.requests: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.lock = threading.Lock()
        self._handled = 0

    def settle(self) -> None:
        """Wait until every request that has arrived is answered, also those of a client that is gone."""
        quiet = 0
        while quiet < 20:
            time.sleep(0.02)
            with self.lock:
                quiet = quiet + 1 if self._handled == sum(self.requests.values()) else 0

    @contextmanager
    def running(self, port: int = 0) -> Iterator[str]:
        """The base URL, while the server runs; at any free port where none is given."""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                owner.handle(self)

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True

        server = Server(("127.0.0.1", port), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            server.server_close()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers["Content-Length"])
        content = request.rfile.read(length)
        if len(content) < length:  # the client was killed while it was sending: there is no request
            request.close_connection = True
            return
        try:
            self._handle(request, json.loads(content))
        finally:
            with self.lock:
                self._handled += 1

    def _handle(self, request: BaseHTTPRequestHandler, body: dict) -> None:
        prompt = body["messages"][-1]["content"]
        with self.lock:
            attempt = self.requests[prompt]
            self.requests[prompt] += 1
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            self.times.append(time.monotonic())
        fault = self.fault(prompt, attempt)
        if self.latency_s:
            time.sleep(self.latency_s)
        status, payload, headers = 200, self._completion(prompt, body), {}
        error = {"error": {"message": fault, "type": fault, "code": fault}}
        if fault == "429":
            status, payload, headers = 429, error, {"Retry-After": "0.3"}
        elif fault == "quota":
            status, payload = 429, {"error": {"message": "no credit", "code": "insufficient_quota"}}
        elif fault == "500":
            status, payload = 500, error
        elif fault == "refused":
            status, payload = 400, error
        elif fault == "unknown_key":
            status, payload = 401, error
        elif fault == "slow":
            time.sleep(2.0)
        elif fault == "no_choices":
            payload["choices"] = []
        elif fault == "no_text":
            payload["choices"][0]["message"]["content"] = None
        elif fault == "no_logprobs":
            payload["choices"][0].pop("logprobs")
        elif fault == "filtered":
            payload["choices"][0] |= {
                "finish_reason": "content_filter",
                "message": {"role": "assistant", "content": ""},
            }
        data = b"<html>bad gateway</html>" if fault == "not_json" else json.dumps(payload).encode()
        if (raw := self.raw(prompt, attempt)) is not None:
            status, data, headers = raw
        elif fault is None:
            with self.lock:
                self.answered[prompt] += 1
        try:
            request.send_response(status)
            if "Content-Type" not in headers:
                request.send_header("Content-Type", "application/json")
            request.send_header("Content-Length", str(len(data) + (50 if fault == "cut" else 0)))
            for name, value in headers.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(data)
            if fault == "cut":
                request.close_connection = True
        except OSError:
            pass  # the client has given up waiting

    def _completion(self, prompt: str, body: dict) -> dict:
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": self.text(prompt)},
        }
        if body.get("logprobs"):
            top: Sequence[dict] = [{"token": "m", "logprob": -0.25}, {"token": "M", "logprob": -1.5}]
            choice["logprobs"] = {"content": [{"token": "m", "logprob": -0.25, "top_logprobs": top}]}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": self.model,
            "choices": [choice],
            "usage": usage,
        }
