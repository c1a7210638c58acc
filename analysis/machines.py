"""On which kinds of machine a sweep's policies were trained: the last bits of float sums depend on them.

Equal fingerprints promise equal numbers on one kind of CPU, with its instruction set, device and thread count. A table
whose jobs were made on several kinds is sound, but a repetition of it is not equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.collect import AnalysisError, Sweep, read_manifest

KIND = ("cpu", "instruction_set", "devices", "threads")


def kinds(sweep: Sweep) -> dict[str, tuple[str, ...]]:
    """Kind of machine -> the jobs with a policy that was trained on one. Artifacts that cannot be read are left out."""
    found: dict[str, dict[str, None]] = {}
    for run in sweep.runs:
        for point in run.points:
            if point.train is None:
                continue
            try:
                manifest = read_manifest(run.store, "train", point.train)
            except AnalysisError:  # told by the tables that need it
                continue
            if "cpu" in manifest:
                found.setdefault(_label(manifest), {})[run.job] = None
    return {label: tuple(jobs) for label, jobs in found.items()}


def note(sweep: Sweep) -> str | None:
    """One sentence where more than one kind of machine trained the sweep's policies."""
    found = kinds(sweep)
    if len(found) < 2:
        return None
    listed = "; ".join(f"{label}: {len(jobs)} job{'s' * (len(jobs) > 1)}" for label, jobs in sorted(found.items()))
    return (
        f"The policies were trained on {len(found)} kinds of machine ({listed}). Equal settings give equal numbers on "
        "one kind only: differences of the size of one seed's may come from it"
    )


def _label(manifest: Mapping[str, Any]) -> str:
    devices = ", ".join(manifest.get("devices") or []) or f"{manifest.get('threads')} thread(s)"
    return f"{manifest['cpu']}, {manifest.get('instruction_set')}, {devices}"
