"""How weights lie over processes: every process has all of them (`ddp`), or a shard (`fsdp2`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aipo.models.batching import PairBatch
from aipo.models.logps import PairScorer, SideLogps
from aipo.training.processes.world import World
from aipo.training.weights.masters import TrainedWeights
from aipo.training.weights.prepare import prepare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from aipo.training.checkpoint import Saved
    from aipo.training.job import Job
    from aipo.training.settings import TrainingSettings

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of every weight, beside the number of its steps."""
_BUCKET_ELEMENTS = 2**26  # 256 MiB of float32 per all-reduce


class Strategy:
    """Every process holds all weights. Gradients are summed over processes once per step, in the master's float32,
    after all micro-batches: exact for any number of micro-batches on each process, which DDP's hooks are not."""

    sharded = False

    def __init__(self, settings: TrainingSettings, job: Job, world: World) -> None:
        self.world = world
        self.policy = job.policy
        in_float32 = (settings.dtype or job.policy.dtype) == "float32"
        model = job.policy.load_masters() if in_float32 else job.policy.load_model()
        self.model = model.to(world.device)
        self.adapted = prepare(
            self.model, lora=settings.adapters, gradient_checkpointing=settings.gradient_checkpointing, seed=job.seed
        )
        self.scorer = PairScorer(self.model, cheapest=settings.layout is not None)
        self.forward: Callable[[PairBatch], SideLogps] = self.scorer
        exact = None
        if not in_float32 and settings.adapters is None and job.policy.masters is not None:
            exact = dict(job.policy.load_masters().named_parameters())
        self.weights = TrainedWeights(self.model, exact, dithered=settings.keep_masters)

    def parameters(self) -> Iterable[Tensor]:
        """What the optimizer updates."""
        return self.weights.parameters.values()

    def optimizer_bytes(self) -> int:
        """Memory of Adam's two moments per device."""
        return sum(2 * weight.numel() * weight.element_size() for weight in self.parameters())

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.weights.zero_grad()

    def clip(self, max_norm: float | None) -> float:
        """Sum gradients over processes and scale them to a norm of at most `max_norm`. Returns the norm before."""
        gradients = self.weights.gradients()
        if self.world.size > 1:
            self._sum_over_processes(gradients)
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if max_norm is not None and norm > max_norm:
            torch._foreach_mul_(gradients, max_norm / (norm + 1e-6))
        return norm

    def publish(self) -> None:
        """Give the model the updated weights."""
        self.weights.publish()

    def tensors(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """All that training changes, by names that say nothing of how it lies over processes; shares its memory."""
        found: dict[str, Tensor] = {}
        for name, weight in self.weights.parameters.items():
            found[f"weight.{name}"] = weight.detach()
            moments = optimizer.state[weight] or _new_moments(weight, 0)
            found |= {f"{moment}.{name}": moments[moment] for moment in MOMENTS}
        return found

    def resume(self, saved: Saved, optimizer: torch.optim.Optimizer) -> None:
        """Take over what a checkpoint holds."""
        for weight in self.weights.parameters.values():
            optimizer.state[weight] = _new_moments(weight, saved.step)
        saved.fill(self.tensors(optimizer))
        self.publish()

    def final_model(self) -> PreTrainedModel | None:
        """The trained model in float32, adapters merged; None in processes that do not write it."""
        if not self.world.is_main:
            return None
        if self.adapted is None:
            self.weights.uncover()
            return self.model
        self.model.to("cpu")
        if self.policy.dtype != "float32":  # merged into rounded weights, small adapters would be lost
            exact = dict(self.policy.load_masters().named_parameters())
            for name, weight in self.model.named_parameters():
                if (name := name.replace(".base_layer.", ".")) in exact:
                    weight.data = exact[name].data
        return self.adapted.merge_and_unload()

    def _sum_over_processes(self, gradients: list[Tensor]) -> None:
        bucket: list[Tensor] = []
        for index, gradient in enumerate(gradients):
            bucket.append(gradient)
            full = sum(member.numel() for member in bucket) >= _BUCKET_ELEMENTS
            if full or index == len(gradients) - 1 or gradients[index + 1].dtype != gradient.dtype:
                flat = self.world.sum_(torch.cat([member.flatten() for member in bucket]))
                for member, part in zip(bucket, flat.split([member.numel() for member in bucket]), strict=True):
                    member.copy_(part.view_as(member))
                bucket = []


def _new_moments(weight: Tensor, steps: int) -> dict[str, Tensor]:
    """AdamW's state of a weight after so many steps, its moments still zeros."""
    count = torch.tensor(float(steps), dtype=torch.float32, device=weight.device)
    return {"step": count, **{moment: torch.zeros_like(weight, requires_grad=False) for moment in MOMENTS}}
