"""Where measured rows go, and the name of the machine that measured them."""

from __future__ import annotations

import platform
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"


def append_result(heading: str, rows: str) -> None:
    """Add rows below their heading in RESULTS.md, which is made where it does not exist."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Measured speed and memory\n"
    if heading not in text:
        text = text.rstrip("\n") + "\n" + heading
    end = text.index(heading) + len(heading)
    while end < len(text) and text[end] == "|":
        end = text.index("\n", end) + 1
    RESULTS.write_text(text[:end] + rows + text[end:], encoding="utf-8")


def machine_name() -> str:
    """Processor and thread count, for a results row."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{models[0].split(':')[1].strip() if models else platform.processor()}, 1 thread, torch {torch.__version__}"
