"""Runs a server for as long as another process lives: `python -m aipo.samplers.keeper COMMAND...`, stdin being a pipe.

The pipe closes when its owner closes it or dies, however it dies; then the server and its children are ended, so that
they do not keep the devices. So are the children of a server that died by itself. Exits with the server's status.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE_S = 30.0


def keep(command: list[str]) -> None:
    """Run `command` until it ends or stdin closes."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_follow, args=(server,), daemon=True).start()
    sys.stdin.buffer.read()
    os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _follow(server: subprocess.Popen[bytes]) -> None:
    """End with the server, and its children before that: an engine outlives the process that answers requests."""
    status = server.wait()
    with contextlib.suppress(ProcessLookupError):  # nobody is left of its group
        os.killpg(server.pid, signal.SIGKILL)
    os._exit(status % 256)


if __name__ == "__main__":
    keep(sys.argv[1:])
