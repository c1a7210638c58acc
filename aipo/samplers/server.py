"""Sampling through a server that speaks the OpenAI protocol, started by the user or, for vLLM, by this process.

Every answered request is written down at once, so a run that was interrupted asks only for what is missing. While the
server is down, requests wait and are sent again.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from aipo.components import require_range
from aipo.models.policy import PolicyRef
from aipo.models.tokens import plain_token_ids, prompt_token_ids, room_for_answers, stop_token_ids
from aipo.records import Chat, Completion, Decoding, from_row, to_row
from aipo.remote import Attempts, EndpointError, GivenUp, Journal, RetryPolicy, redact
from aipo.remote.attempts import describe
from aipo.remote.probe import hush_transport, probe
from aipo.remote.redaction import keep_secret, require_no_key
from aipo.samplers.protocols import Draw, ReplyError, Request, ServerProtocol
from aipo.samplers.vllm_arguments import drawing_arguments
from aipo.samplers.vllm_server import VLLMServer
from aipo.terminal import bar

LONGEST_PAUSE_S = 15.0
MAX_ATTEMPTS = 5
"""How often one request may end in status 500: a server that is down gives another status, or none."""


class SamplingError(RuntimeError):
    """A server refuses a request, or stays away for too long."""


@dataclass
class ServerSampler:
    """Samples through a server. Exactly one of `base_url` and `server` is given.

    With the same seed a request is the same request; whether the answer is, is up to the server. The key, where the
    server wants one, comes from the environment variable that `key_variable` names.
    """

    policy: PolicyRef
    protocol: ServerProtocol
    base_url: str | None = None
    """Of a server that the user runs, up to and with `/v1`. Each round has another policy: see docs of the protocol."""
    server: VLLMServer | None = None
    """Started with the policy's checkpoint at the first request, stopped when this sampler is no longer used."""
    concurrency: int = 64
    """Requests under way at once."""
    resume_folder: str | None = None
    """Where answered requests are kept. It may be deleted whenever no run is at work. null: nothing is kept."""
    max_wait_s: float = 1800.0
    """How long one request waits for a server that is down."""
    request_timeout_s: float = 3600.0
    retry_s: float = 2.0
    """The first pause before a request is sent again; it doubles up to 15 s."""
    key_variable: str = "AIPO_SERVER_KEY"

    OPERATIONAL: ClassVar[tuple[str, ...]] = (
        *("base_url", "server", "concurrency", "resume_folder", "max_wait_s", "request_timeout_s", "retry_s"),
        "key_variable",
    )

    @staticmethod
    def shaping(node: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a vLLM that this process starts, where they may change what is drawn."""
        arguments = drawing_arguments((node.get("server") or {}).get("arguments") or ())
        return {"server": {"arguments": arguments}} if arguments else {}

    def __post_init__(self) -> None:
        if (self.base_url is None) == (self.server is None):
            raise ValueError("sampler: expected either base_url or server, got both or none")
        for name in ("concurrency", "max_wait_s", "request_timeout_s", "retry_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"sampler.{name} must be positive, got {getattr(self, name)}")
        require_range("sampler", self, concurrency=(1, 10**4), max_wait_s=(0, 10**7), request_timeout_s=(0, 10**7))
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"sampler.base_url: expected a URL with http:// or https://, got {self.base_url!r}")
        if Path(self.policy.path).is_dir():  # a server may have been started in another folder
            self.policy = replace(self.policy, path=str(Path(self.policy.path).absolute()))
        self._loaded: tuple[Any, frozenset[int]] | None = None
        self._connected: Any = None
        self._starting = threading.Lock()
        keep_secret(self.key_variable)
        if self.base_url is not None:
            require_no_key("sampler.base_url", self.base_url)
        if self.server is not None:
            weakref.finalize(self, self.server.stop)

    @property
    def notes_logps(self) -> bool:
        """As the protocol."""
        return self.protocol.notes_logps

    @property
    def takes_top_k(self) -> bool:
        """As the protocol."""
        return self.protocol.takes_top_k

    def missing(self) -> list[str]:
        """A server that does not answer, or a vLLM that is not installed."""
        if self.server is not None:
            return self.server.missing()
        return probe(self._client(), "server", self._url(), self.key_variable, "start it, or set sampler.base_url")

    def sample(self, chats: Sequence[Chat], decoding: Decoding, *, n: int, seed: int) -> list[list[Completion]]:
        """`n` completions per chat, in order."""
        tokenizer, _ = self._load()
        prompts = [prompt_token_ids(tokenizer, chat) for chat in chats]
        return self._run(prompts, decoding, n, seed, (), lambda i, draw: self.protocol.chat(chats[i], prompts[i], draw))

    def complete(
        self, texts: Sequence[str], decoding: Decoding, *, n: int, seed: int, stop: Sequence[str] = ()
    ) -> list[list[Completion]]:
        """`n` continuations of each text, in order, cut before the first of `stop`."""
        tokenizer, _ = self._load()
        prompts = [plain_token_ids(tokenizer, text) for text in texts]
        return self._run(
            prompts, decoding, n, seed, tuple(stop), lambda i, draw: self.protocol.text(texts[i], prompts[i], draw)
        )

    def _run(
        self,
        prompts: Sequence[tuple[int, ...]],
        decoding: Decoding,
        n: int,
        seed: int,
        stop: tuple[str, ...],
        build: Callable[[int, Draw], Request],
    ) -> list[list[Completion]]:
        tokenizer, stop_ids = self._load()
        lengths = [len(prompt) for prompt in prompts]
        room = room_for_answers(lengths, self.policy.context_tokens(), decoding.max_new_tokens, self.policy.path)
        each = n if self.protocol.takes_n else 1
        seen: Counter[tuple[int, ...]] = Counter()
        items: list[tuple[Request, Draw]] = []
        for index, prompt in enumerate(prompts):
            for _ in range(n // each):
                drawn = _request_seed(seed, prompt, seen[prompt])
                seen[prompt] += 1
                fitting = replace(decoding, max_new_tokens=room[index])
                draw = Draw(self.policy.path, fitting, each, drawn, stop, stop_ids)
                items.append((build(index, draw), draw))
        journal = self._journal(decoding, n, seed, stop)
        answered = _answered(journal)
        attempts = Attempts(self._patience(), f"{self._url()} for {self.policy.path}")

        def answer(item: tuple[Request, Draw]) -> list[Completion]:
            request, draw = item
            key = _digest(request._asdict())
            if key in answered:
                return answered[key]
            ask = partial(self._post, request, attempts.stopped)
            completions = attempts.call(lambda: self._completions(ask(), draw, tokenizer))
            if journal is not None:
                journal.append({"key": key, "completions": to_row(completions)})
            return completions

        pool = ThreadPoolExecutor(self.concurrency)
        try:
            flat: list[Completion] = []
            with bar(len(items), "sampling") as shown:
                for completions in pool.map(answer, items):
                    flat += completions
                    shown.update()
        except GivenUp as error:
            raise error.last if isinstance(error.last, ReplyError) else self._error(error) from error
        except EndpointError as error:
            raise self._error(attempts.fatal or error) from error
        finally:
            attempts.stop()
            pool.shutdown(cancel_futures=True)
        return [flat[start : start + n] for start in range(0, len(flat), n)]

    def _completions(self, reply: Any, draw: Draw, tokenizer: Any) -> list[Completion]:
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or len(choices) != draw.n:
            raise ReplyError(f"expected {draw.n} choice(s) in the server's reply, got {str(reply)[:300]}")
        try:
            ordered = sorted(choices, key=lambda choice: choice.get("index", 0))
            return [self.protocol.read(choice, tokenizer, draw) for choice in ordered]
        except (AttributeError, KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
            raise ReplyError(
                f"expected {draw.n} choice(s) as the protocol has them, got {str(choices)[:300]} "
                f"({type(error).__name__}: {str(error)[:80]})"
            ) from error

    def _post(self, request: Request, given_up: threading.Event) -> Any:
        """The reply to one request, sent once."""
        client = self._client(given_up)
        try:
            return client.post(request.path, cast_to=object, body=request.body)
        except (ValueError, RecursionError) as error:  # the transport's, for a body that is no JSON
            raise ReplyError(f"expected JSON in the server's reply ({describe(error)})") from error

    def _patience(self) -> RetryPolicy:
        return RetryPolicy(
            max_attempts=MAX_ATTEMPTS,
            max_outage_s=self.max_wait_s,
            first_wait_s=self.retry_s,
            longest_wait_s=LONGEST_PAUSE_S,
            min_failures=1,
            tell_after_s=0.0,
            awaits_server=True,
        )

    def _error(self, error: Exception) -> SamplingError:
        return SamplingError(redact(f"{self._url()} for {self.policy.path}: {error}"))

    def _client(self, given_up: threading.Event | None = None) -> Any:
        import openai

        with self._starting:
            if self.server is not None and self.server.start(self.policy, given_up):
                self._connected = None
            if self._connected is None:
                hush_transport()
                key = os.environ.get(self.key_variable) or "none"
                self._connected = openai.OpenAI(
                    base_url=self._url(), api_key=key, max_retries=0, timeout=self.request_timeout_s
                )
            return self._connected

    def _url(self) -> str:
        found = self.base_url if self.server is None else self.server.base_url
        assert found is not None
        return found

    def _load(self) -> tuple[Any, frozenset[int]]:
        if self._loaded is None:
            tokenizer = self.policy.load_tokenizer()
            self._loaded = tokenizer, stop_token_ids(tokenizer, self.policy.load_generation_config())
        return self._loaded

    def _journal(self, decoding: Decoding, n: int, seed: int, stop: tuple[str, ...]) -> Journal | None:
        if self.resume_folder is None:
            return None
        folder = Path(self.policy.path)
        weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weights]
        policy = [str(folder.resolve()) if weights else self.policy.path, self.policy.revision, files]
        drawn = [policy, repr(decoding), n, seed, stop]
        if self.server is not None:  # which is told the number format
            drawn.append([self.policy.dtype, *drawing_arguments(self.server.arguments)])
        return Journal(Path(self.resume_folder) / _digest(drawn))


def _answered(journal: Journal | None) -> dict[str, list[Completion]]:
    """The completions of every request that was answered before, by its key."""
    rows = () if journal is None else journal.rows()
    return {row["key"]: [from_row(Completion, item) for item in row["completions"]] for row in rows}


def _request_seed(seed: int, prompt: tuple[int, ...], number: int) -> int:
    """31 bits of its own for each request, whatever the order and the number of prompts."""
    return int(_digest([seed, prompt, number])[:8], 16) >> 1


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
