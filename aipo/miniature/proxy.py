"""The proxy ranker: gold quality seen through noise and a liking for length, as PairRM and people's ratings have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

from aipo.miniature.gold import gold_quality
from aipo.miniature.world import WORLD_VERSION, count_words
from aipo.rankers.noise import content_noise
from aipo.records import Chat


@dataclass(frozen=True)
class ProxyRanker:
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

    def rank(self, prompts: Sequence[Chat], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """One score per candidate; larger is better."""
        return [[self.score(prompt, text) for text in texts] for prompt, texts in zip(prompts, candidates, strict=True)]

    def win_probabilities(self, prompts: Sequence[Chat], pairs: Sequence[tuple[str, str]]) -> list[float]:
        """P(first beats second) for a rater with fresh noise on both sides: Phi(score gap / (sqrt(2) noise_sd)).

        Above one half exactly when `rank` puts the first above the second. Without noise 1, 0.5 or 0.
        """
        return [
            self._win_probability(self.score(prompt, first) - self.score(prompt, second))
            for prompt, (first, second) in zip(prompts, pairs, strict=True)
        ]

    def _win_probability(self, gap: float) -> float:
        if self.noise_sd == 0:
            return 0.5 if gap == 0 else float(gap > 0)
        return NormalDist(sigma=2**0.5 * self.noise_sd).cdf(gap)
