"""A server with vLLM's `/completions` that answers from arithmetic; as a program, it takes vLLM's place.

Completion `i` of a prompt is `[sum(prompt) + seed % 7 + i + step for each step]` modulo 10, plus 3, and a stop token.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def tokens(prompt: list[int], seed: int, index: int) -> list[int]:
    """The visible tokens of a completion."""
    return [3 + (sum(prompt) + seed % 7 + index + step) % 10 for step in range(2 + seed % 3)]


class StubServer:
    """`requests` collects bodies. The server closes itself after `die_after` answers, as if it had been killed."""

    def __init__(self, model: str, port: int = 0, die_after: int | None = None, delay_s: float = 0.0) -> None:
        self.model, self.die_after, self.delay_s = model, die_after, delay_s
        self.models_status = 200
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(owner.models_status, {"data": [{"id": owner.model}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with owner.lock:
                    if owner.die_after is not None and len(owner.requests) >= owner.die_after:
                        self.connection.close()
                        return
                    owner.requests.append(body)
                    owner.headers.append({name.lower(): value for name, value in self.headers.items()})
                time.sleep(owner.delay_s)
                self._send(*owner.answer(body))

            def _send(self, status: int, content: dict[str, Any]) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["model"] != self.model:
            return 404, {"error": {"message": f"The model {body['model']} does not exist."}}
        if len(body["prompt"]) > 50:
            return 400, {"error": {"message": "maximum context length is 50"}}
        choices = []
        for index in range(body["n"]):
            drawn = [*tokens(body["prompt"], body["seed"], index), body["stop_token_ids"][0]][: body["max_tokens"]]
            stopped = drawn[-1] in body["stop_token_ids"]
            choice = {"index": index, "token_ids": drawn, "text": "", "finish_reason": "stop" if stopped else "length"}
            choices.append(choice | {"logprobs": {"token_logprobs": [-0.5] * len(drawn)}})
        return 200, {"choices": choices[::-1]}

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


if __name__ == "__main__":
    assert sys.argv[1] == "serve"
    if os.environ.get("STUB_FAILS"):
        sys.exit("CUDA out of memory")
    settings = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=False))
    with Path(os.environ["STUB_STARTS"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"pid": os.getpid(), "arguments": sys.argv[2:]}) + "\n")
    server = StubServer(sys.argv[2], int(settings["--port"]))
    first_life = not Path(os.environ["STUB_STARTS"] + ".died").exists()
    if first_life and "STUB_DIES_AFTER" in os.environ:
        reply = server.answer

        def answer_or_die(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            if len(server.requests) > int(os.environ["STUB_DIES_AFTER"]):
                Path(os.environ["STUB_STARTS"] + ".died").touch()
                os._exit(9)
            return reply(body)

        server.answer = answer_or_die
    server.thread.join()
