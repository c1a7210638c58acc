"""Counts by tiktoken's cl100k_base, whose encoding is one of the official assets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aipo.benchmarks.official.assets import AssetCache, cl100k_asset, load_cl100k
from aipo.records import Completion


@dataclass(frozen=True)
class Cl100kTokens:
    """tiktoken's cl100k_base, Arena-Hard's `token_len`. Needs the encoding in the asset cache."""

    cache: AssetCache | None = None
    """None: the default folder."""

    metric = "mean_tokens_cl100k"

    def missing(self) -> list[str]:
        """The encoding, where it is not in the cache."""
        cache = self.cache or AssetCache()
        if not cache.missing([cl100k_asset()]):
            return []
        return [
            f"tokenizer cl100k_base in {cache.folder}: fetch it with `python -m aipo.benchmarks assets arena_hard`, or "
            "count with token_counter._target_=aipo.benchmarks.EstimatedTokens"
        ]

    def count(self, completions: Sequence[Completion]) -> list[int]:
        """Tokens of each completion; special tokens inside an answer are counted as the text they are."""
        encoding = load_cl100k(self.cache or AssetCache())
        return [len(encoding.encode(completion.text, disallowed_special=())) for completion in completions]
