"""What a run would cost and what it lacks, told without running it."""

from aipo.planning.costs import Hardware, Workload
from aipo.planning.resources import Resources

__all__ = [
    "Hardware",
    "Resources",
    "Workload",
]
