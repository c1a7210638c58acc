"""How long the length-controlled win rate of many models takes: python speed/lc_win_rate.py [models].

Synthetic preferences of AlpacaEval's size: 805 items and 1610 gamed rows. One core; OMP_NUM_THREADS=1 is advised.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from aipo.stats import length_controlled

N_ITEMS = 805


def main(n_models: int) -> None:
    """Print seconds for `n_models` models, without and with an interval of 200 refits each."""
    generator = np.random.default_rng(0)
    difficulty = generator.normal(size=N_ITEMS)
    gamed = generator.random(2 * N_ITEMS), generator.normal(size=2 * N_ITEMS), np.tile(difficulty, 2)
    baseline_chars = generator.integers(100, 4000, size=N_ITEMS)
    models = []
    for _ in range(n_models):
        chars = np.maximum(baseline_chars + generator.normal(-200, 600, size=N_ITEMS), 0)
        logits = generator.normal() + difficulty + (chars - baseline_chars) / 600 + generator.normal(size=N_ITEMS)
        models.append((1 / (1 + np.exp(-3 * logits)), chars))
    for rounds in (0, 200):
        start = time.perf_counter()
        for preferences, chars in models:
            length_controlled(
                preferences, chars, baseline_chars, difficulty=difficulty, gamed=gamed, bootstrap_rounds=rounds
            )
        print(f"{n_models} models, {rounds} refits each for the interval: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
