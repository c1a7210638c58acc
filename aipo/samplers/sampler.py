"""Samplers: prompts in, completions out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from aipo.records import Chat, Completion, Decoding


class Sampler(Protocol):
    """Draws completions from one policy. Results come in input order, `n` for each prompt, reproducible by `seed`."""

    @property
    def notes_logps(self) -> bool:
        """True when every completion comes with its log-prob (`Completion.logp`)."""
        ...

    @property
    def takes_top_k(self) -> bool:
        """False where `Decoding.top_k` must be 0."""
        ...

    def sample(self, chats: Sequence[Chat], decoding: Decoding, *, n: int, seed: int) -> list[list[Completion]]:
        """Chat completions: each chat goes through the policy's chat template."""
        ...

    def complete(
        self, texts: Sequence[str], decoding: Decoding, *, n: int, seed: int, stop: Sequence[str] = ()
    ) -> list[list[Completion]]:
        """Plain continuations of raw text, without a chat template, cut before the first of `stop` (Self-Instruct)."""
        ...


@runtime_checkable
class KeepingSampler(Sampler, Protocol):
    """A sampler that can write its completions down while it works."""

    def keeping(self, folder: Path) -> Sampler:
        """The same sampler, which keeps what it has drawn in `folder` and draws none of it twice.

        What comes out has the same bytes as without. The folder belongs to one policy.
        """
        ...
