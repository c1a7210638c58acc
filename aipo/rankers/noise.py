"""Rankers that see a known truth through noise. It depends on content alone: the same text always gets the same draw,
whatever the batch or the order."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from statistics import NormalDist

from aipo.records import Chat


def content_noise(*content: str, seed: int) -> float:
    """A standard normal draw fixed by `content` and `seed`."""
    digest = hashlib.sha256("\x1f".join((str(seed), *content)).encode()).digest()
    uniform = (int.from_bytes(digest[:8], "big") + 0.5) / 2**64
    return NormalDist().inv_cdf(min(uniform, 1 - 2**-53))


class NoisyRater(ABC):
    """Ranks by `score`, whose noise has the standard deviation `noise_sd`."""

    noise_sd: float

    @abstractmethod
    def score(self, prompt: Chat, completion: str) -> float:
        """This ranker's score of one completion, its noise included."""

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
