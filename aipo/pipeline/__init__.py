"""One job of a sweep: its config is checked, its stages run in the order of the paper."""

from aipo.pipeline.sweep import SweepCallback
from aipo.pipeline.trackers import TensorBoardTracker, TrackioTracker, WandbTracker

__all__ = [
    "SweepCallback",
    "TensorBoardTracker",
    "TrackioTracker",
    "WandbTracker",
]
