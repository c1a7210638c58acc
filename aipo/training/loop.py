"""The loop: batches in a seeded order, one optimizer step each, for any objective. It names none."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from aipo.artifacts.files import sync_file
from aipo.models.batching import shared_row_tokens
from aipo.terminal import bar
from aipo.training.checkpoint import Checkpoints, MetricsFile
from aipo.training.gradients import METRICS, BatchGradient, BatchResult
from aipo.training.job import Job, LossInputs, NonFiniteError, check
from aipo.training.memory import default_tokens_per_batch, find_tokens_per_batch, peak_memory_gib, reset_peak
from aipo.training.processes.preemption import Interruption, Preemption
from aipo.training.processes.world import ALONE, World
from aipo.training.schedule import step_indices, steps_per_epoch, warmup_cosine
from aipo.training.weights.artifact import write_policy
from aipo.training.weights.replicated import Strategy

if TYPE_CHECKING:
    from aipo.training.settings import TrainingSettings

IDLE_SHARE_WARNED = 0.1
"""A larger share of pairs in steps with learning rate 0 is warned of."""
HIGH_RATE, LARGE_MODEL = 1e-4, 10_000_000
"""A higher learning rate for more weights than that is warned of."""


def train(
    settings: TrainingSettings,
    job: Job,
    world: World,
    log: Callable[[Mapping[str, float]], None],
    started: Callable[[], None] = lambda: None,
    interruption: Interruption | None = None,
) -> dict[str, float | int]:
    """Train in this process, one of `world.size`. Only the main process writes files and calls `log`.

    `started` is called once, in the main process, when `metrics.jsonl` holds the rows of this run and no others.
    `interruption` None: a cluster's signal to this process.
    """
    objective, inputs, evaluation = check(settings, job)
    strategy = build_strategy(settings, job, world)
    together = world if strategy.sharded else ALONE
    checkpoints = Checkpoints(job.out / "checkpoints", job.identity(settings.identity()), together)
    saved = checkpoints.load()
    optimizer = _optimizer(settings, strategy)
    gradient = BatchGradient(
        strategy.forward, strategy.scorer.collate, objective, world, 1, inputs.pairs[0] if strategy.sharded else None
    )
    kept = None if saved is None else _kept_tokens(settings, world, saved.values)
    if kept is None:  # before a checkpoint brings the optimizer's state, for which the search leaves room
        kept = world.from_main(_tokens_per_batch(settings, strategy, inputs, gradient))
        if saved is not None and "found_under" not in saved.values:
            kept = min(kept, saved.values["tokens_per_batch"])
    gradient.tokens_per_batch = kept
    if saved is not None:
        strategy.resume(saved, optimizer)
        torch.set_rng_state(saved.values["rng"])
    run = _Run(settings, job, world, strategy, optimizer, gradient, inputs, evaluation, checkpoints)
    done = 0 if saved is None else saved.step
    if interruption is not None:
        return run.to_the_end(done, log, started, interruption)
    with Preemption() as preemption:
        return run.to_the_end(done, log, started, preemption)


class _Run:
    def __init__(
        self,
        settings: TrainingSettings,
        job: Job,
        world: World,
        strategy: Strategy,
        optimizer: torch.optim.Optimizer,
        gradient: BatchGradient,
        inputs: LossInputs,
        evaluation: LossInputs,
        checkpoints: Checkpoints,
    ) -> None:
        self.settings, self.job, self.world, self.strategy = settings, job, world, strategy
        self.optimizer, self.gradient, self.inputs, self.evaluation = optimizer, gradient, inputs, evaluation
        self.checkpoints = checkpoints
        self.lengths = [shared_row_tokens(pair) for pair in inputs.pairs]
        self.total_steps = settings.epochs * steps_per_epoch(len(inputs.pairs), settings.pairs_per_step)
        self.idle_pairs = self._pairs_at_rate_zero()
        self._warn_of_rate()
        self.saved_at = time.monotonic()

    def to_the_end(
        self,
        done: int,
        log: Callable[[Mapping[str, float]], None],
        started: Callable[[], None],
        interruption: Interruption,
    ) -> dict[str, float | int]:
        metrics = None
        if self.world.is_main:
            metrics = MetricsFile(self.job.out / "metrics.jsonl", done)
            started()
        for row in metrics.rows if metrics else ():
            log(row)
        with bar(self.total_steps, "train", initial=done, hidden=not self.world.is_main) as shown:
            for step in range(done, self.total_steps):
                row = self._step(step)
                if metrics:
                    metrics.append(row)
                    log(row)
                shown.note(loss=f"{row['loss']:.4f}", margin=f"{row['reward_margin']:.3f}")
                shown.update()
                self._maybe_save(step + 1, interruption)
        return self._finish(metrics)

    def _step(self, step: int) -> dict[str, float]:
        started = time.perf_counter()
        reset_peak(self.world.device)
        indices = step_indices(step, len(self.inputs.pairs), self.settings.pairs_per_step, self.job.seed)
        mine = self.world.share(indices, self.lengths)
        result = self.gradient.accumulate(self.inputs.take(mine), len(indices))
        row = {"step": step + 1, "pairs": len(indices), **self._means(result)}
        norm = self.strategy.clip(self.settings.max_grad_norm)
        if not (math.isfinite(row["loss"]) and math.isfinite(norm)):
            self.strategy.zero_grad()
            self._save(step)
            raise NonFiniteError(
                f"step {step + 1}: loss {row['loss']}, gradient norm {norm}; expected finite values. The weights after "
                f"step {step} are kept in {self.checkpoints.folder}. "
                "Look at this step's pairs, the learning rate and beta."
            )
        rate = self.settings.learning_rate * warmup_cosine(step, self.total_steps, self.settings.warmup_ratio)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.strategy.publish()
        self.strategy.zero_grad()
        seconds = time.perf_counter() - started
        row |= {
            "grad_norm": norm,
            "learning_rate": rate,
            "tokens_per_s": row.pop("tokens") / seconds,
            "pairs_per_s": len(indices) / seconds,
            "peak_memory_gib": peak_memory_gib(self.world.device),
        }
        every = self.settings.evaluate_every_steps
        if self.evaluation.pairs and (step + 1 == self.total_steps or (every and (step + 1) % every == 0)):
            row |= self._evaluate()
        return row

    def _warn_of_rate(self) -> None:
        weights = sum(weight.numel() for weight in self.strategy.parameters())
        high = self.settings.learning_rate > HIGH_RATE and weights > LARGE_MODEL
        if high and self.settings.adapters is None and self.world.is_main:
            logging.getLogger("aipo").warning(
                f"train: trainer.learning_rate={self.settings.learning_rate:g} for {weights:,} weights, all trained; "
                "preference training of a model of that size takes 5e-7 to 1e-5 (3e-4 is the miniature's)"
            )

    def _pairs_at_rate_zero(self) -> int:
        """How many pairs, repeated ones included, stand in steps whose learning rate is 0. Warns where many do."""
        pairs, settings = len(self.inputs.pairs), self.settings
        idle = sum(
            len(step_indices(step, pairs, settings.pairs_per_step, self.job.seed))
            for step in range(self.total_steps)
            if warmup_cosine(step, self.total_steps, settings.warmup_ratio) == 0
        )
        if idle > IDLE_SHARE_WARNED * pairs * settings.epochs and self.world.is_main:
            logging.getLogger("aipo").warning(
                f"train: {pairs} pairs make {self.total_steps} optimizer step(s) of at most {settings.pairs_per_step}; "
                f"the warm-up starts at learning rate 0, so {idle} pairs train nothing. Give more pairs, lower "
                "trainer.pairs_per_step, or set trainer.warmup_ratio=0"
            )
        return idle

    def _means(self, result: BatchResult) -> dict[str, float]:
        """Means over the pairs of all processes; `tokens` is their sum."""
        local = [*(result.sums[name] for name in METRICS), result.pairs, result.tokens]
        values = self.world.sum_(torch.tensor(local, dtype=torch.float64, device=self.world.device)).tolist()
        pairs, tokens = values[-2:]
        means = {name: value / pairs for name, value in zip(METRICS, values, strict=False)}
        if self.inputs.reference is None:
            means = {name: value for name, value in means.items() if not name.startswith("reference_")}
        return means | {"reward_margin": means["chosen_reward"] - means["rejected_reward"], "tokens": tokens}

    def _evaluate(self) -> dict[str, float]:
        """Loss, reward margin and accuracy on the held-out pairs, in batches as large as a training step's."""
        totals = dict.fromkeys(("loss", "reward_margin", "reward_accuracy"), 0.0)
        lengths = [shared_row_tokens(pair) for pair in self.evaluation.pairs]
        size = self.settings.pairs_per_step
        for start in range(0, len(lengths), size):
            indices = list(range(start, min(start + size, len(lengths))))
            part = self.evaluation.take(self.world.share(indices, lengths))
            means = self._means(self.gradient.evaluate(part))
            for name in totals:
                totals[name] += means[name] * len(indices)
        return {f"evaluation_{name}": value / len(lengths) for name, value in totals.items()}

    def _maybe_save(self, done: int, interruption: Interruption) -> None:
        steps, seconds = self.settings.checkpoint_every_steps, self.settings.checkpoint_every_seconds
        due = bool(steps and done % steps == 0) or bool(seconds and time.monotonic() - self.saved_at >= seconds)
        # One process's clock or signal decides for all of them.
        wish = self.world.largest(2 if interruption.requested else int(due))
        if wish and done < self.total_steps:
            self._save(done)
        if wish == 2:
            self.world.wait()
            interruption.pass_on()

    def _save(self, done: int) -> None:
        if self.world.is_main:
            sync_file(self.job.out / "metrics.jsonl")  # before a checkpoint that says these rows are there
        if self.world.is_main or self.strategy.sharded:
            values: dict[str, Any] = {"tokens_per_batch": self.gradient.tokens_per_batch, "rng": torch.get_rng_state()}
            values["found_under"] = _circumstances(self.settings, self.world)
            self.checkpoints.save(done, self.strategy.tensors(self.optimizer), values)
        self.saved_at = time.monotonic()

    def _finish(self, metrics: MetricsFile | None) -> dict[str, float | int]:
        model = self.strategy.final_model()
        if metrics is None or model is None:
            self.world.wait()
            return {}
        update = write_policy(model, self.job.policy, self.job.out, keep_masters=self.settings.keep_masters)
        self.world.wait()
        rows = metrics.rows
        summary: dict[str, float | int] = {"pairs": len(self.inputs.pairs), "steps": len(rows)}
        summary |= {f"last_{name}": rows[-1][name] for name in ("loss", "reward_margin", "reward_accuracy")}
        summary |= {**update, "pairs_at_rate_zero": self.idle_pairs, "evaluation_pairs": len(self.evaluation.pairs)}
        summary |= {name: value for name, value in rows[-1].items() if name.startswith("evaluation_")}
        summary["pairs_per_s"] = sum(row["pairs_per_s"] for row in rows) / len(rows)
        summary["peak_memory_gib"] = max(row["peak_memory_gib"] for row in rows)
        summary["tokens_per_batch"] = self.gradient.tokens_per_batch
        if self.settings.processes_here is not None:  # its sums round otherwise: the manifest says so
            summary["processes_here"] = self.world.size
        return summary


def _optimizer(settings: TrainingSettings, strategy: Strategy) -> torch.optim.Optimizer:
    parameters = list(strategy.parameters())
    arguments: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": tuple(settings.betas),
        "eps": settings.epsilon,
        "weight_decay": settings.weight_decay,
    }
    try:
        return torch.optim.AdamW(parameters, fused=True, **arguments)
    except RuntimeError:  # a device without the fused kernel
        return torch.optim.AdamW(parameters, **arguments)


def _circumstances(settings: TrainingSettings, world: World) -> dict[str, float | int | None]:
    """What decides how many tokens of a micro-batch are found, beside the job itself."""
    device = world.device
    return {
        "memory_limit_gib": settings.memory_limit_gib,
        "device_bytes": torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None,
        "processes": world.size,
    }


def _kept_tokens(settings: TrainingSettings, world: World, values: Mapping[str, Any]) -> int | None:
    """A checkpoint's tokens of a micro-batch; None where they have to be found again.

    A checkpoint that does not say where they were found keeps them, unless a limit may ask for fewer.
    """
    kept: int = values["tokens_per_batch"]
    if settings.tokens_per_batch is not None:
        return kept
    if "found_under" not in values:
        return kept if settings.memory_limit_gib is None else None
    same = world.from_main(values["found_under"] == _circumstances(settings, world))
    return kept if same else None


def _tokens_per_batch(
    settings: TrainingSettings, strategy: Strategy, inputs: LossInputs, gradient: BatchGradient
) -> int:
    if settings.tokens_per_batch is not None:
        return settings.tokens_per_batch
    if settings.memory_limit_gib is None and gradient.world.device.type == "cpu":
        return default_tokens_per_batch("cpu", settings.layout)
    longest = max(range(len(inputs.pairs)), key=lambda index: shared_row_tokens(inputs.pairs[index]))
    width = shared_row_tokens(inputs.pairs[longest])

    def attempt(rows: int) -> int:
        gradient.tokens_per_batch = rows * width
        try:
            gradient.accumulate(inputs.take([longest] * rows), rows)
        finally:
            strategy.zero_grad()
        return rows * width

    largest = settings.pairs_per_step * width
    # Two Adam moments per weight do not exist yet when this is measured.
    return find_tokens_per_batch(
        attempt, gradient.world.device, settings.memory_limit_gib, largest, reserve_bytes=strategy.optimizer_bytes()
    )


def build_strategy(settings: TrainingSettings, job: Job, world: World) -> Strategy:
    """Load the policy and lay its weights out as `settings.strategy` says."""
    if world.size > 1 and settings.strategy == "fsdp2":
        from aipo.training.weights.sharded import Sharded

        return Sharded(settings, job, world)
    return Strategy(settings, job, world)
