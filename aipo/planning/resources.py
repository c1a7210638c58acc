"""What a job on a cluster asks for: the same from its start to its end, or by kind of stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["drawing", "training", "judging"]
"""Of stages, by what they work with. `drawing`: with the devices of one node, and all that needs none. `training`: with
all devices that the trainer was given. `judging`: with a judge's answers, and no device of the job's."""
STAGES: Mapping[str, Kind] = {
    **dict.fromkeys(("reference", "train"), "training"),
    **dict.fromkeys(("judgments",), "judging"),
    **dict.fromkeys(("base_model", "prompts", "candidates", "ranking", "average", "answers", "proxy", "kl"), "drawing"),
}
"""Those that care; pool, pairs and scores are made wherever the job is."""


@dataclass(frozen=True)
class Resources:
    """Settings of the cluster's launcher for some kinds of stage, instead of the job's own.

    With them a job is several jobs of the cluster, one after the other: one that meets a stage of another kind submits
    its successor and ends, so that devices without work are given back.
    """

    training: Mapping[str, Any] | None = None
    """None: training has what the job has."""
    judging: Mapping[str, Any] | None = None
    """None: so has judging. With settings, all else is done first, and judged in one piece at the end."""
    common_first: bool = False
    """Of a sweep: what several jobs need first is made by jobs of its own, and the others wait for those in the queue
    and not on their devices."""

    def settings(self, kind: Kind) -> Mapping[str, Any]:
        """What differs from the launcher's settings for stages of a kind."""
        return {"drawing": None, "training": self.training, "judging": self.judging}[kind] or {}

    def asked_by(self, stage: str) -> Kind | None:
        """The kind of stage whose settings hold for one; None: it may be made with any."""
        if (kind := STAGES.get(stage)) is None:
            return None
        return kind if kind == "drawing" or self.settings(kind) else "drawing"

    @property
    def differ(self) -> bool:
        """Whether a job is more than one job of the cluster."""
        return bool(self.training or self.judging)
