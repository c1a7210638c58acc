"""The miniature's prompt pool, with offline responses of mixed origin and ratings, as UltraFeedback has them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from aipo.miniature.corpus import Writer
from aipo.miniature.gold import gold_quality
from aipo.miniature.world import WORLD_VERSION, count_words, draw_prompt
from aipo.rankers.noise import content_noise
from aipo.records import Example, Message, Prompt

ORIGINS: tuple[Writer, ...] = (
    Writer(omitted=0.05, wrong=0.05, filler=0.1, unasked=0.05, long_form=0.0),
    Writer(omitted=0.05, wrong=0.1, filler=0.7, unasked=0.3, long_form=0.5),
    Writer(),
    Writer(omitted=0.4, wrong=0.4, filler=0.3, unasked=0.2),
)
"""Who wrote the offline responses: a terse expert, a talkative one, the base model's like, a careless one."""


@dataclass(frozen=True)
class MiniatureSource:
    """`n_prompts` different prompts of the pool's side of the split, each with one response of every origin.

    A rating lies in [1, 10]: gold quality, plus a liking for length and noise in gold points, as people's ratings have.
    """

    n_prompts: int
    rating_length_bias_per_token: float
    rating_noise_sd: float
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.n_prompts <= 20_000:
            raise ValueError(f"MiniatureSource.n_prompts must be in 1..20000, got {self.n_prompts}")
        if self.rating_noise_sd < 0:
            raise ValueError(f"MiniatureSource.rating_noise_sd must be at least 0, got {self.rating_noise_sd}")

    is_world: ClassVar[bool] = True
    brings_responses: ClassVar[bool] = True
    brings_ratings: ClassVar[bool] = True
    responses_per_prompt: ClassVar[int] = len(ORIGINS)

    def identity(self) -> Mapping[str, str]:
        """The content follows from the settings alone; `world` counts changes of the world's texts."""
        return {"world": WORLD_VERSION}

    def pool_size(self) -> int:
        """As many as asked for."""
        return self.n_prompts

    def load(self) -> tuple[list[Example], dict[str, int]]:
        """The pool in a fixed order, and how many drawn prompts were dropped as repetitions."""
        rng = random.Random(f"pool {self.seed}")
        examples: list[Example] = []
        seen: set[str] = set()
        repeated = 0
        while len(examples) < self.n_prompts:
            request, text = draw_prompt(rng, held_out=False)
            if text in seen:
                repeated += 1
                continue
            seen.add(text)
            prompt = Prompt(f"pool-{len(examples):05d}", (Message("user", text),), "pool")
            responses = tuple(writer.write(rng, request) for writer in ORIGINS)
            ratings = tuple(self._rate(prompt, response) for response in responses)
            examples.append(Example(prompt, responses, ratings))
        return examples, {"repeated": repeated}

    def _rate(self, prompt: Prompt, response: str) -> float:
        quality = gold_quality(prompt.chat, response) + self.rating_length_bias_per_token * count_words(response)
        quality += self.rating_noise_sd * content_noise(prompt.chat[0].content, response, "rating", seed=self.seed)
        return round(1 + 4.5 * (max(-1.0, min(1.0, quality)) + 1), 1)
