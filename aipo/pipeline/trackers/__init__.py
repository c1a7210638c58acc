"""Where a run's numbers go while it runs. The JSONL record is always kept; others may fail without stopping a run."""

from aipo.pipeline.trackers.local_trackio import TrackioTracker
from aipo.pipeline.trackers.several import JsonlTracker, Trackers
from aipo.pipeline.trackers.tensorboard import TensorBoardTracker
from aipo.pipeline.trackers.tracker import Round, Sample, Tracker
from aipo.pipeline.trackers.weights_and_biases import WandbTracker

__all__ = [
    "JsonlTracker",
    "Round",
    "Sample",
    "TensorBoardTracker",
    "Tracker",
    "Trackers",
    "TrackioTracker",
    "WandbTracker",
]
