"""The base model that comes with the package, so that every machine starts from the same bits.

`weights/base.safetensors` was trained by `conf/model/miniature.yaml`; `weights/base.json` says with which settings and
where. Trained again on another kind of CPU, the same settings give other last bits, after 2,600 steps other weights.
`python -m aipo.miniature` trains and writes both files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aipo.miniature.tokenizer import vocabulary

if TYPE_CHECKING:
    from aipo.models.policy import PolicyRef

FOLDER = Path(__file__).with_name("weights")


class ShippedWeightsError(RuntimeError):
    """The weights of the package are not those that its description names."""


@dataclass(frozen=True)
class ShippedWeights:
    """What `base.json` says."""

    settings: Mapping[str, Any]
    """The fields of the `MiniatureModel` that these weights are, `retrain` apart."""
    sha256: str
    """Of `base.safetensors`."""
    vocabulary_sha256: str
    """Of the tokens, in order, that the rows of the embedding stand for."""
    counts: Mapping[str, float | int]
    """Of the training run."""
    trained_on: Mapping[str, str]
    """torch release, CPU and the vector instructions that torch used."""

    def tensors(self) -> dict[str, Any]:
        """The weights by name. ShippedWeightsError where the file or the vocabulary is another."""
        from safetensors.torch import load

        content = (FOLDER / "base.safetensors").read_bytes()
        for what, expected, actual in (
            (f"{FOLDER / 'base.safetensors'}", self.sha256, sha256(content).hexdigest()),
            ("the miniature's vocabulary", self.vocabulary_sha256, vocabulary_sha256()),
        ):
            if expected != actual:
                raise ShippedWeightsError(
                    f"{what}: expected SHA-256 {expected}, got {actual}; install the package again, or train the base "
                    "model on this machine with model.retrain=true"
                )
        return load(content)


def shipped_weights() -> ShippedWeights:
    """The description of the weights."""
    return ShippedWeights(**json.loads((FOLDER / "base.json").read_text(encoding="utf-8")))


def knows_world(model: PolicyRef) -> bool:
    """Whether a model's tokenizer is the miniature's, as that of a policy trained in it is. False for a hub model."""
    try:
        tokenizer = json.loads((Path(model.path) / "tokenizer.json").read_text(encoding="utf-8"))
        return set(tokenizer["model"]["vocab"]) == set(vocabulary())
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def vocabulary_sha256() -> str:
    """A hash of the miniature's tokens in the order of their ids."""
    return sha256("\n".join(vocabulary()).encode()).hexdigest()
