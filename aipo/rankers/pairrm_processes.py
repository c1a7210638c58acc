"""PairRM's comparisons shared out among processes, each with the model on a device of its own.

`python -m aipo.rankers.pairrm_processes <folder> <rank> <parent>` is one of them. It reads the rows from the folder,
takes every n-th batch, and writes each logit to its place in a file that all of them share.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from aipo.rankers.checkpoint import PairRMError
from aipo.rankers.pairrm_scoring import Comparison, comparison_batches, comparison_logits, weight_dtype
from aipo.terminal import bar

_POLL_SECONDS = 0.1
_LINES_SHOWN = 5


@dataclass(frozen=True)
class Task:
    """What every process has to know besides the rows."""

    path: str
    revision: str | None
    dtype: str
    cells: int
    pad: int
    processes: int


def useful_processes(wanted: int, batches: int) -> int:
    """At most as many as were asked for, as there are batches and, with accelerators, as there are of those here."""
    devices = torch.cuda.device_count() if torch.cuda.is_available() else wanted
    return max(1, min(wanted, batches, devices))


def logits_in_processes(task: Task, rows: Sequence[Comparison]) -> list[float]:
    """The logit of every row, by `task.processes` processes. PairRMError with what the first that failed said.

    The batches are those that one process would make, so that rows are padded alike.
    """
    with tempfile.TemporaryDirectory(prefix="aipo-pairrm-") as name:
        folder = Path(name)
        (folder / "task.json").write_text(json.dumps(asdict(task)), encoding="utf-8")
        np.savez(
            folder / "rows.npz",
            ids=np.concatenate([np.asarray(row.ids, dtype=np.int64) for row in rows]),
            lengths=np.array([len(row.ids) for row in rows]),
            markers=np.array([row.markers for row in rows]),
        )
        logits = np.lib.format.open_memmap(folder / "logits.npy", "w+", np.float64, (len(rows),))
        logits[:] = np.nan
        logits.flush()
        _wait_for(folder, task.processes, logits)
        return [float(value) for value in logits]


def _wait_for(folder: Path, processes: int, logits: np.ndarray) -> None:
    children: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(processes):
            with (folder / f"errors-{rank}.txt").open("wb") as errors:
                command = [sys.executable, "-m", __name__, str(folder), str(rank), str(os.getpid())]
                children.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors))
        with bar(len(logits), "PairRM") as shown:
            while any(child.poll() is None for child in children):
                if any(child.poll() for child in children):
                    break
                time.sleep(_POLL_SECONDS)
                shown.update(int(np.isfinite(logits).sum()) - shown.n)
            shown.update(len(logits) - shown.n)
        for rank, child in enumerate(children):
            if child.poll():
                said = (folder / f"errors-{rank}.txt").read_text(encoding="utf-8", errors="replace").splitlines()
                raise PairRMError(
                    f"process {rank} of {processes} that ranked failed (exit status {child.returncode}): "
                    + ("\n".join(said[-_LINES_SHOWN:]) or "it said nothing; too little memory ends a process so")
                    + "\nOne process (ranker.processes=1) needs less memory, as do smaller ranker.max_attention_cells"
                )
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
            child.wait()


def main(folder: Path, rank: int, parent: int) -> None:
    """Do the share of process `rank`, as long as the process `parent` lives."""
    from aipo.rankers.pairrm_model import load_pairrm

    task = Task(**json.loads((folder / "task.json").read_text(encoding="utf-8")))
    with np.load(folder / "rows.npz") as saved:
        ids, lengths, markers = saved["ids"], saved["lengths"], saved["markers"]
    parts = np.split(ids, lengths.cumsum()[:-1])
    rows = [
        Comparison(tuple(part.tolist()), tuple(places)) for part, places in zip(parts, markers.tolist(), strict=True)
    ]
    if torch.cuda.is_available():
        device = f"cuda:{rank}"
    else:
        device = "cpu"
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // task.processes))
    model = load_pairrm(task.path, task.revision, weight_dtype(task.dtype)).to(device)
    logits = np.lib.format.open_memmap(folder / "logits.npy", "r+")
    mine = comparison_batches(rows, task.cells)[rank :: task.processes]
    for batch, values in comparison_logits(model, task.pad, rows, mine, task.dtype):
        logits[batch] = values
        if os.getppid() != parent:
            return
    logits.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
