"""One process of several: `torchrun ... -m aipo.training.worker <train|reference> <folder>`.

The folder is written by `aipo.training.processes.launch`, which starts this module and reads what it leaves.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path


def main(task: str, folder: Path) -> None:
    """Take part in `task` for the job in `folder`; the main process leaves the result there."""
    from aipo.records import write_parquet
    from aipo.training.job import read_job
    from aipo.training.loop import train
    from aipo.training.processes.launch import RESULTS, STOP
    from aipo.training.processes.preemption import StopFile, Stopped
    from aipo.training.processes.world import World
    from aipo.training.reference import compute_reference_logps

    settings, job = read_job(folder)
    world = World.join(settings.world_size)
    result = folder / RESULTS[task]
    if task == "train":
        try:
            summary = train(
                settings,
                job,
                world,
                lambda row: None,
                started=lambda: (folder / "started").touch(),
                interruption=StopFile(folder / STOP),
            )
        except Stopped:
            summary = None
        if world.is_main and summary is not None:
            result.write_text(json.dumps(summary), encoding="utf-8")
    else:
        sharded = settings.strategy == "fsdp2"
        rows = compute_reference_logps(
            job.policy, job.pairs, world=world, sharded=sharded, dtype=settings.dtype, layout=settings.layout
        )
        if world.is_main:
            write_parquet(result, rows)
    world.leave()


if __name__ == "__main__":
    place = Path(sys.argv[2])
    try:
        main(sys.argv[1], place)
        sys.stdout.flush()
        sys.stderr.flush()
        # Not a return: gloo's threads abort one exit in some thirty while the interpreter is taken down.
        os._exit(0)
    except Exception:
        rank = os.environ.get("RANK", "0")
        (place / f"error-{rank}.txt").write_text(traceback.format_exc(), encoding="utf-8")
        traceback.print_exc()
        sys.stderr.flush()
        # Not sys.exit: the other processes may wait for this one in a collective, and torchrun must see a failure now.
        os._exit(13)
