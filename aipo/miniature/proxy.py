"""The proxy ranker: gold quality seen through noise and a liking for length, as PairRM and people's ratings have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aipo.miniature.gold import gold_quality
from aipo.miniature.world import WORLD_VERSION, count_words
from aipo.rankers.noise import NoisyRater, content_noise
from aipo.records import Chat


@dataclass(frozen=True)
class ProxyRanker(NoisyRater):
    """score = gold + length_bias_per_token * tokens + noise_sd * z, with z fixed by prompt, completion and seed."""

    length_bias_per_token: float
    """Gold points that one more token is worth; 0 sees no length."""
    noise_sd: float
    """Standard deviation of the noise, in gold points."""
    seed: int = 0
    name: str = "proxy"

    gives_win_probability: ClassVar[bool] = True
    scores_alone: ClassVar[bool] = True
    needs_world: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.noise_sd < 0:
            raise ValueError(f"ProxyRanker.noise_sd must be at least 0, got {self.noise_sd}")

    def identity(self) -> dict[str, str]:
        """The truth it sees follows from the world's code."""
        return {"world": WORLD_VERSION}

    def score(self, prompt: Chat, completion: str) -> float:
        """This ranker's score of one completion."""
        noise = content_noise(*(message.content for message in prompt), completion, seed=self.seed)
        length = self.length_bias_per_token * count_words(completion)
        return gold_quality(prompt, completion) + length + self.noise_sd * noise
