"""The miniature's base model: a Llama of some 0.12 M parameters.

The default one comes with the package (`aipo.miniature.shipped`). Others are trained on this machine at first use, on
one thread of the CPU whatever the machine has, so that a seed gives the same weights bit for bit on one kind of CPU.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from aipo.components import require_range
from aipo.miniature.corpus import Corpus, Writer
from aipo.miniature.shipped import ShippedWeights, shipped_weights
from aipo.miniature.tokenizer import build_tokenizer
from aipo.terminal import bar

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

_IGNORED = -100
"""The label of padding: torch's cross entropy leaves it out."""


@dataclass(frozen=True)
class MiniatureModel:
    """Architecture, corpus and training of the base model. `build` does the work; making this object costs nothing.

    Where the settings are those of the weights in the package, these are taken, unless `retrain` says otherwise.
    """

    hidden: int
    layers: int
    heads: int
    n_documents: int
    two_turn_share: float
    task_list_share: float
    omitted: float
    wrong: float
    filler: float
    unasked: float
    long_form: float
    steps: int
    batch: int
    lr: float
    seed: int
    retrain: bool = False
    """Train on this machine although the package has these weights."""

    def __post_init__(self) -> None:
        sizes = {"hidden": (1, 4096), "layers": (1, 64), "heads": (1, 256)}
        require_range("MiniatureModel", self, **sizes, steps=(1, 10**6), batch=(1, 10**4), n_documents=(1, 10**6))
        if self.hidden % (2 * self.heads):
            raise ValueError(
                f"MiniatureModel.hidden must be an even multiple of heads (rotary halves), "
                f"got {self.hidden} and {self.heads}"
            )
        if not 0 < self.lr <= 1:
            raise ValueError(f"MiniatureModel.lr must be above 0 and at most 1, got {self.lr}")
        self.corpus()  # validates the shares and probabilities

    def corpus(self) -> Corpus:
        """The training documents."""
        writer = Writer(self.omitted, self.wrong, self.filler, self.unasked, self.long_form)
        return Corpus(self.n_documents, self.two_turn_share, self.task_list_share, writer, self.seed)

    def shipped(self) -> ShippedWeights | None:
        """The weights of the package, where these settings are theirs and `retrain` is off."""
        found = shipped_weights()
        settings = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "retrain"}
        return found if settings == found.settings and not self.retrain else None

    def identity(self) -> dict[str, str]:
        """What pins the weights beyond the settings: their hash, or the torch release that trains them."""
        found = self.shipped()
        if found is not None:
            return {"weights_sha256": found.sha256}
        return {"torch": version("torch"), "world": "1"}

    def build(self, out: Path) -> dict[str, float | int]:
        """Write a Hugging Face folder (model, tokenizer, generation config) into `out`. Returns counts.

        `loss` is the mean over the last tenth of the training steps, in nats per token.
        """
        tokenizer = build_tokenizer()
        found = self.shipped()
        if found is not None:
            model, counts = self._with_weights(tokenizer, found.tensors()), dict(found.counts)
        else:
            model, counts = self._trained(tokenizer)
        self._write(model, tokenizer, out)
        return counts

    def _trained(self, tokenizer: PreTrainedTokenizerFast) -> tuple[LlamaForCausalLM, dict[str, float | int]]:
        import torch

        documents = self._encode(tokenizer)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                model = self._fresh_model(tokenizer)
                loss = self._train(model, documents, tokenizer.pad_token_id)
        finally:
            torch.set_num_threads(threads)
        return model, {
            "parameters": model.num_parameters(),
            "vocabulary": len(tokenizer),
            "documents": len(documents),
            "tokens": sum(map(len, documents)),
            "steps": self.steps,
            "loss": loss,
        }

    def _write(self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
        from transformers import GenerationConfig
        from transformers.utils import logging

        out.mkdir(parents=True, exist_ok=True)
        model.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            do_sample=True,
            temperature=1.0,
            top_k=0,
        )
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            model.save_pretrained(out)
        finally:
            if shown:
                logging.enable_progress_bar()
        tokenizer.save_pretrained(out)

    def _encode(self, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
        """Every document as ids: one BOS at its head, an end-of-turn token after each turn or list."""
        texts = []
        for document in self.corpus().documents():
            if isinstance(document, str):
                texts.append(f"{tokenizer.bos_token}{document}{tokenizer.eos_token}")
            else:
                messages = [{"role": message.role, "content": message.content} for message in document]
                texts.append(tokenizer.apply_chat_template(messages, tokenize=False))
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    def _fresh_model(self, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden,
            intermediate_size=3 * self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            initializer_range=self.hidden**-0.5,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return LlamaForCausalLM(config)

    def _with_weights(self, tokenizer: PreTrainedTokenizerFast, weights: Mapping[str, Tensor]) -> LlamaForCausalLM:
        import torch

        with torch.random.fork_rng(devices=[]):
            model = self._fresh_model(tokenizer)
        model.load_state_dict({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]})
        return model.eval()

    def _batches(self, documents: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Document indices of each step: epochs of batches of like length, in random order."""
        rng = random.Random(f"batches {self.seed}")
        order = list(range(len(documents)))
        while True:
            rng.shuffle(order)
            by_length = sorted(order, key=lambda index: len(documents[index]))
            batches = [by_length[start : start + self.batch] for start in range(0, len(by_length), self.batch)]
            rng.shuffle(batches)
            yield from batches

    def _train(self, model: LlamaForCausalLM, documents: Sequence[Sequence[int]], pad: int) -> float:
        import torch

        optimizer = torch.optim.AdamW(model.parameters(), lr=self.lr, weight_decay=0.01, foreach=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        model.train()
        losses = []
        shown = bar(self.steps, "base model")
        for indices in islice(self._batches(documents), self.steps):
            rows = [documents[index] for index in indices]
            ids = _pad_right(rows, pad)
            labels = _pad_right(rows, _IGNORED)
            logits = model(input_ids=ids).logits
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"base model: loss is {losses[-1]} at step {len(losses)}; expected a finite number: lower model.lr"
                )
            shown.note(loss=f"{losses[-1]:.3f}")
            shown.update()
        shown.close()
        model.eval()
        tail = losses[-max(1, len(losses) // 10) :]
        return sum(tail) / len(tail)

    def _rate(self, step: int) -> float:
        """Linear warm-up over 5 % of the steps, then a cosine down to a twentieth."""
        warm_up = max(1, self.steps // 20)
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.05 + 0.475 * (1 + math.cos(math.pi * (step - warm_up) / max(1, self.steps - warm_up)))


def _pad_right(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """(rows, longest). Causal attention never looks right, so right padding needs no attention mask."""
    import torch

    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
