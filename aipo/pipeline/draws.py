"""What a run draws by chance: a seed for each purpose, and each round's own prompts."""

from __future__ import annotations

import hashlib
import random

from aipo.records import Prompt


def derived_seed(seed: int, purpose: str, iteration: int) -> int:
    """A seed of its own for each purpose and round, so that no two stages draw the same noise."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}/{iteration}".encode()).digest()[:4], "big")


def slice_of_pool(pool: list[Prompt], wanted: int | None, seed: int, iteration: int) -> list[Prompt]:
    """The round's own slice of the pool in one seeded order: no prompt is used twice before all were used once.

    With `wanted` None it is the whole pool.
    """
    wanted = len(pool) if wanted is None else wanted
    if wanted > len(pool):
        raise ValueError(f"iteration.prompts={wanted} asks for more than the pool's {len(pool)}; lower it")
    order = list(range(len(pool)))
    random.Random(seed).shuffle(order)
    start = iteration * wanted
    return [pool[order[(start + offset) % len(pool)]] for offset in range(wanted)]
