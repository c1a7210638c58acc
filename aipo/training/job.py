"""One training run as an object: its pairs, their reference rows, and all that can be wrong with them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aipo.models.batching import PairBatch, require_trainable
from aipo.models.logps import SideLogps
from aipo.models.policy import PolicyRef
from aipo.objectives import Objective, PairLogps
from aipo.records import Pair, ReferenceLogps, read_parquet, to_row, write_parquet
from aipo.training.settings import TrainingSettings

TENSOR_END = 4096
"""Bytes at either end of a tensor that tell a policy from another."""


class MissingReferenceError(ValueError):
    """Some pairs have no reference log-probs."""


def align_reference(pairs: Sequence[Pair], reference: Sequence[ReferenceLogps]) -> list[ReferenceLogps]:
    """The reference row of every pair, in the order of `pairs`. Missing or repeated rows raise."""
    by_pair = {row.pair_id: row for row in reference}
    if len(by_pair) != len(reference):
        raise MissingReferenceError(
            f"{len(reference)} reference rows for {len(by_pair)} pair ids; each id once, please"
        )
    missing = [pair.pair_id for pair in pairs if pair.pair_id not in by_pair]
    if missing:
        raise MissingReferenceError(
            f"{len(missing)} of {len(pairs)} pairs have no reference log-probs, the first: {missing[:3]}; "
            "compute them for these pairs with compute_reference_logps"
        )
    return [by_pair[pair.pair_id] for pair in pairs]


class MissingInputError(ValueError):
    """The objective needs something that the pairs do not have."""


class NonFiniteError(RuntimeError):
    """A loss, gradient or weight is not finite."""


@dataclass(frozen=True)
class LossInputs:
    """Pairs and what the objective needs beside the policy's log-probs. `reference` is aligned with `pairs`."""

    pairs: Sequence[Pair]
    reference: Sequence[ReferenceLogps] | None

    def check(self, objective: Objective) -> None:
        """Raise MissingInputError when `objective` needs something that is not there."""
        if objective.uses_reference and self.reference is None:
            raise MissingInputError(f"objective {objective.name} needs reference log-probs; none were given")
        if objective.uses_win_probability:
            without = [pair.pair_id for pair in self.pairs if pair.win_probability is None]
            if without:
                raise MissingInputError(
                    f"objective {objective.name} needs the ranker's win probability; {len(without)} of "
                    f"{len(self.pairs)} pairs have none, the first: {without[:3]}. Choose a ranker that gives one."
                )

        if objective.uses_sample and objective.uses_reference:
            bare = [row.pair_id for row in self.reference or () if row.chosen_sample is None]
            if bare:
                raise MissingInputError(
                    f"objective {objective.name} needs the reference's log-probs of sampled tokens; {len(bare)} of "
                    f"{len(self.pairs)} rows have none, the first: {bare[:3]}. Use iteration.reference_logps=model."
                )
        if objective.uses_win_shares:
            without = [p.pair_id for p in self.pairs if p.chosen_win_share is None or p.rejected_win_share is None]
            if without:
                raise MissingInputError(
                    f"objective {objective.name} needs win shares against all candidates; {len(without)} of "
                    f"{len(self.pairs)} pairs have none, the first: {without[:3]}. Build the pairs for this objective, "
                    "with a ranker that gives win probabilities."
                )

    def take(self, indices: Sequence[int]) -> LossInputs:
        """The pairs at `indices`."""
        reference = None if self.reference is None else [self.reference[index] for index in indices]
        return LossInputs([self.pairs[index] for index in indices], reference)

    def pair_logps(self, objective: Objective, policy: SideLogps, batch: PairBatch) -> PairLogps:
        """What `objective` is called with. Nothing it does not declare is handed over."""

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=policy.chosen.dtype, device=policy.chosen.device)

        logps = PairLogps(policy.chosen, policy.rejected, None, None, batch.chosen_tokens, batch.rejected_tokens)
        rows = self.reference or ()
        if objective.uses_reference:
            logps = replace(
                logps,
                reference_chosen=column([row.chosen for row in rows]),
                reference_rejected=column([row.rejected for row in rows]),
            )
        if objective.uses_prefix:
            logps = replace(
                logps,
                policy_chosen_prefix=policy.chosen_prefix,
                policy_rejected_prefix=policy.rejected_prefix,
            )
        if objective.uses_prefix and objective.uses_reference:
            logps = replace(
                logps,
                reference_chosen_prefix=column([row.chosen_prefix for row in rows]),
                reference_rejected_prefix=column([row.rejected_prefix for row in rows]),
            )
        if objective.uses_sample:
            logps = replace(
                logps, policy_chosen_sample=policy.chosen_sample, policy_rejected_sample=policy.rejected_sample
            )
        if objective.uses_sample and objective.uses_reference:
            logps = replace(
                logps,
                reference_chosen_sample=column([float(row.chosen_sample or 0.0) for row in rows]),
                reference_rejected_sample=column([float(row.rejected_sample or 0.0) for row in rows]),
            )
        if objective.uses_alignment:
            logps = replace(
                logps, chosen_alignment=policy.chosen_alignment, rejected_alignment=policy.rejected_alignment
            )
        if objective.uses_win_probability:
            logps = replace(logps, win_probability=column([float(pair.win_probability or 0.0) for pair in self.pairs]))
        if objective.uses_win_shares:
            logps = replace(
                logps,
                chosen_win_share=column([float(pair.chosen_win_share or 0.0) for pair in self.pairs]),
                rejected_win_share=column([float(pair.rejected_win_share or 0.0) for pair in self.pairs]),
            )
        return logps


@dataclass(frozen=True)
class Job:
    """Everything one training run works on."""

    policy: PolicyRef
    pairs: Sequence[Pair]
    reference: Sequence[ReferenceLogps] | None
    objective_config: Mapping[str, Any]
    out: Path
    seed: int
    evaluation_pairs: Sequence[Pair] = ()
    evaluation_reference: Sequence[ReferenceLogps] | None = None

    def inputs(self) -> LossInputs:
        """The training pairs with their reference rows."""
        return LossInputs(self.pairs, None if self.reference is None else align_reference(self.pairs, self.reference))

    def evaluation_inputs(self) -> LossInputs:
        """The held-out pairs with theirs."""
        rows = self.evaluation_reference
        return LossInputs(self.evaluation_pairs, None if rows is None else align_reference(self.evaluation_pairs, rows))

    def objective(self) -> Objective:
        """The objective that the config describes."""
        from hydra.utils import instantiate

        return instantiate(dict(self.objective_config))

    def identity(self, settings: Mapping[str, Any]) -> str:
        """What must not change between a run and its resumption. Where the policy's folder lies is not part of it."""
        content = {
            "settings": settings,
            "policy": _policy_identity(self.policy),
            "pairs": _rows_identity(self.pairs),
            "reference": _rows_identity(self.reference),
            "evaluation": [_rows_identity(self.evaluation_pairs), _rows_identity(self.evaluation_reference)],
            "objective": self.objective_config,
            "seed": self.seed,
        }
        return sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _rows_identity(rows: Sequence[Pair] | Sequence[ReferenceLogps] | None) -> str | None:
    """Of every field of every row, in order: two rounds give their pairs the same ids."""
    if rows is None:
        return None
    content = sha256()
    for row in rows:
        content.update(json.dumps(to_row(row), sort_keys=True).encode())
    return content.hexdigest()


def _policy_identity(policy: PolicyRef) -> dict[str, Any]:
    """The reference without the place of local folders; for that, what `_weights_identity` says of their files."""
    values = {name: value for name, value in dataclasses.asdict(policy).items() if name != "shape"}
    for key in ("path", "masters"):
        if values[key] is not None and (folder := Path(values[key])).is_dir():
            values[key] = {file.name: _weights_identity(file) for file in sorted(folder.glob("*.safetensors"))}
    return values


def _weights_identity(file: Path) -> str:
    """Of a safetensors file's header and the ends of each of its tensors: a step of training changes all of them.

    Not of every byte, which for 70 B weights takes minutes; the store compares those before training begins.
    """
    content = sha256()
    with file.open("rb") as weights:
        length = int.from_bytes(prefix := weights.read(8), "little")
        header = weights.read(length)
        content.update(prefix + header)
        for name, tensor in sorted(json.loads(header).items()):
            if name == "__metadata__":
                continue
            start, end = tensor["data_offsets"]
            for place in (start, max(start, end - TENSOR_END)):
                weights.seek(8 + length + place)
                content.update(weights.read(min(TENSOR_END, end - place)))
    return content.hexdigest()


def hold_out(pairs: Sequence[Pair], share: float, seed: int) -> tuple[Sequence[Pair], Sequence[Pair]]:
    """(pairs to train on, pairs to evaluate on), each in their order. The same seed holds out the same places.

    `share` of 0 holds out none; any other at least one pair, where two are there.
    """
    count = min(len(pairs) - 1, max(1, round(share * len(pairs)))) if share > 0 else 0
    if count <= 0:
        return pairs, ()
    generator = torch.Generator().manual_seed(seed * 1_000_003 - 1)
    held = set(torch.randperm(len(pairs), generator=generator)[:count].tolist())
    return [pair for i, pair in enumerate(pairs) if i not in held], [pairs[i] for i in sorted(held)]


def check(settings: TrainingSettings, job: Job) -> tuple[Objective, LossInputs, LossInputs]:
    """Everything that can be wrong with the inputs, before a model is loaded."""
    if not job.pairs:
        raise ValueError("expected at least one pair to train on, got none")
    if (settings.dtype or job.policy.dtype) == "float16":
        raise ValueError(
            "training in float16 is not supported (its range needs loss scaling); set model.dtype=bfloat16, or "
            "trainer.dtype=float32, which trains in float32 what is sampled in float16"
        )
    objective, inputs, evaluation = job.objective(), job.inputs(), job.evaluation_inputs()
    inputs.check(objective)
    require_trainable(job.pairs, settings.max_length)
    if evaluation.pairs:
        evaluation.check(objective)
        require_trainable(evaluation.pairs, settings.max_length)
    return objective, inputs, evaluation


def write_job(folder: Path, settings: TrainingSettings, job: Job) -> None:
    """Everything a worker needs, as files."""
    spec = {
        "settings": dataclasses.asdict(settings),
        "policy": dataclasses.asdict(job.policy),
        "objective": dict(job.objective_config),
        "out": str(job.out.resolve()),  # every node sees the same folder
        "seed": job.seed,
    }
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    for name, rows in (
        ("pairs", job.pairs),
        ("reference", job.reference),
        ("evaluation_pairs", job.evaluation_pairs),
        ("evaluation_reference", job.evaluation_reference),
    ):
        if rows:
            write_parquet(folder / f"{name}.parquet", rows)


def read_job(folder: Path) -> tuple[TrainingSettings, Job]:
    """What `write_job` wrote."""
    from aipo.training.job import Job

    spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))

    def rows(name: str, kind: Any) -> list[Any] | None:
        path = folder / f"{name}.parquet"
        return read_parquet(path, kind) if path.exists() else None

    job = Job(
        policy=PolicyRef(**spec["policy"]),
        pairs=rows("pairs", Pair) or [],
        reference=rows("reference", ReferenceLogps),
        objective_config=spec["objective"],
        out=Path(spec["out"]),
        seed=spec["seed"],
        evaluation_pairs=rows("evaluation_pairs", Pair) or [],
        evaluation_reference=rows("evaluation_reference", ReferenceLogps),
    )
    return TrainingSettings(**spec["settings"]), job
