"""A ranker's own model: a Hugging Face folder or a pinned hub id."""

from __future__ import annotations

from aipo.models.policy import PolicyRef


class PairRMError(RuntimeError):
    """A checkpoint is not a PairRM."""


def missing_checkpoint(path: str, revision: str | None) -> list[str]:
    """What the checkpoint lacks, as `PolicyRef.missing_files` finds it for policies, in the ranker's own key names."""
    renamed = (("model.path", "ranker.path"), ("model.revision", "ranker.revision"))
    lines = PolicyRef(path, revision).missing_files()
    for old, new in renamed:
        lines = [line.replace(old, new) for line in lines]
    return [f"ranker: {line}" for line in lines]


def checkpoint_identity(path: str, revision: str | None) -> dict[str, str]:
    """A hash of a local folder's weights and tokenizer; a hub id is pinned by its revision alone."""
    return PolicyRef(path, revision).identity()
