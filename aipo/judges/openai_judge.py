"""A judge behind any endpoint with the OpenAI protocol. No paid verdict is lost, none is asked for twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aipo.judges.attempts import Attempts, BadReply, Fatal
from aipo.judges.endpoints import Endpoint, Price
from aipo.judges.judge import JudgeError
from aipo.records import Chat, JudgeReply

if TYPE_CHECKING:
    from openai import OpenAI


@dataclass(frozen=True)
class OpenAIJudge:
    """Chat completions of `model`. Rate limits, server errors, time-outs and broken replies are tried again."""

    model: str
    endpoint: Endpoint
    name: str
    """In tables."""
    max_concurrent: int = 16
    """Requests under way at once."""
    timeout_s: float = 120.0
    """Of one attempt."""
    max_attempts: int = 10
    """For one verdict."""
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    max_requests: int | None = None
    """The budget of a judging stage, attempts included. None: no limit."""
    price: Price | None = None
    """For the estimate of plan=true alone."""
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The protocol's name of the reply's limit; OpenAI's reasoning models take the second one only."""

    def __post_init__(self) -> None:
        for name in ("max_concurrent", "timeout_s", "max_attempts"):
            if getattr(self, name) <= 0:
                raise ValueError(f"judge.{name}: expected a positive number, got {getattr(self, name)}")
        if self.max_requests is not None and self.max_requests < 1:
            raise ValueError(f"judge.max_requests: expected 1 or more, or null for no limit, got {self.max_requests}")
        if self.token_limit not in ("max_tokens", "max_completion_tokens"):
            raise ValueError(
                f"judge.token_limit: expected max_tokens or max_completion_tokens, got {self.token_limit!r}"
            )

    def identity(self) -> dict[str, str]:
        """The model that is asked for, and where."""
        return {"name": self.name, "model": self.model, "endpoint": self.endpoint.identity()}

    def missing(self) -> list[str]:
        """A key that is not in the environment."""
        return self.endpoint.missing()

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """One reply per chat. JudgeError when one is given up; `reply_each` keeps those that arrived."""
        replies: dict[int, JudgeReply] = {}
        self.reply_each(
            chats, replies.__setitem__, max_tokens=max_tokens, temperature=temperature, top_logprobs=top_logprobs
        )
        return [replies[position] for position in range(len(chats))]

    def reply_each(
        self,
        chats: Sequence[Chat],
        keep: Callable[[int, JudgeReply], Any],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_logprobs: int = 0,
    ) -> None:
        """Call `keep(position, reply)` in this thread for each reply as it arrives.

        JudgeError at the end when some were given up, at once when none can succeed; all others were kept before.
        """
        from tqdm import tqdm

        client = self.endpoint.connect(self.timeout_s)
        attempts = Attempts(self.max_attempts, self.first_wait_s, self.longest_wait_s, self.max_requests)
        settings: dict[str, Any] = {self.token_limit: max_tokens, "temperature": temperature}
        if top_logprobs:
            settings |= {"logprobs": True, "top_logprobs": top_logprobs}
        lost: list[JudgeError] = []
        pool = ThreadPoolExecutor(self.max_concurrent)
        try:
            futures = {
                pool.submit(attempts.call, lambda chat=chat: self._ask(client, chat, settings)): position
                for position, chat in enumerate(chats)
            }
            bar = tqdm(as_completed(futures), total=len(futures), desc=f"judge {self.name}", delay=5, leave=False)
            for future in bar:
                try:
                    keep(futures[future], future.result())
                except JudgeError as error:
                    lost.append(error)
        finally:
            attempts.stopped.set()
            pool.shutdown(cancel_futures=True)
            client.close()
        if lost:
            first = next((error for error in lost if isinstance(error, Fatal)), lost[0])
            raise JudgeError(
                f"{self.name} ({self.model} at {self.endpoint.identity()}): {len(lost)} of {len(chats)} requests have "
                f"no reply; {len(chats) - len(lost)} are kept and will not be asked again. {first}"
            )

    def _ask(self, client: OpenAI, chat: Chat, settings: dict[str, Any]) -> JudgeReply:
        messages: Any = [{"role": message.role, "content": message.content} for message in chat]
        completion = client.chat.completions.create(model=self.model, messages=messages, **settings)
        choices = getattr(completion, "choices", None)
        if not choices:
            raise BadReply(f"a reply without choices: {str(completion)[:200]}")
        choice = choices[0]
        if choice.finish_reason == "content_filter":
            raise JudgeError(f"the endpoint's content filter withholds the reply to {chat[-1].content[:80]!r}")
        if choice.message is None or choice.message.content is None:
            raise BadReply(f"a choice without text: {str(choice)[:200]}")
        logprobs = None
        if "logprobs" in settings:
            if choice.logprobs is None or not choice.logprobs.content:
                raise Fatal(
                    "log-probabilities were asked for, and the endpoint returned none; use one that returns them, or a "
                    "benchmark that reads text: alpaca_eval_text in place of alpaca_eval"
                )
            logprobs = {token.token: token.logprob for token in choice.logprobs.content[0].top_logprobs}
        return JudgeReply(choice.message.content, logprobs, completion.model)
