"""What a run would cost and what it lacks, told without running it."""

from aipo.planning.costs import Hardware, Workload

__all__ = [
    "Hardware",
    "Workload",
]
