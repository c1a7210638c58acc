"""A small reward model, trained from checkers' verdicts with a planted liking for length.

An annotator who knows the truth (`VerifiableRanker`: the share of constraints met, plus so much for each word) orders
candidates; a model that sees the text alone learns its order (Bradley-Terry). So the ranker's error is what it failed
to learn and not noise that was drawn, and its liking for length is learned with the rest. `RewardModel` loads the
folder.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aipo.components import require_range
from aipo.constraints import VERSION, constraints_of, share_met
from aipo.models.policy import PolicyRef
from aipo.rankers.batches import padded
from aipo.rankers.measured import Rated, agreement, worth_of_a_word
from aipo.rankers.reward_model import RewardModel, conversation_ids, unused_id
from aipo.rankers.verifiable import UnknownTruthError, VerifiableRanker
from aipo.records import Candidates, Chat
from aipo.terminal import bar

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


class LearnedError(ValueError):
    """The reward model cannot be trained; the message says what was expected and what to do."""


@dataclass(frozen=True)
class Lesson:
    """How the reward model is trained. Equal settings and rows give equal bits on one kind of CPU."""

    length_bias_per_word: float = 0.005
    """Gold points that one more word is worth to the annotator."""
    noise_sd: float = 0.0
    """Of the annotator, in gold points: 0 leaves what is not learned as the only error."""
    layers: int = 4
    """The model keeps so many of the base model's first layers. Its embeddings stay as they are."""
    epochs: int = 3
    prompts_per_step: int = 8
    learning_rate: float = 1e-4
    """At the first step of AdamW; falls linearly to 0."""
    held_out_share: float = 0.2
    """Of the prompts: what is measured at the end is measured on them."""
    seed: int = 0
    """Of the order, the split and the annotator's noise. The head starts at 0."""

    def __post_init__(self) -> None:
        require_range(
            "reward model", self, length_bias_per_word=(-100, 100), noise_sd=(0, 1000), layers=(1, 1000),
            epochs=(1, 1000), prompts_per_step=(1, 10**5), learning_rate=(1e-8, 1), held_out_share=(0.01, 0.9),
        )  # fmt: skip


@dataclass(frozen=True)
class Learned:
    """What came out. Agreement and the worth of a word are of the held-out prompts."""

    training_prompts: int
    training_pairs: int
    last_loss: float
    """Mean of the last epoch's steps, in nats a pair; guessing costs ln 2."""
    held_out_prompts: int
    held_out_pairs: int
    agrees_with_annotator: float | None
    """Share of the pairs; None without a pair."""
    agrees_with_gold: float | None
    annotator_agrees_with_gold: float | None
    word_worth_learned: float | None
    """Gold points a word; None where the scores do not rise with gold. Above what was planted where the model learned
    the liking for length better than it learned the constraints."""


@dataclass(frozen=True)
class _Group:
    """One prompt with different texts, and what the annotator thinks of them."""

    chat: Chat
    texts: tuple[str, ...]
    gold: tuple[float, ...]
    annotated: tuple[float, ...]

    def preferred(self) -> list[tuple[int, int]]:
        """(better, worse) places, wherever the annotator has a preference."""
        places = range(len(self.texts))
        return [(i, j) for i in places for j in places if self.annotated[i] > self.annotated[j]]


def train_reward_model(base: PolicyRef, rows: Sequence[Candidates], lesson: Lesson, out: Path) -> Learned:
    """Train on `rows` from the weights of `base`, and write the folder `out` whole or not at all.

    LearnedError, before any weight is read, where rows or folders do not serve. `out/training.json` has the settings
    and the result, and no time or path, so that equal trainings are equal folders.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LearnedError(f"{out}: expected a folder that is not there yet, or an empty one; choose another --out")
    if missing := base.missing():
        raise LearnedError("; ".join(missing))
    groups = _groups(rows, lesson)
    random.Random(lesson.seed).shuffle(groups)
    n_held_out = max(1, round(lesson.held_out_share * len(groups)))
    held_out, training = groups[:n_held_out], [group for group in groups[n_held_out:] if group.preferred()]
    if len(training) < lesson.prompts_per_step:
        raise LearnedError(
            f"expected at least {lesson.prompts_per_step} prompts on whose candidates the annotator has a preference, "
            f"beside {n_held_out} held out, got {len(training)}; give more prompts or candidates"
        )
    unfinished = out.with_name(out.name + ".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        loss = _train(base, training, lesson, unfinished)
        learned = _measured(unfinished, training, held_out, loss)
        record = {"constraints": VERSION, "lesson": asdict(lesson), "result": asdict(learned)}
        (unfinished / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return learned


def _groups(rows: Sequence[Candidates], lesson: Lesson) -> list[_Group]:
    """Prompts with at least two different texts, in order; a prompt that comes twice brings all its texts."""
    annotator = VerifiableRanker(lesson.length_bias_per_word, lesson.noise_sd, seed=lesson.seed)
    try:
        annotator = annotator.knowing([row.prompt for row in rows])
    except UnknownTruthError as error:
        raise LearnedError(str(error)) from error
    texts: dict[Chat, dict[str, None]] = {}
    asked = {row.prompt.chat: constraints_of(row.prompt.meta or "") for row in rows}
    for row in rows:
        texts.setdefault(row.prompt.chat, {}).update(dict.fromkeys(found.text for found in row.completions))
    return [
        _Group(
            chat,
            tuple(found),
            tuple(share_met(asked[chat], text) for text in found),
            tuple(annotator.score(chat, text) for text in found),
        )
        for chat, found in texts.items()
        if len(found) > 1
    ]


def _train(base: PolicyRef, groups: Sequence[_Group], lesson: Lesson, folder: Path) -> float:
    """Write the trained model to `folder`; returns the mean loss of the last epoch's steps."""
    import torch

    tokenizer = base.load_tokenizer()
    if not tokenizer.chat_template:
        raise LearnedError(f"{base.path}: expected a tokenizer with a chat template, got none; choose a chat model")
    model = _classifier(base, lesson.layers)
    # The last token is read where no token is this id.
    encoded = [[conversation_ids(tokenizer, group.chat, text) for text in group.texts] for group in groups]
    model.config.pad_token_id = unused_id(model, [row for rows in encoded for row in rows])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lesson.learning_rate, weight_decay=0.0)
    steps_per_epoch = len(groups) // lesson.prompts_per_step
    n_steps = lesson.epochs * steps_per_epoch
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / n_steps)
    order = random.Random(lesson.seed + 1)
    losses: list[float] = []
    with bar(n_steps * lesson.prompts_per_step, "reward model") as shown:
        for _ in range(lesson.epochs):
            places = order.sample(range(len(groups)), steps_per_epoch * lesson.prompts_per_step)
            for start in range(0, len(places), lesson.prompts_per_step):
                batch = places[start : start + lesson.prompts_per_step]
                loss = _loss(model, [encoded[place] for place in batch], [groups[place] for place in batch])
                if not torch.isfinite(loss):
                    raise LearnedError(f"the loss is {loss.item()} at step {len(losses) + 1}; lower --learning-rate")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                falling.step()
                losses.append(loss.item())
                shown.update(len(batch))
    logger.info("reward model: %d steps, loss %.4f to %.4f", n_steps, losses[0], losses[-1])
    model.config.pad_token_id = None  # RewardModel then pads with an id that no chat has
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(losses[-steps_per_epoch:]) / steps_per_epoch


def _classifier(base: PolicyRef, layers: int) -> Any:
    """A model with one output on the base model's first layers, in float32; its head gives 0 for everything."""
    import torch
    from transformers import AutoModelForSequenceClassification

    full = base.load_masters()
    config = full.config
    if layers > config.num_hidden_layers:
        raise LearnedError(f"--layers: expected at most the {config.num_hidden_layers} of {base.path}, got {layers}")
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    config.num_labels = 1
    config.architectures = None
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    missing, _ = model.base_model.load_state_dict(full.base_model.state_dict(), strict=False)
    if missing:
        raise LearnedError(
            f"{base.path}: expected weights for {', '.join(missing[:4])}, got none; choose another model"
        )
    for parameter in (parameter for name, parameter in model.named_parameters() if "score" in name.split(".")):
        torch.nn.init.zeros_(parameter)
    model.get_input_embeddings().requires_grad_(False)
    # Evaluation mode throughout: dropout would make the result depend on the order of draws.
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _loss(model: Any, encoded: Sequence[Sequence[list[int]]], groups: Sequence[_Group]) -> Tensor:
    """-log sigmoid(better - worse) in nats: the mean over a prompt's preferences, then over prompts."""
    import torch

    ids, mask = padded([row for rows in encoded for row in rows], model.config.pad_token_id, model.device)
    scores = model(input_ids=ids, attention_mask=mask).logits[:, 0]
    losses, start = [], 0
    for group in groups:
        own = scores[start : start + len(group.texts)]
        start += len(group.texts)
        better, worse = zip(*group.preferred(), strict=True)
        losses.append(torch.nn.functional.softplus(own[list(worse)] - own[list(better)]).mean())
    return torch.stack(losses).mean()


def _measured(folder: Path, training: Sequence[_Group], held_out: Sequence[_Group], loss: float) -> Learned:
    """What the folder, loaded as a run loads it, makes of the held-out prompts."""
    ranker = RewardModel(str(folder))
    own = ranker.rank([group.chat for group in held_out], [group.texts for group in held_out])
    gold = [group.gold for group in held_out]
    annotated = [group.annotated for group in held_out]
    agrees, pairs = agreement(own, annotated)
    rated = [
        Rated(group.gold, tuple(len(text.split()) for text in group.texts), tuple(row))
        for group, row in zip(held_out, own, strict=True)
    ]
    return Learned(
        training_prompts=len(training),
        training_pairs=sum(len(group.preferred()) for group in training),
        last_loss=loss,
        held_out_prompts=len(held_out),
        held_out_pairs=pairs,
        agrees_with_annotator=agrees,
        agrees_with_gold=agreement(own, gold)[0],
        annotator_agrees_with_gold=agreement(annotated, gold)[0],
        word_worth_learned=worth_of_a_word(rated),
    )
