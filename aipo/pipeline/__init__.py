"""One job of a sweep: its config is checked, its stages run in the order of the paper."""

from aipo.pipeline.sweep import SweepCallback
from aipo.pipeline.trackers import WandbTracker

__all__ = [
    "SweepCallback",
    "WandbTracker",
]
