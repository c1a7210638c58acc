"""PairRM: a DeBERTa that reads a prompt and two candidates side by side and says which is better.

After Jiang et al. 2023 (LLM-Blender, arXiv 2306.02561) and the published checkpoint `llm-blender/PairRM-hf`; the
llm-blender package itself is not needed. Departures from that package:

- every comparison has its own length budget, from its own prompt alone (the package cuts all candidates of a batch to
  the shortest budget in it, so batch size changes its ranks). This is the published `tokenize_pair` recipe;
- candidates with equal text are compared once and get equal scores;
- the names of the marker tokens become spaces in text, as the package does for `[SEP]` alone (it cannot read them);
- a chat of several turns is written out as a transcript with role names: the package has a wording of its own for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from aipo.rankers.batches import length_batches, padded
from aipo.rankers.checkpoint import PairRMError, checkpoint_identity, missing_checkpoint
from aipo.records import Chat
from aipo.terminal import bar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKERS = ("<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>")
DTYPES = ("float32", "bfloat16", "float16")


class Comparison(NamedTuple):
    """One row for the model: its ids, and where the markers of prompt, first and second candidate are."""

    ids: tuple[int, ...]
    markers: tuple[int, int, int]


@dataclass
class PairRM:
    """Ranks by all ordered comparisons. The model is loaded at the first call, onto the accelerator where there is one.

    What shares a batch changes a score by rounding alone.
    """

    path: str
    """A folder in the layout of `llm-blender/PairRM-hf`, or a hub id."""
    revision: str | None = None
    """The commit of a hub id; required there."""
    source_max_tokens: int = 1224
    """Of the prompt, with its three control tokens. What is longer loses its end."""
    candidate_max_tokens: int = 412
    """Of each candidate, likewise; each gets half of what the prompt leaves of `source_max_tokens` on top."""
    max_attention_cells: int = 2**25
    """Bounds a batch: rows x length x length."""
    dtype: str = "float32"
    name: str = "pairrm"

    gives_win_probability: ClassVar[bool] = True
    scores_alone: ClassVar[bool] = False
    needs_world: ClassVar[bool] = False
    OPERATIONAL: ClassVar[tuple[str, ...]] = ("max_attention_cells",)

    def __post_init__(self) -> None:
        for key, least in (("source_max_tokens", 4), ("candidate_max_tokens", 4), ("max_attention_cells", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"ranker.{key} must be at least {least}, got {getattr(self, key)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"ranker.dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        self._loaded: tuple[Any, PreTrainedTokenizerBase] | None = None

    def missing(self) -> list[str]:
        """What the checkpoint lacks, one line each with its remedy."""
        return missing_checkpoint(self.path, self.revision)

    def identity(self) -> dict[str, str]:
        """A hash of a local folder."""
        return checkpoint_identity(self.path, self.revision)

    def rank(self, prompts: Sequence[Chat], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """The mean of (M - M^T) over a candidate's row, M[i, j] the logit that i, put first, beats j.

        The scores of a prompt add up to 0. A single candidate scores 0.
        """
        distinct = [list(dict.fromkeys(texts)) for texts in candidates]
        comparisons = [
            (number, first, second)
            for number, texts in enumerate(distinct)
            for first, second in itertools.permutations(range(len(texts)), 2)
        ]
        logits = dict(zip(comparisons, self._logits(prompts, distinct, comparisons), strict=True))

        def advantage(number: int, first: int, second: int) -> float:
            return 0.0 if first == second else logits[number, first, second] - logits[number, second, first]

        scores = []
        for number, texts in enumerate(candidates):
            places = [distinct[number].index(text) for text in texts]
            scores.append([sum(advantage(number, one, other) for other in places) / len(places) for one in places])
        return scores

    def win_probabilities(self, prompts: Sequence[Chat], pairs: Sequence[tuple[str, str]]) -> list[float]:
        """sigmoid(M[0, 1] - M[1, 0]): both orders count, as in the package's `compare` by default.

        That sum of two logits is twice their mean, so the probability is surer than one order alone would be.
        """
        # With two candidates a score is half of that difference, so the gap between the two scores is all of it.
        return [0.5 * (1 + math.tanh((first - second) / 2)) for first, second in self.rank(prompts, pairs)]

    def _logits(
        self,
        prompts: Sequence[Chat],
        candidates: Sequence[Sequence[str]],
        comparisons: Sequence[tuple[int, int, int]],
    ) -> list[float]:
        """The logit of each (prompt, first, second), in order."""
        if len(prompts) != len(candidates):
            raise ValueError(f"expected candidates for each of {len(prompts)} prompts, got {len(candidates)}")
        if not comparisons:
            return []
        import torch

        model, tokenizer = self._load()
        encoded = self._encode(tokenizer, model.marker_ids, prompts, candidates)
        rows = [
            join(encoded[number][0], encoded[number][1][first], encoded[number][1][second], model.marker_ids[2])
            for number, first, second in comparisons
        ]
        logits = [0.0] * len(rows)
        with torch.inference_mode(), bar(len(rows), "PairRM") as shown:
            for batch in length_batches([len(row.ids) for row in rows], self._rows_for):
                ids, mask = padded([rows[place].ids for place in batch], tokenizer.pad_token_id, model.device)
                markers = torch.tensor([rows[place].markers for place in batch], device=model.device)
                values = model(ids, mask, markers)
                for place, value in zip(batch, values.tolist(), strict=True):
                    logits[place] = value
                shown.update(len(batch))
        return logits

    def _encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        marker_ids: tuple[int, int, int],
        prompts: Sequence[Chat],
        candidates: Sequence[Sequence[str]],
    ) -> list[tuple[list[int], list[list[int]]]]:
        """Ids of each prompt, and of each of its candidates as the first candidate, within the prompt's budget."""
        encoded = []
        for chat, texts in zip(prompts, candidates, strict=True):
            source = _segment(tokenizer, MARKERS[0], source_text(chat), self.source_max_tokens, marker_ids[0])
            budget = self.candidate_max_tokens + (self.source_max_tokens - len(source)) // 2
            encoded.append((source, [_segment(tokenizer, MARKERS[1], text, budget, marker_ids[1]) for text in texts]))
        return encoded

    def _rows_for(self, length: int) -> int:
        return self.max_attention_cells // length**2

    def _load(self) -> tuple[Any, PreTrainedTokenizerBase]:
        if self._loaded is None:
            import torch
            from transformers import AutoTokenizer

            from aipo.rankers.pairrm_model import load_pairrm

            tokenizer = AutoTokenizer.from_pretrained(self.path, revision=self.revision)
            model = load_pairrm(self.path, self.revision, getattr(torch, self.dtype))
            for marker, expected in zip(MARKERS, model.marker_ids, strict=False):
                found = tokenizer.convert_tokens_to_ids(marker)
                if found != expected:
                    raise PairRMError(
                        f"{self.path}: expected {marker} to have the id {expected} of config.json, got {found}; "
                        "the tokenizer does not belong to the model"
                    )
            self._loaded = model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer
        return self._loaded


def source_text(chat: Chat) -> str:
    """What PairRM reads as the prompt: a single user turn as it is; else a transcript with role names."""
    if len(chat) == 1:
        return chat[0].content
    return "\n".join(f"{message.role.upper()}: {message.content}" for message in chat)


def join(source: Sequence[int], first: Sequence[int], second: Sequence[int], second_marker: int) -> Comparison:
    """`[CLS] <|source|> s [SEP] [CLS] <|candidate1|> a [SEP] [CLS] <|candidate2|> b [SEP]`.

    `second` comes with the marker of a first candidate.
    """
    ids = (*source, *first, second[0], second_marker, *second[2:])
    return Comparison(ids, (1, len(source) + 1, len(source) + len(first) + 1))


def _segment(tokenizer: PreTrainedTokenizerBase, marker: str, text: str, limit: int, marker_id: int) -> list[int]:
    for name in (tokenizer.sep_token, *MARKERS):
        text = text.replace(name, " ")
    ids = tokenizer(marker + text, truncation=True, max_length=limit)["input_ids"]
    if ids[1] != marker_id or ids[0] != tokenizer.cls_token_id or ids[-1] != tokenizer.sep_token_id:
        raise PairRMError(
            f"{tokenizer.name_or_path}: expected {tokenizer.cls_token} {marker} ... {tokenizer.sep_token}, got "
            f"{tokenizer.convert_ids_to_tokens(ids)[:4]}; the tokenizer is not PairRM's"
        )
    return ids
