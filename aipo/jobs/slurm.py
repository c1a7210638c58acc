"""What Slurm says of its jobs: one question for all of them, by its own commands."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
ACTIVE = ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING")
_TIMEOUT_SECONDS = 30
_IDS_A_QUESTION = 500
"""Array or job numbers in one command line."""


@dataclass(frozen=True)
class SlurmState:
    """How a job stands, in Slurm's words."""

    state: str
    """As PENDING, RUNNING, COMPLETED, CANCELLED, TIMEOUT, NODE_FAIL, OUT_OF_MEMORY; UNKNOWN: it did not answer."""
    reason: str = ""
    """Why it waits, or its exit code and signal."""

    @property
    def waits(self) -> bool:
        """In the queue."""
        return self.state in WAITING

    @property
    def runs(self) -> bool:
        """On a node, or on its way there or away."""
        return self.state in ACTIVE

    @property
    def ended(self) -> bool:
        """It will not run again by itself."""
        return not (self.waits or self.runs or self.state == "UNKNOWN")


def slurm_states(ids: Collection[str]) -> dict[str, SlurmState]:
    """The state of each of `ids`, a job or `<array>_<task>`; without those that Slurm no longer knows, and empty where
    there is no Slurm.

    The queue is asked first; then, for those that left it, the accounting, where there is one. A task of an array that
    is cancelled while it waits gets no account of its own: it is one that is in no queue, of an array that is known.
    """
    wanted = set(ids)
    if not wanted or shutil.which("squeue") is None:
        return {}
    found = {name: state for name, state in _queue(ids) if name in wanted}
    gone = [name for name in ids if name not in found]
    accounts = dict(_accounts(gone))
    known = {name.partition("_")[0] for name in accounts if "_" in name}
    for name in gone:
        state = accounts.get(name)
        if (state is None or state.waits) and "_" in name and name.partition("_")[0] in known:
            state = SlurmState("CANCELLED", "Slurm has its array and no longer the task")
        if state is not None:
            found[name] = state
    return found


def ask(*command: str) -> str | None:
    """What a command of Slurm's prints; None where it is not there, fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0 and "Invalid job id" in done.stderr:  # one job, and it is forgotten
        return ""
    return done.stdout if done.returncode == 0 else None


def _queue(ids: Collection[str]) -> Iterator[tuple[str, SlurmState]]:
    for some in _arrays(ids):
        text = ask("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%r", "-j", some)
        if text is None:
            arrays = set(some.split(","))
            for name in ids:
                if name.partition("_")[0] in arrays:
                    yield name, SlurmState("UNKNOWN", "Slurm did not answer")
        for line in (text or "").splitlines():
            name, state, reason = line.split("|", 2)
            yield name, SlurmState(state, "" if reason in ("None", "(null)") else reason)


def _accounts(ids: Collection[str]) -> Iterator[tuple[str, SlurmState]]:
    for some in _arrays(ids):
        text = ask("sacct", "-n", "-X", "-P", "-o", "JobID,State,ExitCode", "-j", some)
        for line in (text or "").splitlines():
            name, state, code = line.split("|", 2)
            word, _, rest = state.partition(" ")  # CANCELLED by 1000
            why = rest or (f"exit code {code}" if code != "0:0" else "")
            for each in _tasks(name):
                yield each, SlurmState(word, why)


def _arrays(ids: Collection[str]) -> Iterator[str]:
    """The jobs and arrays that `ids` belong to, joined by commas, so many at once."""
    arrays = list(dict.fromkeys(name.partition("_")[0] for name in ids))
    for start in range(0, len(arrays), _IDS_A_QUESTION):
        yield ",".join(arrays[start : start + _IDS_A_QUESTION])


def _tasks(name: str) -> Iterator[str]:
    """`12_[3-5,8%2]`, as the accounting names tasks that never began, is four tasks."""
    if not (found := re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", name)):
        yield name
        return
    for part in found.group(2).split(","):
        first, _, last = part.partition("-")
        for task in range(int(first), int(last or first) + 1):
            yield f"{found.group(1)}_{task}"
