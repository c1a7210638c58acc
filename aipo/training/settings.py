"""The settings of a training run, each explained where it is declared; `conf/trainer/*.yaml` holds their values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from aipo.training.lora import Lora


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one round of preference training. The precision is the policy's: a bfloat16 policy is trained with
    float32 master weights and float32 gradient sums, a float32 policy in float32."""

    learning_rate: float
    epochs: int = 1
    pairs_per_step: int = 32
    """Pairs per optimizer step, over all processes and micro-batches. An epoch's last step may have fewer."""
    warmup_ratio: float = 0.1
    """Share of all steps with a rising rate; then a cosine down to 0."""
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    max_grad_norm: float | None = 1.0
    """The global gradient norm is clipped to this; None: never."""
    max_length: int | None = None
    """Longest prompt plus completion in tokens; a longer pair is an error, nothing is cut. None: any."""
    tokens_per_batch: int | None = None
    """Padded input tokens of a micro-batch. Changes the gradient by rounding only. None: found automatically."""
    memory_limit_gib: float | None = None
    """Where `tokens_per_batch` is None: peak memory allowed per process. None: 90 % of a GPU; on a CPU, the default."""
    gradient_checkpointing: bool = False
    lora: Lora | None = None
    """Train adapters only; the written model has them merged in. None: all weights."""
    evaluate_every_steps: int | None = None
    """Where evaluation pairs are given, they are evaluated at the end, and this often on the way."""
    checkpoint_every_steps: int | None = None
    checkpoint_every_seconds: float | None = 600.0
    processes: int = 1
    """Processes on all nodes, one per GPU. More than one are started with torchrun; they share the reference pass."""
    nodes: int = 1
    """Machines over which the processes are spread evenly: all of the Slurm job's that this one is part of."""
    strategy: Literal["ddp", "fsdp2"] = "ddp"
    """With several processes: all weights in each (ddp), or a shard (fsdp2)."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = (
        *("checkpoint_every_steps", "checkpoint_every_seconds", "evaluate_every_steps", "memory_limit_gib", "nodes"),
    )

    def __post_init__(self) -> None:
        optional = ("max_length", "tokens_per_batch", "evaluate_every_steps", "checkpoint_every_steps")
        for name in ("epochs", "pairs_per_step", "processes", "nodes", *optional):
            value = getattr(self, name)
            if value is None and name in optional:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"trainer.{name} must be a whole number of at least 1, got {value!r}")
        object.__setattr__(self, "betas", tuple(self.betas))  # YAML and JSON give lists
        for name, good, expected in (
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("warmup_ratio", 0 <= self.warmup_ratio < 1, "in [0, 1)"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            ("betas", len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas), "two numbers in [0, 1)"),
            ("epsilon", self.epsilon > 0, "above 0"),
            ("max_grad_norm", self.max_grad_norm is None or self.max_grad_norm > 0, "above 0, or null"),
            ("memory_limit_gib", self.memory_limit_gib is None or self.memory_limit_gib > 0, "above 0, or null"),
            ("strategy", self.strategy in ("ddp", "fsdp2"), "ddp or fsdp2"),
            ("nodes", self.processes % self.nodes == 0, f"a divisor of trainer.processes={self.processes}"),
            ("lora", self.lora is None or self.strategy == "ddp", "null with strategy fsdp2"),
        ):
            if not good:
                raise ValueError(f"trainer.{name} must be {expected}, got {getattr(self, name)!r}")

    def identity(self) -> dict[str, Any]:
        """The settings that shape the result: a checkpoint made with others is refused."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in self.OPERATIONAL}
