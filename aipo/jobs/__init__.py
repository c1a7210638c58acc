"""The jobs of a sweep: what was asked for, what each one says of itself, and how it stands."""

from aipo.jobs.file import DEAD_AFTER_SECONDS, HEARTBEAT, JobFile, is_alive, mark, slurm_id
from aipo.jobs.record import (
    BASE_ITERATION,
    FILE,
    SCHEMA,
    BenchmarkRecord,
    JobFileError,
    JobRecord,
    Point,
    ProxyRecord,
    ScoreRecord,
    Status,
    read_job,
    store_of,
)
from aipo.jobs.slurm import SlurmState, ask, slurm_states
from aipo.jobs.states import UNFINISHED, JobState, State, states
from aipo.jobs.submissions import (
    SUBMITTED,
    Submission,
    hand_on,
    read_submitted,
    submit,
    successor,
    was_handed_on,
)

__all__ = [
    "BASE_ITERATION",
    "BenchmarkRecord",
    "DEAD_AFTER_SECONDS",
    "FILE",
    "HEARTBEAT",
    "JobFile",
    "JobFileError",
    "JobRecord",
    "JobState",
    "Point",
    "ProxyRecord",
    "SCHEMA",
    "SUBMITTED",
    "ScoreRecord",
    "SlurmState",
    "State",
    "Status",
    "Submission",
    "UNFINISHED",
    "ask",
    "hand_on",
    "is_alive",
    "mark",
    "read_job",
    "read_submitted",
    "slurm_id",
    "slurm_states",
    "states",
    "store_of",
    "submit",
    "successor",
    "was_handed_on",
]
