"""Any sequence-classification reward model: one number for a chat that ends with the candidate."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aipo.models.shape import shape_of_folder
from aipo.models.tokens import chat_template
from aipo.rankers.batches import length_batches, padded
from aipo.rankers.checkpoint import checkpoint_identity, missing_checkpoint
from aipo.rankers.ranker import Reading
from aipo.records import Chat
from aipo.terminal import bar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger("aipo")
DTYPES = ("float32", "bfloat16", "float16")


class RewardModelError(RuntimeError):
    """A checkpoint is not a reward model with one output, or has no chat template."""


@dataclass
class RewardModel:
    """Scores with `AutoModelForSequenceClassification`, loaded at the first call, onto an accelerator if there is one.

    A chat is written by the tokenizer's own chat template, with the BOS that the template writes. What shares a
    batch changes a score by rounding alone. Names of control tokens in what people or models wrote become spaces.
    """

    path: str
    """A folder or a hub id, with safetensors."""
    revision: str | None = None
    """The commit of a hub id; required there."""
    max_tokens: int = 4096
    """Of the whole chat. A longer one loses its end, and how many did is logged."""
    max_batch_tokens: int = 16384
    """Bounds a batch: rows x length."""
    bradley_terry: bool = True
    """The model was trained so that P(first beats second) = sigmoid(score gap). False: it gives no probability."""
    dtype: str = "float32"
    """bfloat16 halves the memory, but rounds scores into ties, and the batch decides how."""
    name: str = "reward_model"

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("max_batch_tokens",)

    scores_alone: ClassVar[bool] = True
    needs_world: ClassVar[bool] = False

    @property
    def gives_win_probability(self) -> bool:
        """Only a Bradley-Terry model does."""
        return self.bradley_terry

    def __post_init__(self) -> None:
        for key in ("max_tokens", "max_batch_tokens"):
            if getattr(self, key) < 1:
                raise ValueError(f"ranker.{key} must be at least 1, got {getattr(self, key)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"ranker.dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        self._loaded: tuple[Any, PreTrainedTokenizerBase] | None = None
        self._has_pad = True

    def missing(self) -> list[str]:
        """What the checkpoint lacks, one line each with its remedy."""
        return missing_checkpoint(self.path, self.revision)

    def identity(self) -> dict[str, str]:
        """A hash of a local folder."""
        return checkpoint_identity(self.path, self.revision)

    def reading(
        self, *, prompts: float, candidates: float, prompt_tokens: float, completion_tokens: float
    ) -> Reading | None:
        """Every candidate is read once behind its prompt, on one device. None for a model that is not here."""
        if not (Path(self.path) / "config.json").is_file():
            return None
        try:
            shape = shape_of_folder(Path(self.path))
        except KeyError:  # not a decoder of this kind
            return None
        length = min(prompt_tokens + completion_tokens, self.max_tokens)
        tokens = prompts * candidates * length
        return Reading(tokens, tokens * shape.forward_flops(length, head=False), self.dtype, 1)

    def rank(self, prompts: Sequence[Chat], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """The model's output for every candidate. Equal texts are read once and get equal scores."""
        asked = dict.fromkeys((chat, text) for chat, texts in zip(prompts, candidates, strict=True) for text in texts)
        scores = dict(zip(asked, self._scores(list(asked)), strict=True))
        return [[scores[chat, text] for text in texts] for chat, texts in zip(prompts, candidates, strict=True)]

    def win_probabilities(self, prompts: Sequence[Chat], pairs: Sequence[tuple[str, str]]) -> list[float] | None:
        """sigmoid of the score gap for a Bradley-Terry model, else None."""
        if not self.bradley_terry:
            return None
        return [0.5 * (1 + math.tanh((first - second) / 2)) for first, second in self.rank(prompts, pairs)]

    def _scores(self, asked: Sequence[tuple[Chat, str]]) -> list[float]:
        if not asked:
            return []
        import torch

        model, tokenizer = self._load()
        rows = [conversation_ids(tokenizer, chat, text) for chat, text in asked]
        if cut := sum(len(row) > self.max_tokens for row in rows):
            logger.warning("reward model: %d of %d chats cut at ranker.max_tokens=%d", cut, len(rows), self.max_tokens)
        rows = [row[: self.max_tokens] for row in rows]
        if not self._has_pad:
            # The model scores the last token that is not this id: it must be none of a chat's own.
            model.config.pad_token_id = unused_id(model, rows)
        scores = [0.0] * len(rows)
        with torch.inference_mode(), bar(len(rows), "reward model") as shown:
            for batch in length_batches([len(row) for row in rows], lambda length: self.max_batch_tokens // length):
                ids, mask = padded([rows[place] for place in batch], model.config.pad_token_id, model.device)
                values = model(input_ids=ids, attention_mask=mask).logits[:, 0]
                for place, value in zip(batch, values.tolist(), strict=True):
                    scores[place] = value
                shown.update(len(batch))
        return scores

    def _load(self) -> tuple[Any, PreTrainedTokenizerBase]:
        if self._loaded is None:
            import torch
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
            from transformers.utils.logging import disable_progress_bar

            disable_progress_bar()

            tokenizer = AutoTokenizer.from_pretrained(self.path, revision=self.revision)
            if not tokenizer.chat_template:
                raise RewardModelError(
                    f"{self.path}: expected a tokenizer with a chat template, got none; save the template the model "
                    "was trained with beside it, as chat_template.jinja"
                )
            model, report = AutoModelForSequenceClassification.from_pretrained(
                self.path, revision=self.revision, dtype=getattr(torch, self.dtype), use_safetensors=True,
                output_loading_info=True,
            )  # fmt: skip
            if missing := sorted(report["missing_keys"]):
                raise RewardModelError(
                    f"{self.path}: expected the weights of a reward model, got none for {', '.join(missing[:4])}: they "
                    "would be random; choose a trained reward model"
                )
            if model.config.num_labels != 1:
                raise RewardModelError(
                    f"{self.path}: expected one output, got {model.config.num_labels}; choose a reward model with a "
                    "single score"
                )
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._has_pad = model.config.pad_token_id is not None
            self._loaded = model.eval().to(device), tokenizer
        return self._loaded


def conversation_ids(tokenizer: PreTrainedTokenizerBase, chat: Chat, text: str) -> list[int]:
    """The chat with `text` as its answer, as the tokenizer's template writes it."""
    turns = [*((message.role, message.content) for message in chat), ("assistant", text)]
    messages = [{"role": role, "content": _without_control_names(tokenizer, content)} for role, content in turns]
    written = tokenizer.apply_chat_template(messages, chat_template=chat_template(tokenizer), tokenize=False)
    # The template has written BOS already, where there is one.
    return tokenizer(written, add_special_tokens=False)["input_ids"]


def _without_control_names(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    for token in tokenizer.added_tokens_decoder.values():
        if token.special:
            text = text.replace(token.content, " ")
    return text


def unused_id(model: Any, rows: Sequence[Sequence[int]]) -> int:
    """The first id of the vocabulary that is in none of the rows."""
    used = {token for row in rows for token in row}
    return next(token for token in range(model.config.vocab_size) if token not in used)
