"""The size of PairRM's backbone, from which the cost of a comparison follows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

PUBLISHED = "llm-blender/PairRM-hf"


@dataclass(frozen=True)
class BackboneShape:
    """A DeBERTa-v2 by the names of its config.json."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    position_buckets: int

    def forward_flops(self, tokens: float) -> float:
        """FLOPs of one token in a row of `tokens`: matrices, attention, and its two terms of relative positions."""
        width = self.hidden_size
        matrices = 4 * width**2 + 2 * width * self.intermediate_size
        # Contents with contents, probabilities with values; then contents with 2 x buckets positions, twice.
        attention = 2 * tokens * width + 4 * self.position_buckets * width
        return 2 * self.num_hidden_layers * (matrices + attention)


def backbone_shape(path: str) -> BackboneShape | None:
    """Of a local folder, or of the published checkpoint (deberta-v3-large); None for what is not here."""
    if path == PUBLISHED:
        return BackboneShape(24, 1024, 4096, 256)
    config = Path(path) / "config.json"
    if not config.is_file():
        return None
    values = json.loads(config.read_text(encoding="utf-8"))
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "position_buckets")
    return BackboneShape(*(int(values[name]) for name in names)) if all(name in values for name in names) else None
