"""Train a policy on preference pairs, with any objective.

`run` does the work in this process, or starts one process per
device with torchrun. What comes out is a Hugging Face folder, a log with a row per optimizer step, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aipo.training.lora import missing_peft
from aipo.training.settings import TrainingSettings

if TYPE_CHECKING:
    from aipo.models.policy import PolicyRef
    from aipo.records import Pair, ReferenceLogps


@dataclass(frozen=True)
class Trainer(TrainingSettings):
    """Training as a stage calls it, in this process or in several."""

    def missing(self) -> list[str]:
        """The package behind adapters."""
        return missing_peft() if self.adapters is not None else []

    def reference_settings(self) -> dict[str, Any]:
        """The settings that shape the reference log-probs; none where they are the policy's own business."""
        shards = {"strategy": self.strategy} if self.processes > 1 and self.strategy == "fsdp2" else {}
        chosen = {"dtype": self.dtype, "layout": self.layout}
        return shards | {name: value for name, value in chosen.items() if value is not None}

    def reference(self, *, policy: PolicyRef, pairs: Sequence[Pair], out: Path) -> list[ReferenceLogps]:
        """The log-probs of `pairs` under `policy`, with as many processes, laid out the same way, as train.

        `out` is a folder for what the processes tell each other; nothing stays there.
        """
        policy = self._start(policy)
        if self.world_size > 1:
            from aipo.training.processes.launch import reference_in_processes

            return reference_in_processes(self, policy, pairs, out)
        from aipo.training.reference import compute_reference_logps

        return compute_reference_logps(policy, pairs, dtype=self.dtype, layout=self.layout)

    def run(
        self,
        *,
        policy: PolicyRef,
        pairs: Sequence[Pair],
        reference: Sequence[ReferenceLogps] | None,
        objective_config: Mapping[str, Any],
        out: Path,
        seed: int,
        log: Callable[[Mapping[str, float]], None],
        evaluation_pairs: Sequence[Pair] = (),
        evaluation_reference: Sequence[ReferenceLogps] | None = None,
    ) -> dict[str, float | int]:
        """Train `policy` on `pairs` and write it to `out/model`; metrics go to `out/metrics.jsonl`.

        Where the policy is not sampled in float32, `out/masters` gets the float32 weights, the `masters` of the next
        round's PolicyRef, unless `keep_masters` is off. Without `evaluation_pairs`, `evaluation_share` of the pairs are
        held out, drawn by the seed; `reference` has rows for both kinds.

        `log` gets every step's row once, in order, resumed ones included. While running, `out/checkpoints` holds the
        newest state; a later call with the same arguments goes on from there, bit for bit on a CPU. It stays when the
        run is done: whoever has put the model safely away removes it. `reference` may be
        None for an objective that uses none. Returns counts for a manifest. Raises NonFiniteError before an update by
        a loss or gradient that is not finite, with the last good state saved, and before weights that are not finite
        would be written.
        """
        from aipo.training.job import Job, check, hold_out
        from aipo.training.loop import train
        from aipo.training.processes.world import World

        out.mkdir(parents=True, exist_ok=True)
        if not evaluation_pairs:
            pairs, evaluation_pairs = hold_out(pairs, self.evaluation_share, seed)
            evaluation_reference = reference
        start = self._start(policy)
        job = Job(start, pairs, reference, objective_config, out, seed, evaluation_pairs, evaluation_reference)
        if self.world_size > 1 and int(os.environ.get("WORLD_SIZE", "1")) == 1:
            from aipo.training.processes.launch import train_in_processes

            check(self, job)
            return train_in_processes(self, job, log)
        return train(self, job, World.join(self.world_size), log)

    def trained(self, policy: PolicyRef, out: Path) -> PolicyRef:
        """The successor of `policy` that `run` writes, or would write, to `out`."""
        masters = str(out / "masters") if self.keep_masters and policy.dtype != "float32" else None
        return replace(policy, path=str(out / "model"), masters=masters, revision=None)

    def _start(self, policy: PolicyRef) -> PolicyRef:
        """The policy as training goes on from it: from its rounded weights where masters are not kept."""
        return policy if self.keep_masters else replace(policy, masters=None)
