"""The settings of a training run, each explained where it is declared; `conf/trainer/*.yaml` holds their values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from aipo.training.lora import Lora, as_lora

_COUNTS = {
    "epochs": (1, 10_000),
    "pairs_per_step": (1, 10**7),
    "max_length": (2, 10**8),  # a token of prompt and one of completion
    "tokens_per_batch": (1, 10**9),
    "evaluate_every_steps": (1, 10**9),
    "checkpoint_every_steps": (1, 10**9),
    "processes": (1, 16_384),
    "processes_here": (1, 16_384),
    "nodes": (1, 4_096),
}
"""Whole numbers, each with the least and the most that is no slip of the finger."""
_OPTIONAL = ("max_length", "tokens_per_batch", "evaluate_every_steps", "checkpoint_every_steps", "processes_here")
_TWO_BETAS = "two numbers in [0, 1)"


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one round of preference training."""

    learning_rate: float
    """AdamW moves a weight by about this much in a step at the full rate: in (0, 1]."""
    epochs: int = 1
    pairs_per_step: int = 32
    """Pairs per optimizer step, over all processes and micro-batches. An epoch's last step may have fewer."""
    warmup_ratio: float = 0.1
    """Share of all steps with a rising rate; then a cosine down to 0."""
    weight_decay: float = 0.0
    """Of AdamW, on every trained weight alike, norms and biases too (transformers' trainer leaves those out)."""
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    max_grad_norm: float | None = 1.0
    """The global gradient norm is clipped to this; None: never."""
    max_length: int | None = None
    """Longest prompt plus completion in tokens; a longer pair is an error, nothing is cut. None: any."""
    tokens_per_batch: int | None = None
    """Padded input tokens of a micro-batch. Changes the gradient by rounding only. None: found automatically,
    and again where a resumed run has another limit, device or number of processes."""
    memory_limit_gib: float | None = None
    """Where `tokens_per_batch` is None: peak memory allowed per process. None: 90 % of a GPU; on a CPU, the default."""
    layout: Literal["cheapest"] | None = None
    """How micro-batches and the reference pass lay pairs out. None: a padded row a pair, as ever. cheapest: rows, or
    all pairs packed into one row without padding, whichever costs this model less. Changes results by rounding only."""
    gradient_checkpointing: bool = False
    dtype: Literal["float32"] | None = None
    """What forward and backward pass compute in, the reference's too. None: the policy's dtype. float32: a policy that
    is sampled in bfloat16 is trained in float32. Weights, gradient sums and moments are float32 in any case."""
    keep_masters: bool = True
    """Of a policy that is sampled in bfloat16, keep the float32 weights beside the rounded ones: the next round goes on
    from them. False: it goes on from the rounded ones, as in the official code, and small updates are lost."""
    lora: Lora | Mapping[str, Any] | bool | None = None
    """Train adapters only; the written model has them merged in. A mapping has settings of Lora, true takes its
    defaults; null and false: all weights. Kept as `Lora` or None; typed so in `adapters`."""
    evaluation_share: float = 0.0
    """Share of the pairs, drawn by the seed, that is held out of training and evaluated. At least one pair stays."""
    evaluate_every_steps: int | None = None
    """Held-out pairs are evaluated at the end, and this often on the way."""
    checkpoint_every_steps: int | None = None
    checkpoint_every_seconds: float | None = 600.0
    """By the clock beside that. None: never; a small number: after each step that takes as long."""
    processes: int = 1
    """Processes on all nodes, one per GPU. More than one are started with torchrun; they share the reference pass."""
    processes_here: int | None = None
    """Processes of this run, where another number than `processes` is at hand: what was begun with those goes on with
    these, in the same artifact. Changes results by rounding only. None: `processes`."""
    nodes: int = 1
    """Machines over which the processes are spread evenly: all of the Slurm job's that this one is part of."""
    strategy: Literal["ddp", "fsdp2"] = "ddp"
    """With several processes: all weights in each (ddp), or a shard (fsdp2)."""

    SHORT_FORMS: ClassVar[Mapping[str, Any]] = {"lora": Mapping[str, Any] | bool}
    """What a config may write in place of a component; the constructor makes one of it."""
    OPTIONAL: ClassVar[tuple[str, ...]] = ("layout",)
    OPERATIONAL: ClassVar[tuple[str, ...]] = (
        *("checkpoint_every_steps", "checkpoint_every_seconds", "evaluate_every_steps", "memory_limit_gib"),
        *("processes_here", "nodes"),
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))  # YAML and JSON give lists
        object.__setattr__(self, "lora", as_lora(self.lora))
        for name, (least, most) in _COUNTS.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                or_null = ", or null" if name in _OPTIONAL else ""
                raise ValueError(
                    f"trainer.{name} must be a whole number from {least} to {most:,}{or_null}, got {_shown(value)}"
                )
        seconds = self.checkpoint_every_seconds
        counted = "trainer.processes" if self.processes_here is None else "trainer.processes_here"
        for name, good, expected in (
            ("learning_rate", _within(self.learning_rate, 0, 1) and self.learning_rate > 0, "above 0 and at most 1"),
            ("warmup_ratio", _within(self.warmup_ratio, 0, 1) and self.warmup_ratio < 1, "in [0, 1)"),
            ("weight_decay", _within(self.weight_decay, 0, 100), "from 0 to 100"),
            ("betas", len(self.betas) == 2 and all(_within(b, 0, 1) and b < 1 for b in self.betas), _TWO_BETAS),
            ("epsilon", _within(self.epsilon, 0, 1) and self.epsilon > 0, "above 0 and at most 1"),
            ("max_grad_norm", self.max_grad_norm is None or _positive(self.max_grad_norm), "above 0, or null"),
            ("memory_limit_gib", self.memory_limit_gib is None or _positive(self.memory_limit_gib), "above 0, or null"),
            ("checkpoint_every_seconds", seconds is None or _positive(seconds), "above 0, or null for never"),
            ("evaluation_share", _within(self.evaluation_share, 0, 0.5), "from 0 to 0.5"),
            ("layout", self.layout in (None, "cheapest"), "cheapest, or null for a padded row a pair"),
            ("dtype", self.dtype in (None, "float32"), "float32, or null for the policy's"),
            ("keep_masters", isinstance(self.keep_masters, bool), "true or false"),
            ("strategy", self.strategy in ("ddp", "fsdp2"), "ddp or fsdp2"),
            ("nodes", self.world_size % self.nodes == 0, f"a divisor of {counted}={self.world_size}"),
            ("lora", self.lora is None or self.strategy == "ddp", "null with strategy fsdp2"),
        ):
            if not good:
                raise ValueError(f"trainer.{name} must be {expected}, got {_shown(getattr(self, name))}")

    @property
    def world_size(self) -> int:
        """How many processes a run starts."""
        return self.processes if self.processes_here is None else self.processes_here

    @property
    def adapters(self) -> Lora | None:
        """The adapters that are trained; None where all weights are."""
        return as_lora(self.lora)

    def identity(self) -> dict[str, Any]:
        """The settings that shape the result: a checkpoint made with others is refused."""
        values = dataclasses.asdict(self)
        unset = [name for name in self.OPTIONAL if values[name] is None]
        return {name: value for name, value in values.items() if name not in (*self.OPERATIONAL, *unset)}


def _within(value: object, least: float, most: float) -> bool:
    """A finite number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return least <= value <= most and value < math.inf


def _positive(value: object) -> bool:
    return _within(value, 0, math.inf) and value != 0


def _shown(value: object) -> str:
    """The value as an error shows it: a number of a thousand digits is no reading."""
    text = "a huge whole number" if isinstance(value, int) and abs(value) > 10**30 else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
