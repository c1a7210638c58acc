"""What is known of each kind of stage beforehand: its version, whose weights it loads, what of a place is hashed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from aipo.components import content_of
from aipo.pipeline.run import Run

VERSIONS: Mapping[str, int] = {
    "base_model": 1,
    "pool": 1,
    "prompts": 1,
    "candidates": 1,
    "ranking": 1,
    "pairs": 1,
    "reference": 1,
    "train": 1,
    "average": 1,
    "answers": 1,
    "judgments": 1,
    "scores": 2,
    "proxy": 1,
    "kl": 1,
}
"""Raise a stage's number when its code makes other content from equal settings: stale artifacts are then never met."""

LOADED: Mapping[str, tuple[str, ...]] = {
    "prompts": ("policy/model",),  # by Self-Instruct
    "candidates": ("policy/model",),
    "reference": ("policy",),  # with its masters
    "train": ("policy",),
    "average": ("average", "policy"),
    "answers": ("policy/model",),
    "kl": ("policy/model", "base/model", "previous/model"),
}
"""The parents, or folders of them, whose every byte is compared before a stage works: weights decide all that follows,
and are too large to be hashed at every other use. Small files and data are."""


DRAWS = ("prompts", "candidates", "answers", "kl")
"""Stages that draw from a policy, some of them only with certain settings."""
BESIDE_A_SERVER = ("prompts", "candidates", "answers", "judgments", "scores")
"""Stages that leave the devices to a server which holds the policy; before any other one it is stopped."""


def ranker_content(run: Run) -> dict[str, Any]:
    """What of the ranker shapes its scores."""
    identity = dict(run.ranker.identity())
    return {"ranker": without_place(content_of(run.content["ranker"]), identity), "identity": identity}


def self_instruct_content(run: Run) -> dict[str, Any]:
    """What of Self-Instruct shapes its prompts. An identity only where a file of this machine is among it."""
    identity = {} if run.recipe.self_instruct is None else dict(run.recipe.self_instruct.identity())
    settings = without_place(run.content["data"]["self_instruct"], identity)
    return {"self_instruct": settings} | ({"identity": identity} if identity else {})


def without_place(settings: Mapping[str, Any], identity: Mapping[str, str]) -> dict[str, Any]:
    """A component's settings without the paths of files and folders that are here: what they hold counts, which
    `identity` pins, not where they lie. So users who keep the same files elsewhere share artifacts."""
    found = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            value = without_place(value, identity)
        if not (key == "path" and identity and isinstance(value, str) and os.path.exists(value)):
            found[key] = value
    return found
