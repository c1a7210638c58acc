"""A `vllm serve` process for one checkpoint, from an environment that the user names. vLLM is never imported here."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aipo.components import require_range
from aipo.models.policy import PolicyRef

logger = logging.getLogger("aipo")

_POLL_S = 0.5
_LEFT_AFTER_S = 5.0
"""So long a job that is told to end waits for a server that is still starting."""
_LOG_LINES = 20
MAX_RESTARTS = 3


class ServerError(RuntimeError):
    """vLLM does not start, or keeps dying."""


@dataclass
class VLLMServer:
    """Starts, watches and stops vLLM. Making this object starts nothing."""

    executable: str = "vllm"
    """The `vllm` program, the `python` beside it, or the folder of its environment."""
    arguments: Sequence[str] = ()
    """More arguments of `vllm serve`, such as `--tensor-parallel-size=8`. Those that are not known to leave completions
    as they are (`aipo.samplers.vllm_arguments`) are part of what an artifact is."""
    host: str = "127.0.0.1"
    port: int = 0
    """0: any free port."""
    start_timeout_s: float = 3600.0
    """Loading a large model takes long, downloading it longer."""
    log: str = "outputs/vllm.log"

    def __post_init__(self) -> None:
        if self.start_timeout_s <= 0:
            raise ValueError(f"sampler.server.start_timeout_s must be positive, got {self.start_timeout_s}")
        require_range("sampler.server", self, port=(0, 65535), start_timeout_s=(0, 10**7))
        self._process: subprocess.Popen[bytes] | None = None
        self._port = self.port
        self._starts = 0

    @property
    def base_url(self) -> str:
        """Where it listens, once started."""
        return f"http://{self.host}:{self._port}/v1"

    def missing(self) -> list[str]:
        """One line when there is no such program."""
        if self._program() is not None:
            return []
        return [
            f"vLLM: no program {self.executable!r}; install it in an environment of its own (pip install vllm) and "
            "set sampler.server.executable to that environment's folder"
        ]

    def command(self, policy: PolicyRef) -> list[str]:
        """The command line. vLLM's own defaults stand in for the model's generation config, as in our sampler."""
        program = self._program()
        if program is None:
            raise ServerError(self.missing()[0])
        command = [program, "serve", policy.path, "--host", self.host, "--port", str(self._port)]
        command += ["--dtype", policy.dtype, "--generation-config", "vllm"]
        command += ["--revision", policy.revision] if policy.revision is not None else []
        command += ["--trust-remote-code"] if policy.trust_remote_code else []
        return [*command, *self.arguments]

    def start(self, policy: PolicyRef, given_up: threading.Event | None = None) -> bool:
        """Have it running and healthy. True when it had to be started; one that keeps dying raises ServerError.

        So does one that is not healthy yet when `given_up` is set: a job that is told to end has no minutes to wait.
        """
        given_up = threading.Event() if given_up is None else given_up
        if self._process is not None and self._process.poll() is None:
            return False
        if given_up.is_set():
            raise ServerError("not started: nobody waits for it any more")
        if self._starts > MAX_RESTARTS:
            raise ServerError(f"vLLM died {self._starts} times; the end of {self.log}:\n{self._log_end()}")
        self.stop()  # what is left of one that died
        self._starts += 1
        self._port = self.port or _free_port(self.host)
        command = self.command(policy)
        Path(self.log).parent.mkdir(parents=True, exist_ok=True)
        logger.info("starting vLLM for %s (log: %s)", policy.path, self.log)
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "aipo.samplers.keeper", *command],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._wait_until_healthy(given_up)
        return True

    def stop(self, wait_s: float | None = None) -> None:
        """Ends the process and its children, and waits for that, at most `wait_s` (its keeper ends them in any case).

        Does nothing when it does not run.
        """
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait_s)

    def _wait_until_healthy(self, given_up: threading.Event) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while True:
            assert self._process is not None
            status = self._process.poll()
            if status is not None:
                raise ServerError(f"vLLM ended with status {status}; the end of {self.log}:\n{self._log_end()}")
            if _is_healthy(f"http://{self.host}:{self._port}/health"):
                return
            if time.monotonic() > deadline:
                self.stop()
                raise ServerError(
                    f"vLLM was not healthy after {self.start_timeout_s:.0f} s (sampler.server.start_timeout_s); the "
                    f"end of {self.log}:\n{self._log_end()}"
                )
            if given_up.wait(_POLL_S):
                self.stop(_LEFT_AFTER_S)
                raise ServerError("stopped while it was starting: nobody waits for it any more")

    def _program(self) -> str | None:
        path = Path(self.executable).expanduser()
        if path.is_dir():
            candidates = [path / "bin" / "vllm", path / "vllm"]
        elif path.name.startswith("python"):
            candidates = [path.parent / "vllm"]
        else:
            return shutil.which(str(path))
        return next((str(file) for file in candidates if os.access(file, os.X_OK)), None)

    def _log_end(self) -> str:
        lines = Path(self.log).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status == 200
    except (OSError, urllib.error.URLError):
        return False


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
