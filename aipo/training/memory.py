"""Peak memory, and how many tokens of a micro-batch fit under a limit."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from pathlib import Path

import torch

DEFAULT_TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 16384, "mps": 4096}
"""Padded input tokens of a micro-batch by default. On a CPU, small batches pad least and cost nothing."""
PACKED_TOKENS_PER_BATCH = 640
"""The same on a CPU with layout=cheapest: nothing is padded, so what fits a core's cache is fastest
(speed/RESULTS.md)."""

_GIB = 2**30


def default_tokens_per_batch(device: str, layout: str | None) -> int:
    """Where neither a number nor a limit is set."""
    return PACKED_TOKENS_PER_BATCH if device == "cpu" and layout == "cheapest" else DEFAULT_TOKENS_PER_BATCH[device]


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory since `reset_peak`: allocated on a GPU; on a CPU the resident set of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _GIB
    for line in _status_lines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / _GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB


def release_cached_memory() -> None:
    """Give GPU memory that nothing uses any more back to the driver: other processes cannot use what one caches."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def reset_peak(device: torch.device) -> None:
    """Start measuring anew. On a CPU this works on Linux; elsewhere the peak is that of the process's whole life."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _status_lines() -> list[str]:
    try:
        return Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def find_tokens_per_batch(
    attempt: Callable[[int], int],
    device: torch.device,
    limit_gib: float | None,
    largest: int,
    reserve_bytes: int,
) -> int:
    """The most padded tokens per micro-batch whose forward and backward pass stays under `limit_gib`.

    `attempt(rows)` runs both passes on that many copies of the longest row and returns its padded tokens. Memory grows
    linearly with rows, so one and two rows give the line. `limit_gib` None: 90 % of the GPU's memory. `reserve_bytes`
    are left for what is allocated later, the optimizer's state. Never more than `largest`, never fewer than one row:
    MemoryError where not even that fits. A second row that a GPU has no room for leaves it at one.
    """
    if limit_gib is None:
        limit_gib = 0.9 * torch.cuda.get_device_properties(device).total_memory / _GIB
    limit_gib -= reserve_bytes / _GIB
    measured: list[tuple[int, float]] = []
    for rows in (1, 1, 2):  # the first warms up: libraries, workspaces, gradients
        reset_peak(device)
        try:
            tokens = attempt(rows)
        except torch.OutOfMemoryError:
            break
        measured.append((tokens, peak_memory_gib(device)))
    release_cached_memory()
    remedy = (
        "shorten the pairs, turn on gradient_checkpointing, use more processes with fsdp2, or raise memory_limit_gib"
    )
    if len(measured) < 2:
        raise MemoryError(f"the longest row does not fit into the device's memory at all; {remedy}")
    one, base = measured[1]
    if base > limit_gib:
        raise MemoryError(
            f"one row of {one} tokens needs {base:.2f} GiB, {limit_gib:.2f} are left for it (optimizer and "
            f"memory_limit_gib taken off); {remedy}"
        )
    if len(measured) == 2:
        return one
    two, more = measured[2]
    per_token = max((more - base) / (two - one), 1e-9)
    return max(one, min(largest, one + int((limit_gib - base) / per_token)))
