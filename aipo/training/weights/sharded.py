"""FSDP2: every process holds a shard of the weights, their gradients and the optimizer's state (strategy fsdp2).

The scorer is the root of the sharding, so that the head, which is used as a matrix and not as a module, is whole
while the scorer runs. Only the main process reads the weights; it hands every process its shards, tensor by tensor, so
a machine's own memory holds one copy of the model however many devices it has. In training, weights are float32
shards; a bfloat16 policy computes in bfloat16 and sums gradients in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from aipo.models.capabilities import inspect_model
from aipo.models.logps import PairScorer
from aipo.training.processes.world import World
from aipo.training.weights.masters import TrainedWeights
from aipo.training.weights.prepare import prepare
from aipo.training.weights.replicated import Strategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from aipo.models.policy import PolicyRef
    from aipo.training.job import Job
    from aipo.training.settings import TrainingSettings

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
_FROM_MAIN = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


def sharded_scorer(
    policy: PolicyRef,
    world: World,
    *,
    dtype: torch.dtype,
    computed: torch.dtype | None = None,
    cheapest: bool = False,
    set_up: Callable[[PreTrainedModel], object] = lambda model: None,
) -> PairScorer:
    """A scorer of `policy` in shards of `dtype`, one per process, that computes in `computed` (None: in `dtype`).

    float32 shards are the policy's masters; what is computed in bfloat16 is rounded from them to nearest.

    `set_up` is applied to the model before it is divided.
    """
    whole = None
    if world.is_main:
        whole = policy.load_masters() if dtype == torch.float32 else policy.load_model()
    capabilities = world.from_main(None if whole is None else inspect_model(whole, packed=cheapest))
    model = policy.load_outline(dtype)
    set_up(model)
    scorer = PairScorer(model, capabilities, cheapest=cheapest)
    arguments: dict[str, Any] = {
        "mesh": init_device_mesh(world.device.type, (world.size,)),
        "mp_policy": MixedPrecisionPolicy(param_dtype=computed, reduce_dtype=torch.float32),
    }
    for layer in _layers(model):
        fully_shard(layer, **arguments)
    fully_shard(scorer, **arguments)
    # The loss of a process is already divided by the pairs of the whole batch: gradients are summed, not averaged.
    for module in scorer.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sum
    buffers = {name: buffer.clone() for name, buffer in scorer.named_buffers()}
    scorer.to_empty(device=world.device)
    model.tie_weights()
    for name, buffer in scorer.named_buffers():
        buffer.copy_(buffers[name])
    set_model_state_dict(model, {} if whole is None else whole.state_dict(), options=_FROM_MAIN)
    return scorer


def _layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    names = set(model._no_split_modules or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise ValueError(f"{type(model).__name__} does not say what its layers are; use trainer.strategy=ddp")
    return layers


class Sharded(Strategy):
    """Weights in shards. Gradients are summed over processes in every backward pass, so all must make equally many."""

    sharded = True

    def __init__(self, settings: TrainingSettings, job: Job, world: World) -> None:
        self.world = world
        self.job = job
        self.adapted = None
        half = (settings.dtype or job.policy.dtype) == "bfloat16"
        self.scorer = sharded_scorer(
            job.policy,
            world,
            dtype=torch.float32,
            computed=torch.bfloat16 if half else None,
            cheapest=settings.layout is not None,
            set_up=lambda model: prepare(
                model, lora=None, gradient_checkpointing=settings.gradient_checkpointing, seed=job.seed
            ),
        )
        self.model = self.scorer.model
        self.forward = self.scorer
        self.weights = TrainedWeights(self.model)

    def optimizer_bytes(self) -> int:
        """Memory of Adam's two moments per device."""
        return sum(2 * _local(weight).numel() * weight.element_size() for weight in self.parameters())

    def parameters(self) -> Iterable[Tensor]:
        """The shards that the optimizer updates."""
        return self.weights.parameters.values()

    def clip(self, max_norm: float | None) -> float:
        """Scale all shards' gradients to a common norm of at most `max_norm`. Returns the norm before."""
        gradients = self.weights.gradients()
        squares = torch.stack([_local(gradient).double().square().sum() for gradient in gradients]).sum()
        norm = float(self.world.sum_(squares).sqrt())
        if max_norm is not None and norm > max_norm:
            torch._foreach_mul_([_local(gradient) for gradient in gradients], max_norm / (norm + 1e-6))
        return norm

    def final_model(self) -> PreTrainedModel | None:
        """The trained model, whole and in float32, in the main process; None in the others."""
        whole = get_model_state_dict(self.model, options=_WHOLE)
        if not self.world.is_main:
            return None
        model = self.job.policy.load_masters()
        model.load_state_dict(whole)
        return model


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
