"""Groups of similar prompts, so that Self-Instruct draws its demonstrations from every region of the pool alike.

The official code has this off by default (`clustering: false`): k-means over TF-IDF or sentence embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from aipo.components import missing_package, needs_of, require_range
from aipo.data.ultrafeedback import folder_identity


class Embedding(Protocol):
    """Texts as vectors."""

    def vectors(self, texts: Sequence[str]) -> Any:
        """(texts, dimensions), dense or sparse, as scikit-learn takes it."""
        ...


@runtime_checkable
class FileEmbedding(Embedding, Protocol):
    """An embedding that may come from files of this machine."""

    def identity(self) -> Mapping[str, str]:
        """Hashes of them; empty where its settings pin it."""
        ...


@dataclass(frozen=True)
class TfidfEmbedding:
    """Words weighted by how rare they are in the pool; English stop words are left out."""

    def vectors(self, texts: Sequence[str]) -> Any:
        """A sparse (texts, words) matrix. ValueError where no text has a word that is not a stop word."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(stop_words="english").fit_transform(texts)


@dataclass(frozen=True)
class SentenceEmbedding:
    """A sentence-transformers model; needs the extra `embed`."""

    path: str
    """A hub id, which `revision` pins, or a folder, which its content does."""
    revision: str | None
    batch_size: int = 64

    def __post_init__(self) -> None:
        require_range("self_instruct.clusters.embedding", self, batch_size=(1, 10**5))

    def missing(self) -> list[str]:
        """The package."""
        return missing_package("sentence_transformers", "embed")

    def identity(self) -> Mapping[str, str]:
        """A hash of a local folder."""
        return folder_identity(self.path)

    def vectors(self, texts: Sequence[str]) -> Any:
        """A dense (texts, dimensions) array."""
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(self.path, revision=self.revision)
        return model.encode(list(texts), batch_size=self.batch_size, convert_to_numpy=True)


@dataclass(frozen=True)
class KMeansClusters:
    """k-means over an embedding."""

    embedding: Embedding
    n_clusters: int = 128
    max_iterations: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_clusters", "max_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"self_instruct.clusters.{name} must be at least 1, got {getattr(self, name)}")

    def missing(self) -> list[str]:
        """What the embedding misses."""
        return needs_of(self.embedding)

    def identity(self) -> Mapping[str, str]:
        """The embedding's."""
        return self.embedding.identity() if isinstance(self.embedding, FileEmbedding) else {}

    def groups(self, texts: Sequence[str]) -> list[list[str]]:
        """The texts in at most `n_clusters` groups, none empty, each in the texts' order. ValueError for too few."""
        from sklearn.cluster import KMeans

        if len(texts) < self.n_clusters:
            raise ValueError(
                f"expected at least as many single-turn pool prompts as self_instruct.clusters.n_clusters="
                f"{self.n_clusters}, got {len(texts)}; lower n_clusters"
            )
        model = KMeans(self.n_clusters, n_init="auto", max_iter=self.max_iterations, random_state=self.seed)
        labels = model.fit_predict(self.embedding.vectors(texts))
        groups: dict[int, list[str]] = {}
        for label, text in zip(labels.tolist(), texts, strict=True):
            groups.setdefault(label, []).append(text)
        return [groups[label] for label in sorted(groups)]
