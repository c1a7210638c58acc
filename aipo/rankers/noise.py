"""Noise that depends on content alone: the same text always gets the same draw, whatever the batch or the order."""

from __future__ import annotations

import hashlib
from statistics import NormalDist


def content_noise(*content: str, seed: int) -> float:
    """A standard normal draw fixed by `content` and `seed`."""
    digest = hashlib.sha256("\x1f".join((str(seed), *content)).encode()).digest()
    uniform = (int.from_bytes(digest[:8], "big") + 0.5) / 2**64
    return NormalDist().inv_cdf(min(uniform, 1 - 2**-53))
