"""What of the CPU a job uses. Float sums depend on it: equal bits need equal threads and equal vector instructions."""

from __future__ import annotations

import logging
import os
import sys

from aipo.artifacts.provenance import CAPABILITY, has_instructions

INSTRUCTIONS = ("avx2", "all")
"""Of `cpu_instructions`: no wider vectors than AVX2's 256 bits, or what the CPU has."""
CAPS = {CAPABILITY: "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""How torch's own kernels and Intel's library are told to stay with AVX2. Both read it when torch is first imported."""
OURS = "AIPO_CPU_INSTRUCTIONS"
"""Set beside caps that are this package's: a job for all instructions, here or in a process below, lifts those."""
logger = logging.getLogger("aipo")


def limit(threads: int, instructions: str) -> None:
    """Hold this process, and those that it starts, to so many threads and to these instructions.

    With `avx2` a CPU with AVX512 gives the sums of one without (measured on two kinds of AMD EPYC: docs/decisions.md).
    A CPU without AVX2, ARM's among them, does what it can, and what the user's environment says already stays. Call it
    before torch is imported, which building an objective may do, and a job whose stages are all done never does; after,
    the threads alone can be set.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    capped = instructions == "avx2" and has_instructions("avx2")
    if capped and CAPABILITY not in os.environ:
        os.environ.update({name: os.environ.get(name, value) for name, value in CAPS.items()})
        os.environ[OURS] = instructions
    elif not capped and os.environ.pop(OURS, ""):
        for name in CAPS:
            os.environ.pop(name, None)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
        if capped and (used := torch.backends.cpu.get_cpu_capability()) == "AVX512":
            logger.info("cpu_instructions=avx2: torch was imported before this job began and keeps to %s", used)
