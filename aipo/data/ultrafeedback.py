"""UltraFeedback (Cui et al. 2023, arXiv 2310.01377) through the `datasets` package: binarized or full."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from aipo.components import missing_package
from aipo.data.conversations import RowError, example_from_row
from aipo.data.local import SourceError
from aipo.records import Chat, Example

logger = logging.getLogger("aipo")
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
HUB_TIMEOUT_S = 10.0
MALFORMED_SHARE = 0.01
"""More malformed rows than this are no blemish of the data set: it is another one."""


@dataclass(frozen=True)
class UltraFeedbackBinarized:
    """HuggingFaceH4/ultrafeedback_binarized: a prompt, the best-rated response and one of the others, both rated 1-10.

    The pool of the official code. `prompt_id` is the data set's own.
    """

    path: str
    """A hub id, or a folder in the same layout."""
    revision: str | None
    """The commit of a hub id; required there."""
    split: str = "train_prefs"

    def missing(self) -> list[str]:
        """The package, the pinned revision, the data."""
        return missing_dataset(self.path, self.revision)

    is_world: ClassVar[bool] = False
    brings_responses: ClassVar[bool] = True
    brings_ratings: ClassVar[bool] = True
    responses_per_prompt: ClassVar[int] = 2

    def identity(self) -> Mapping[str, str]:
        """A hash of a local folder."""
        return folder_identity(self.path)

    def pool_size(self) -> None:
        """Known once the data set is here."""
        return None

    def load(self) -> tuple[list[Example], dict[str, int]]:
        """All rows; repeated prompts and malformed rows are dropped and counted."""
        return examples_of(self.path, self.revision, self.split, self._row)

    @staticmethod
    def _row(row: Mapping[str, Any]) -> dict[str, Any]:
        # A conversation is the prompt and one answer; its own copy of the prompt may differ in white space.
        answers = {side: row[side][-1:] for side in ("chosen", "rejected")}
        ratings = {key: row[key] for key in ("score_chosen", "score_rejected")}
        return {"prompt": row["prompt"], "prompt_id": row["prompt_id"], **answers, **ratings}


@dataclass(frozen=True)
class UltraFeedback:
    """openbmb/UltraFeedback: a prompt and up to four rated completions. The official code ranks these with PairRM.

    A completion without a rating has the rating NaN: it takes no part where the ratings are the ranking.
    """

    path: str
    """A hub id, or a folder in the same layout."""
    revision: str | None
    """The commit of a hub id; required there."""
    rating: Literal["overall_score", "fine-grained_score"] = "overall_score"
    split: str = "train"

    def __post_init__(self) -> None:
        if self.rating not in ("overall_score", "fine-grained_score"):
            raise ValueError(f"data.source.rating must be overall_score or fine-grained_score, got {self.rating!r}")

    def missing(self) -> list[str]:
        """The package, the pinned revision, the data."""
        return missing_dataset(self.path, self.revision)

    is_world: ClassVar[bool] = False
    brings_responses: ClassVar[bool] = True
    brings_ratings: ClassVar[bool] = True
    responses_per_prompt: ClassVar[int] = 4

    def identity(self) -> Mapping[str, str]:
        """A hash of a local folder."""
        return folder_identity(self.path)

    def pool_size(self) -> None:
        """Known once the data set is here."""
        return None

    def load(self) -> tuple[list[Example], dict[str, int]]:
        """All rows; repeated prompts and malformed rows are dropped and counted."""
        return examples_of(self.path, self.revision, self.split, self._row)

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        completions = row["completions"] or []
        ratings = [completion.get(self.rating) for completion in completions]
        return {
            "prompt": row["instruction"],
            "responses": [completion["response"] for completion in completions],
            "scores": [None if rating is None or math.isnan(rating) else rating for rating in ratings],
        }


def examples_of(path: str, revision: str | None, split: str, convert: Any) -> tuple[list[Example], dict[str, int]]:
    """The examples of a data set's split, each row brought to the conversational format by `convert`.

    SourceError when more than a hundredth of the rows are malformed.
    """
    examples: list[Example] = []
    chats: set[Chat] = set()
    dropped = {"repeated": 0, "malformed": 0}
    first = ""
    for number, row in enumerate(_rows(path, revision, split)):
        try:
            example = example_from_row(convert(row))
        except (RowError, KeyError, TypeError, AttributeError) as error:
            dropped["malformed"] += 1
            found = f"no column {error}" if isinstance(error, KeyError) else str(error)
            first = first or f"{path}, split {split}, row {number}: {found}"
            continue
        if example.prompt.chat in chats:
            dropped["repeated"] += 1
            continue
        chats.add(example.prompt.chat)
        examples.append(example)
    if dropped["malformed"] > MALFORMED_SHARE * (len(examples) + sum(dropped.values())):
        raise SourceError(
            f"{first} ({dropped['malformed']} rows like it). The data set is not laid out as expected; check "
            "data.source.path and data.source.revision"
        )
    if first:
        logger.warning("source: %d malformed row(s) left out, the first: %s", dropped["malformed"], first)
    return examples, dropped


def missing_dataset(path: str, revision: str | None) -> list[str]:
    """What keeps a data set from being loaded. Asks the hub (10 s at most) for what is not here."""
    found = missing_package("datasets", "data")
    if Path(path).is_dir():
        return found
    if not HUB_ID.fullmatch(path):
        return [*found, f"data.source.path: no such folder, and no hub id: {path}"]
    if revision is None or not COMMIT.fullmatch(revision):
        return [*found, f"data.source.revision: expected the 40-digit commit of {path}, got {revision!r}"]
    if found or _is_cached(path, revision):
        return found
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(path, revision=revision, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # no network, offline mode, no such commit: the client's own errors vary by version
        return [
            f"data set {path} at {revision}: not in the local cache, and the hub does not give it "
            f"({type(error).__name__}); `hf download --repo-type dataset {path} --revision {revision}` where there is "
            "a network, and set data.source.path to the folder"
        ]
    return []


def folder_identity(path: str) -> dict[str, str]:
    """SHA-256 over a local folder's files and their names; nothing for a hub id, which its revision pins."""
    folder = Path(path)
    if not folder.is_dir():
        return {}
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return {"sha256": digest.hexdigest()}


def _is_cached(path: str, revision: str) -> bool:
    """Whether `datasets` has prepared this commit before."""
    root = os.environ.get("HF_DATASETS_CACHE") or Path(
        os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"), "datasets"
    )
    return any(Path(root).glob(f"{path.replace('/', '___')}/*/*/{revision}"))


def _rows(path: str, revision: str | None, split: str) -> Iterator[Mapping[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise SourceError(f"data.source {path} needs the package datasets: pip install -e '.[data]'") from error
    yield from load_dataset(path, revision=revision, split=split)
