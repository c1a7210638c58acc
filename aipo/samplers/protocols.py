"""What different servers take and give back over the OpenAI protocol. A request holds every setting explicitly."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from aipo.models.tokens import completion_from_text, end_of_turn_id
from aipo.records import Chat, Completion, Decoding
from aipo.remote import BadReply

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ReplyError(BadReply):
    """A server's reply is not what its protocol promises."""


class Request(NamedTuple):
    """One HTTP request: the path below the base URL, and the JSON body."""

    path: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Draw:
    """What is asked of a server for one prompt."""

    model: str
    decoding: Decoding
    n: int
    seed: int
    stop: tuple[str, ...]
    stop_ids: frozenset[int]


class ServerProtocol(Protocol):
    """One dialect. `takes_n`: a request may ask for several completions; else each gets a request of its own."""

    @property
    def takes_n(self) -> bool: ...

    @property
    def takes_top_k(self) -> bool:
        """False where `Decoding.top_k` must be 0."""
        ...

    @property
    def notes_logps(self) -> bool:
        """True when completions come with their log-probs."""
        ...

    def chat(self, chat: Chat, prompt_ids: tuple[int, ...], draw: Draw) -> Request:
        """The request for the next turn of a chat; `prompt_ids` is the chat through the policy's own template."""
        ...

    def text(self, text: str, prompt_ids: tuple[int, ...], draw: Draw) -> Request:
        """The request for a continuation of plain text."""
        ...

    def read(self, choice: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, draw: Draw) -> Completion:
        """One completion of the reply. Raises ReplyError when it lacks what the protocol promises."""
        ...


@dataclass(frozen=True)
class VLLM:
    """Token ids in, token ids out: vLLM's `/completions` (0.10.2 or later, for `return_token_ids`).

    `logprobs`: also ask for each token's log-prob; vLLM's default is that of the unfiltered distribution at T = 1.
    """

    logprobs: bool = False

    takes_n: ClassVar[bool] = True
    takes_top_k: ClassVar[bool] = True

    @property
    def notes_logps(self) -> bool:
        """Where they are asked for."""
        return self.logprobs

    def chat(self, chat: Chat, prompt_ids: tuple[int, ...], draw: Draw) -> Request:
        """The prompt as ids: no template of the server takes part."""
        return self.text("", prompt_ids, draw)

    def text(self, text: str, prompt_ids: tuple[int, ...], draw: Draw) -> Request:
        """The text as ids."""
        body = {
            "model": draw.model,
            "prompt": list(prompt_ids),
            "n": draw.n,
            "seed": draw.seed,
            "max_tokens": draw.decoding.max_new_tokens,
            "temperature": draw.decoding.temperature,
            "top_p": draw.decoding.top_p,
            "top_k": draw.decoding.top_k or -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": sorted(draw.stop_ids),
            "return_token_ids": True,
        }
        if draw.stop:
            body["stop"] = list(draw.stop)
        if self.logprobs:
            body["logprobs"] = 0
        return Request("/completions", body)

    def read(self, choice: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, draw: Draw) -> Completion:
        """Exactly the sampled ids."""
        finish = _finish(choice)
        ids = choice.get("token_ids")
        if not isinstance(ids, list):
            raise ReplyError(
                "the server's reply has no token_ids: vLLM sends them from 0.10.2 on; others need sampler=server"
            )
        if not all(isinstance(token, int) and 0 <= token < 2**31 for token in ids):
            raise ReplyError(f"expected token ids, got {str(ids)[:200]}")
        ended = bool(ids) and ids[-1] in draw.stop_ids
        visible = ids[:-1] if ended else ids
        logp = float(sum(choice["logprobs"]["token_logprobs"])) if self.logprobs else None
        if logp is not None and not math.isfinite(logp):
            raise ReplyError(f"expected log-probs of the tokens, got {str(choice['logprobs'])[:200]}")
        if draw.stop:
            return Completion(_text(choice), tuple(ids), finish, logp)
        if finish == "stop" and not ended:
            ids, logp = [*ids, end_of_turn_id(tokenizer)], None
        text = tokenizer.decode(visible, skip_special_tokens=True)
        return Completion(text, tuple(ids), "stop" if ended else finish, logp)


@dataclass(frozen=True)
class ChatMessages:
    """Any OpenAI-compatible server: messages in, text out. Ids are those of the text, by the policy's tokenizer.

    The server applies its own chat template. `takes_top_k`: it knows this parameter, which OpenAI's protocol lacks.
    """

    takes_n: bool = True
    takes_top_k: bool = False

    notes_logps: ClassVar[bool] = False

    def chat(self, chat: Chat, prompt_ids: tuple[int, ...], draw: Draw) -> Request:
        """The messages themselves."""
        return Request("/chat/completions", {"messages": _messages(chat), **self._settings(draw)})

    def text(self, text: str, prompt_ids: tuple[int, ...], draw: Draw) -> Request:
        """The text itself."""
        return Request("/completions", {"prompt": text, **self._settings(draw)})

    def read(self, choice: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, draw: Draw) -> Completion:
        """The text, tokenized."""
        return completion_from_text(tokenizer, _text(choice), _finish(choice))

    def _settings(self, draw: Draw) -> dict[str, Any]:
        decoding = draw.decoding
        if decoding.top_k and not self.takes_top_k:
            raise ValueError(
                f"decoding.top_k={decoding.top_k}, which this server is not known to take; set it to 0, or "
                "sampler.protocol.takes_top_k=true where it is"
            )
        settings = {
            "model": draw.model,
            "seed": draw.seed,
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
        }
        settings |= {"n": draw.n} if self.takes_n else {}
        settings |= {"top_k": decoding.top_k} if self.takes_top_k else {}
        settings |= {"stop": list(draw.stop)} if draw.stop else {}
        return settings


@dataclass(frozen=True)
class TransformersServe:
    """`transformers serve`: as `ChatMessages`, with a whole generation config, one completion a request.

    It loads the model that a request names, so the policy of the next round needs no restart. Stop strings it cannot
    take (5.23 answers with status 500): texts are cut here.
    """

    takes_n: ClassVar[bool] = False
    takes_top_k: ClassVar[bool] = True
    notes_logps: ClassVar[bool] = False

    def chat(self, chat: Chat, prompt_ids: tuple[int, ...], draw: Draw) -> Request:
        """The messages themselves."""
        return Request("/chat/completions", {"messages": _messages(chat), **self._settings(draw)})

    def text(self, text: str, prompt_ids: tuple[int, ...], draw: Draw) -> Request:
        """The text itself."""
        return Request("/completions", {"prompt": text, **self._settings(draw)})

    def read(self, choice: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, draw: Draw) -> Completion:
        """The text, tokenized; cut before a stop string."""
        text = _text(choice)
        cuts = [text.index(stop) for stop in draw.stop if stop in text]
        if cuts:
            return completion_from_text(tokenizer, text[: min(cuts)], "stop")
        return completion_from_text(tokenizer, text, _finish(choice))

    def _settings(self, draw: Draw) -> dict[str, Any]:
        decoding = draw.decoding
        config: dict[str, Any] = {
            "max_new_tokens": decoding.max_new_tokens,
            "eos_token_id": sorted(draw.stop_ids),
            "pad_token_id": min(draw.stop_ids),
            "do_sample": decoding.temperature > 0,
        }
        if decoding.temperature > 0:
            config |= {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": decoding.top_k}
        return {"model": draw.model, "seed": draw.seed, "generation_config": json.dumps(config)}


def _messages(chat: Chat) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in chat]


def _text(choice: Mapping[str, Any]) -> str:
    text = choice["text"] if "text" in choice else choice["message"].get("content") or ""
    if not isinstance(text, str):
        raise ReplyError(f"expected text in the server's reply, got {str(text)[:200]}")
    text.encode("utf-8")  # a lone surrogate is no text: UnicodeEncodeError, a ValueError
    return text


def _finish(choice: Mapping[str, Any]) -> Literal["stop", "length"]:
    reason = choice.get("finish_reason")
    if reason not in ("stop", "length"):
        raise ReplyError(f"expected the finish reason stop or length, got {reason!r}")
    return reason
