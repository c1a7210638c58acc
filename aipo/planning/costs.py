"""Hours and tokens of each stage, from the model's shape, the expected lengths and the hardware.

A forward pass costs 2 FLOPs per weight and token plus attention; a training step three times that, four with gradient
checkpointing (the forward is repeated). Decoding is bound by memory: each step reads all weights and the whole
key-value cache. The shares of peak that are really reached are settings of the hardware, to be measured on one's own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from aipo.models.shape import ModelShape
from aipo.rankers.ranker import Reading

GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """One kind of device and how many of them. Rates are per device."""

    devices: int
    memory_gib: float
    tflops: float
    """Dense peak in the precision that is used, in 10^12 FLOP/s."""
    memory_gb_per_s: float
    training_share: float
    """Share of `tflops` that training reaches."""
    prefill_share: float
    """Share of `tflops` that a forward pass reaches."""
    decoding_share: float
    """Share of `memory_gb_per_s` that decoding reaches."""
    server_start_minutes: float = 5.0
    """Until a server has loaded a policy."""
    float32_tflops: float | None = None
    """Peak of a ranker that computes in float32, and `tfloat32_tflops` of one in TF32. None: `tflops`."""
    tfloat32_tflops: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value <= 0:
                raise ValueError(f"hardware.{field.name} must be positive, got {value}")

    def peak(self, dtype: str) -> float:
        """The peak in 10^12 FLOP/s of what multiplies in `dtype`, a ranker's."""
        known = {"float32": self.float32_tflops, "tfloat32": self.tfloat32_tflops}
        return known.get(dtype) or self.tflops


@dataclass(frozen=True)
class Workload:
    """Expected mean lengths in policy tokens, and how the devices are used."""

    prompt_tokens: int
    completion_tokens: int
    answer_tokens: int
    judge_prompt_tokens: int
    judge_reply_tokens: int
    pairs_per_prompt: float
    """Share of prompts that give a pair after the filters."""
    pool_prompts: int
    """Prompts of the pool, where all of it is asked for (iteration.prompts=null) and the data set is not here."""
    self_instruct_tokens_per_prompt: int
    """Tokens read and written for each new prompt that is kept."""
    decoding_batch: int
    """Sequences decoded at once on one replica of the model."""
    judge_requests_per_minute: float = 300.0
    """What a judge answers."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"workload.{field.name} must be positive, got {getattr(self, field.name)}")


@dataclass(frozen=True)
class Cost:
    """Of one stage. `tokens` are read and written."""

    tokens: float
    hours: float


def forward_cost(shape: ModelShape, hardware: Hardware, sequences: float, tokens: float) -> Cost:
    """A forward pass over `sequences` rows of `tokens` each."""
    total = sequences * tokens
    flops = total * shape.forward_flops(tokens)
    return Cost(total, _hours(flops, hardware, hardware.prefill_share))


def decoding_cost(
    shape: ModelShape, hardware: Hardware, workload: Workload, prompts: float, samples: int, new_tokens: float
) -> Cost:
    """`samples` completions of `new_tokens` for each of `prompts`: prefill once a prompt, then one step a token."""
    sequences = prompts * samples
    prefill = forward_cost(shape, hardware, prompts, workload.prompt_tokens)
    replica_devices = devices_per_replica(shape, hardware)
    replicas = max(1, hardware.devices // replica_devices)
    batch = min(workload.decoding_batch, max(1.0, sequences / replicas))
    context = workload.prompt_tokens + new_tokens / 2
    bytes_a_step = 2 * shape.parameters + batch * context * shape.kv_bytes_per_token
    seconds_a_step = bytes_a_step / (replica_devices * hardware.memory_gb_per_s * 1e9 * hardware.decoding_share)
    flops_a_step = batch * shape.forward_flops(context)
    compute_s = flops_a_step / (replica_devices * hardware.tflops * 1e12 * hardware.prefill_share)
    steps = sequences / replicas / batch * new_tokens
    hours = prefill.hours + steps * max(seconds_a_step, compute_s) / 3600
    return Cost(prefill.tokens + sequences * new_tokens, hours)


def training_cost(shape: ModelShape, hardware: Hardware, workload: Workload, pairs: float, checkpointing: bool) -> Cost:
    """One epoch over `pairs`; a pair is one row: its prompt, chosen and rejected."""
    tokens = workload.prompt_tokens + 2 * workload.completion_tokens
    flops = pairs * tokens * shape.forward_flops(tokens) * (4 if checkpointing else 3)
    return Cost(pairs * tokens, _hours(flops, hardware, hardware.training_share))


def reading_cost(hardware: Hardware, reading: Reading) -> Cost:
    """What a ranker's own model reads, on as many devices as its processes take."""
    used = replace(hardware, devices=min(hardware.devices, reading.processes), tflops=hardware.peak(reading.dtype))
    return Cost(reading.tokens, _hours(reading.flops, used, hardware.prefill_share))


def devices_per_replica(shape: ModelShape, hardware: Hardware) -> int:
    """Devices that hold one 16-bit copy of the weights with a quarter of their memory left for the cache."""
    needed = 2 * shape.parameters / GIB / (0.75 * hardware.memory_gib)
    count = 1
    while count < needed and count < hardware.devices:
        count *= 2
    return count


def _hours(flops: float, hardware: Hardware, share: float) -> float:
    return flops / (hardware.devices * hardware.tflops * 1e12 * share) / 3600
