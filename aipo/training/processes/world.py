"""The processes of one training run: who am I, how many are we, and sums over all of us."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Object = TypeVar("Object")


class WorldSizeError(RuntimeError):
    """There are more or fewer processes than asked for."""


@dataclass(frozen=True)
class World:
    """This process among `size`. With one process nothing is communicated."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, processes: int) -> World:
        """The world this process was started in, through Accelerate. Raises unless it has `processes` members."""
        from accelerate import PartialState

        if processes == 1 and int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        state = PartialState(cpu=not torch.cuda.is_available())
        if state.num_processes != processes:
            raise WorldSizeError(
                f"trainer.processes={processes}, but this run has {state.num_processes} process(es) "
                f"({state.distributed_type}); start it with as many, or change trainer.processes"
            )
        return cls(state.process_index, state.num_processes, torch.device(state.device))

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def largest(self, value: int) -> int:
        """The largest of every process's `value`."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return int(tensor)

    def from_main(self, value: Object) -> Object:
        """The main process's `value`, in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Object) -> list[Object]:
        """Every process's `value`, in the order of ranks."""
        if self.size == 1:
            return [value]
        box: list[Object] = [value] * self.size
        dist.all_gather_object(box, value)
        return box

    def share(self, indices: list[int], lengths: list[int]) -> list[int]:
        """This process's part of a global batch: dealt out by length, so that all have about equally much to do."""
        if self.size == 1:
            return indices
        return sorted(indices, key=lambda index: (-lengths[index], index))[self.rank :: self.size]

    def wait(self) -> None:
        """Return when every process is here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        """Close the connections between processes. Call it last."""
        if self.size > 1:
            dist.destroy_process_group()


ALONE = World(0, 1, torch.device("cpu"))
"""One process that shares nothing with another."""
