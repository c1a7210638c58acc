"""A Hugging Face model in this process as judge. Log-probs are read from its logits, so it serves every annotator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from aipo.judges.budget import Budget
from aipo.judges.judge import Clerk, Receipt
from aipo.models.policy import PolicyRef
from aipo.models.tokens import prompt_token_ids
from aipo.records import Chat, Decoding, JudgeReply
from aipo.samplers.hf import HFSampler


@dataclass(frozen=True)
class LocalJudge:
    """Replies of `model` through its own chat template."""

    model: PolicyRef
    name: str
    seed: int = 0
    """Of replies at a temperature above 0."""
    cache_tokens: int = 65536
    """Of the sampler: rows x (prompt + new tokens) of a batch."""
    asks_per_verdict: int = 1
    """How often, in all, one request is asked whose reply gives no verdict; greedy decoding answers the same again."""
    _sampler: list[HFSampler] = field(default_factory=list, init=False, repr=False, compare=False)
    _identity: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Hashed once: whole weights are read for it."""

    needs_world: ClassVar[bool] = False
    answers_any_chat: ClassVar[bool] = True
    keeps_replies: ClassVar[bool] = True
    budget: ClassVar[Budget] = Budget()

    def identity(self) -> dict[str, str]:
        """The content of a local folder, wherever it lies; the id and commit of a hub model; and how it is read."""
        if not self._identity:
            model = self.model.identity() or {"model": self.model.path, "revision": str(self.model.revision)}
            settings = {"name": self.name, "dtype": self.model.dtype, "seed": str(self.seed)}
            if self.model.chat_template is not None:
                settings["chat_template"] = self.model.chat_template
            self._identity.update(model | settings)
        return dict(self._identity)

    def missing(self) -> list[str]:
        """What the model lacks."""
        return self.model.missing()

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """One reply per chat; `top_logprobs` of the first token are those at temperature 1."""
        decoding = Decoding(temperature=temperature, top_p=1.0, top_k=0, max_new_tokens=max_tokens)
        sampler = self._loaded()
        completions = sampler.sample(list(chats), decoding, n=1, seed=self.seed)
        logprobs = self._top_logprobs(chats, top_logprobs) if top_logprobs else [None] * len(chats)
        return [
            JudgeReply(group[0].text, top, self._answered()) for group, top in zip(completions, logprobs, strict=True)
        ]

    def reply_each(
        self, chats: Sequence[Chat], clerk: Clerk, *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> None:
        """Replies in groups of 32 prompts, each kept before the next is computed."""
        for start in range(0, len(chats), 32):
            group = [number for number in range(start, min(start + 32, len(chats))) if clerk.claim(number)]
            try:
                replies = self.reply(
                    [chats[number] for number in group],
                    max_tokens=max_tokens,
                    temperature=temperature,
                    top_logprobs=top_logprobs,
                )
                for number, reply in zip(group, replies, strict=True):
                    clerk.spend()
                    clerk.keep(number, reply, Receipt())
            finally:
                for number in group:
                    clerk.release(number)

    def _answered(self) -> str:
        """Who answered, as a reply says it: the same for everybody who has these weights."""
        known = self.identity()
        return f"sha256 {known['sha256'][:12]}" if "sha256" in known else self.model.path

    def _loaded(self) -> HFSampler:
        if not self._sampler:
            self._sampler.append(HFSampler(self.model, self.cache_tokens))
        return self._sampler[0]

    def _top_logprobs(self, chats: Sequence[Chat], top: int) -> list[dict[str, float]]:
        import torch

        model, tokenizer = self._loaded().loaded()
        found = []
        with torch.inference_mode():
            for chat in chats:
                ids = torch.tensor([prompt_token_ids(tokenizer, chat)], device=model.device)
                logprobs = model(input_ids=ids, logits_to_keep=1).logits[0, -1].float().log_softmax(-1)
                values, tokens = logprobs.topk(min(top, len(logprobs)))
                texts = [tokenizer.decode([token]) for token in tokens.tolist()]
                # Two tokens may read alike (with and without a leading space marker): the likelier one comes first.
                found.append(dict(reversed(list(zip(texts, values.tolist(), strict=True)))))
        return found
