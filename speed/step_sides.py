"""One optimizer step of DPO with cached reference log-probs, as each side takes it: ours, a plain loop, TRL, Liger.

A side is made once for a folder of `workplace.make_workplace` and a setting; calling it takes one step on all pairs of
the folder and returns the loss before it and the CPU seconds that it took. AdamW at a constant rate, gradients clipped
to norm 1.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aipo.records import Pair, ReferenceLogps

BETA, RATE = 0.1, 1e-5
Step = Callable[[], tuple[float, float]]


def ours(model: Any, pairs: list[Pair], setting: str) -> Step:
    """This library: `rows` (a padded row a pair, the default) or `cheapest` (trainer.layout=cheapest)."""
    from aipo.models.logps import PairScorer
    from aipo.objectives import Objective, dpo
    from aipo.training.gradients import BatchGradient
    from aipo.training.job import LossInputs
    from aipo.training.memory import default_tokens_per_batch
    from aipo.training.processes.world import World

    scorer = PairScorer(model, cheapest=setting == "cheapest")
    with torch.no_grad():
        sides = scorer(scorer.collate(pairs))
    columns = zip(*(side.tolist() for side in sides[:4] if side is not None), strict=True)
    reference = [ReferenceLogps(pair.pair_id, *row) for pair, row in zip(pairs, columns, strict=True)]
    tokens = default_tokens_per_batch("cpu", None if setting == "rows" else setting)
    objective = Objective(name="dpo", loss=lambda logps: dpo(logps, beta=BETA))
    gradient = BatchGradient(scorer, scorer.collate, objective, World(0, 1, torch.device("cpu")), tokens)
    inputs = LossInputs(pairs, reference)
    return stepping(model, lambda: gradient.accumulate(inputs, len(pairs)).sums["loss"] / len(pairs))


def plain(model: Any, pairs: list[Pair], setting: str) -> Step:
    """The loop that one would write: two right-padded rows a pair, the head at completion positions only.

    `setting`: pairs at a time.
    """
    size = int(setting)

    def logps(part: list[Pair]) -> Tensor:
        rows = both_sides(part)
        ids = pad_sequence([torch.tensor([*prompt, *side]) for prompt, side in rows], True)
        places = torch.arange(ids.shape[1])
        starts = torch.tensor([len(prompt) for prompt, _ in rows])
        ends = starts + torch.tensor([len(side) for _, side in rows])
        kept = ((places >= starts[:, None]) & (places < ends[:, None]))[:, 1:]
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        each = -F.cross_entropy(model.lm_head(hidden[kept]), ids[:, 1:][kept], reduction="none")
        return torch.zeros(len(rows)).index_add(0, kept.nonzero()[:, 0], each)

    parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    with torch.no_grad():
        reference = [logps(part) for part in parts]

    def backward() -> float:
        total = 0.0
        for part, known in zip(parts, reference, strict=True):
            chosen, rejected = (logps(part) - known).chunk(2)
            loss = -F.logsigmoid(BETA * (chosen - rejected)).sum() / len(pairs)
            loss.backward()
            total += loss.item()
        return total

    return stepping(model, backward)


def liger(model: Any, pairs: list[Pair], setting: str) -> Step:
    """The same rows with Liger's fused linear DPO loss, uncompiled: its Triton kernels need a GPU.

    It takes no cached reference log-probs, so it is run without a reference: less work than the others.
    """
    from liger_kernel.chunked_loss import LigerFusedLinearDPOLoss

    size = int(setting)
    loss_of = LigerFusedLinearDPOLoss(beta=BETA, compiled=False, use_ref_model=False, average_log_prob=False)
    batches = []
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        rows = both_sides(part)
        ids = pad_sequence([torch.tensor([*prompt, *side]) for prompt, side in rows], True)
        labels = pad_sequence([torch.tensor([*[-100] * len(p), *s]) for p, s in rows], True, -100)
        batches.append((ids, labels, len(part)))

    def backward() -> float:
        total = 0.0
        for ids, labels, count in batches:
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            loss = loss_of(model.lm_head.weight, hidden, labels[:, 1:])[0] * count / len(pairs)
            loss.backward()
            total += loss.item()
        return total

    return stepping(model, backward)


def both_sides(pairs: list[Pair]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Prompt and completion of each row, chosen sides first."""
    chosen = [(pair.prompt_token_ids, pair.chosen.token_ids) for pair in pairs]
    return chosen + [(pair.prompt_token_ids, pair.rejected.token_ids) for pair in pairs]


def stepping(model: Any, backward: Callable[[], float]) -> Step:
    """A step: `backward` leaves gradients and tells the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)

    def step() -> tuple[float, float]:
        started = time.process_time()
        loss = backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss, time.process_time() - started

    return step


def trl(model: Any, pairs: list[Pair], setting: str, folder: Path) -> Step:
    """TRL 1.16's DPOTrainer with precomputed reference log-probs. `setting`: pairs at a time, and `gpu` or `cpu`.

    On a CPU its fused head scores every position, prompts and padding included; with `gpu` completion positions only,
    as on a GPU, its tiles computed by PyTorch. Timed from `on_step_begin` to `on_step_end`.
    """
    import trl.trainer.utils
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer
    from workplace import words

    size, head = setting.split()
    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *arguments: Any, **named: Any) -> None:
            self.started = time.process_time()

        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            seconds.append(time.process_time() - self.started)

    class InOrder(DPOTrainer):
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    rows = [
        {
            "prompt": words(pair.prompt_token_ids),
            "chosen": words(pair.chosen.token_ids),
            "rejected": words(pair.rejected.token_ids),
        }
        for pair in pairs
    ]
    trainer = InOrder(
        model=model,
        args=DPOConfig(
            output_dir=tempfile.mkdtemp(dir=folder), per_device_train_batch_size=int(size),
            gradient_accumulation_steps=len(pairs) // int(size), learning_rate=RATE, lr_scheduler_type="constant",
            num_train_epochs=1, beta=BETA, max_length=None, precompute_ref_log_probs=True, logging_steps=1,
            gradient_checkpointing=False, bf16=False, save_strategy="no", report_to="none", disable_tqdm=True,
            use_cpu=True,
        ),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        train_dataset=Dataset.from_list(rows),
        callbacks=[Clock()],
    )  # fmt: skip
    known = trainer.train_dataset[0]
    assert tuple(known["prompt_ids"]) == pairs[0].prompt_token_ids, "the sides would see different prompts"
    assert tuple(known["chosen_ids"]) == pairs[0].chosen.token_ids, "the sides would see different completions"

    def step() -> tuple[float, float]:
        before = trl.trainer.utils._use_triton
        trl.trainer.utils._use_triton = (lambda device: True) if head == "gpu" else before
        try:
            trainer.train()
        finally:
            trl.trainer.utils._use_triton = before
        return [row["loss"] for row in trainer.state.log_history if "loss" in row][-1], seconds[-1]

    return step
