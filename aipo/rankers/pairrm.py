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
from typing import TYPE_CHECKING, ClassVar

from aipo.rankers.checkpoint import PairRMError, checkpoint_identity, missing_checkpoint
from aipo.rankers.pairrm_shape import backbone_shape
from aipo.rankers.ranker import Compared, Reading
from aipo.records import Chat
from aipo.terminal import bar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from aipo.rankers.pairrm_model import PairRMModel

MARKERS = ("<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>")
DTYPES = ("float32", "tfloat32", "bfloat16", "float16")


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
    """What the network computes in. tfloat32: float32 weights, multiplied as TF32 by a GPU that can, as float32 by
    everything else. The head computes in float32 in any case. How often ranks change: speed/RESULTS.md."""
    processes: int = 1
    """Processes that share the comparisons, each with the model on a device of its own; at most one per accelerator
    of this machine. What they find differs by nothing."""
    name: str = "pairrm"

    gives_win_probability: ClassVar[bool] = True
    scores_alone: ClassVar[bool] = False
    needs_world: ClassVar[bool] = False
    OPERATIONAL: ClassVar[tuple[str, ...]] = ("max_attention_cells", "processes")

    def __post_init__(self) -> None:
        least_of = {"source_max_tokens": 4, "candidate_max_tokens": 4, "max_attention_cells": 1, "processes": 1}
        for key, least in least_of.items():
            if getattr(self, key) < least:
                raise ValueError(f"ranker.{key} must be at least {least}, got {getattr(self, key)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"ranker.dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        self._loaded: tuple[PairRMModel, PreTrainedTokenizerBase] | None = None

    def missing(self) -> list[str]:
        """What the checkpoint lacks, one line each with its remedy."""
        return missing_checkpoint(self.path, self.revision)

    def identity(self) -> dict[str, str]:
        """A hash of a local folder; below float32, that the head is not rounded with the rest, as it once was."""
        head = {} if self.dtype == "float32" else {"head": "float32"}
        return checkpoint_identity(self.path, self.revision) | head

    def rank(self, prompts: Sequence[Chat], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """The mean of (M - M^T) over a candidate's row, M[i, j] the logit that i, put first, beats j.

        The scores of a prompt add up to 0. A single candidate scores 0.
        """
        return [list(found.scores) for found in self.compare(prompts, candidates)]

    def win_probabilities(self, prompts: Sequence[Chat], pairs: Sequence[tuple[str, str]]) -> list[float]:
        """sigmoid(M[0, 1] - M[1, 0]): both orders count, as in the package's `compare` by default.

        That sum of two logits is twice their mean, so the probability is surer than one order alone would be.
        """
        return [found.chances[0][1] for found in self.compare(prompts, pairs)]

    def compare(self, prompts: Sequence[Chat], candidates: Sequence[Sequence[str]]) -> list[Compared]:
        """Scores as of `rank` and, from the same comparisons, win probabilities of every candidate against every other.

        N (N - 1) comparisons for N candidates of different texts. Equal texts are even.
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

        found = []
        for number, texts in enumerate(candidates):
            places = [distinct[number].index(text) for text in texts]
            gaps = [[advantage(number, one, other) for other in places] for one in places]
            chances = tuple(tuple(0.5 * (1 + math.tanh(gap / 2)) for gap in row) for row in gaps)
            found.append(Compared(tuple(sum(row) / len(places) for row in gaps), chances))
        return found

    def reading(
        self, *, prompts: float, candidates: float, prompt_tokens: float, completion_tokens: float
    ) -> Reading | None:
        """Every candidate is read beside every other, in both orders, each row behind its prompt."""
        shape = backbone_shape(self.path)
        if shape is None:
            return None
        longest = self.source_max_tokens + 2 * self.candidate_max_tokens
        length = min(prompt_tokens + 2 * completion_tokens, longest)
        tokens = prompts * candidates * (candidates - 1) * length
        return Reading(tokens, tokens * shape.forward_flops(length), self.dtype, self.processes)

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
        from aipo.rankers.pairrm_processes import Task, logits_in_processes, useful_processes
        from aipo.rankers.pairrm_scoring import comparison_batches, comparison_logits, join

        tokenizer, marker_ids = self._tokenizer()
        encoded = self._encode(tokenizer, marker_ids, prompts, candidates)
        rows = [
            join(encoded[number][0], encoded[number][1][first], encoded[number][1][second], marker_ids[2])
            for number, first, second in comparisons
        ]
        batches = comparison_batches(rows, self.max_attention_cells)
        pad, processes = tokenizer.pad_token_id, useful_processes(self.processes, len(batches))
        if processes > 1:
            task = Task(self.path, self.revision, self.dtype, self.max_attention_cells, pad, processes)
            return logits_in_processes(task, rows)
        logits = [0.0] * len(rows)
        with bar(len(rows), "PairRM") as shown:
            for batch, values in comparison_logits(self._load()[0], pad, rows, batches, self.dtype):
                for place, value in zip(batch, values, strict=True):
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

    def _tokenizer(self) -> tuple[PreTrainedTokenizerBase, tuple[int, int, int]]:
        """The tokenizer, and the ids of the markers of prompt, first and second candidate that config.json tells."""
        if self._loaded is not None:
            return self._loaded[1], self._loaded[0].marker_ids
        from transformers import AutoTokenizer

        from aipo.rankers.pairrm_model import marker_ids, pairrm_config

        tokenizer = AutoTokenizer.from_pretrained(self.path, revision=self.revision)
        expected_ids = marker_ids(pairrm_config(self.path, self.revision))
        for marker, expected in zip(MARKERS, expected_ids, strict=False):
            found = tokenizer.convert_tokens_to_ids(marker)
            if found != expected:
                raise PairRMError(
                    f"{self.path}: expected {marker} to have the id {expected} of config.json, got {found}; "
                    "the tokenizer does not belong to the model"
                )
        return tokenizer, expected_ids

    def _load(self) -> tuple[PairRMModel, PreTrainedTokenizerBase]:
        if self._loaded is None:
            import torch

            from aipo.rankers.pairrm_model import load_pairrm
            from aipo.rankers.pairrm_scoring import weight_dtype

            tokenizer, _ = self._tokenizer()
            model = load_pairrm(self.path, self.revision, weight_dtype(self.dtype))
            self._loaded = model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer
        return self._loaded


def source_text(chat: Chat) -> str:
    """What PairRM reads as the prompt: a single user turn as it is; else a transcript with role names."""
    if len(chat) == 1:
        return chat[0].content
    return "\n".join(f"{message.role.upper()}: {message.content}" for message in chat)


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
