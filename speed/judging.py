"""How close concurrent judging comes to the ideal: `python speed/judging.py`.

A server on loopback answers each request after a fixed latency; the ideal time is that of full waves of concurrent
requests. Server and client share the machine, so the figure includes the server's own work.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aipo.judges.endpoints import OpenAIEndpoint
from aipo.judges.openai_judge import OpenAIJudge
from aipo.records import Message

SERVER = """
import asyncio, json, sys
latency, text = float(sys.argv[1]), sys.argv[2]
body = json.dumps({"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [{"index": 0,
    "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]}).encode()
reply = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body) + body

async def serve(reader, writer):
    try:
        while head := await reader.readuntil(b"\\r\\n\\r\\n"):
            lines = head.lower().split(b"\\r\\n")
            length = next((int(line.split(b":")[1]) for line in lines if b"content-length" in line), 0)
            await reader.readexactly(length)
            await asyncio.sleep(latency)
            writer.write(reply)
    except asyncio.IncompleteReadError:
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@contextmanager
def serving(latency_s: float, text: str) -> Iterator[str]:
    """The base URL of a server in a process of its own that answers every request with `text`, after a while."""
    command = [sys.executable, "-c", SERVER, str(latency_s), text]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
    finally:
        server.kill()
        server.wait()


def measure(items: int, concurrent: int, latency_s: float) -> dict[str, float]:
    """Seconds for `items` verdicts, and their ratio to the ideal."""
    with serving(latency_s, "m") as url:
        judge = OpenAIJudge("m", OpenAIEndpoint(url, None), "benchmark", max_concurrent=concurrent)
        chats = [(Message("user", f"item {number} " + "word " * 300),) for number in range(items)]
        judge.reply(chats[:1], max_tokens=1)  # imports
        start = time.perf_counter()
        judge.reply(chats, max_tokens=1)
        seconds = time.perf_counter() - start
    ideal = math.ceil(items / concurrent) * latency_s
    return {"items": items, "concurrent": concurrent, "seconds": seconds, "ideal_s": ideal, "ratio": seconds / ideal}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=805)
    parser.add_argument("--concurrent", type=int, default=32)
    parser.add_argument("--latency-s", type=float, default=0.2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for _ in range(arguments.repeats):
        print(json.dumps(measure(arguments.items, arguments.concurrent, arguments.latency_s)))


if __name__ == "__main__":
    main()
