"""One process of a training run with several: `torchrun ... -m aipo.training.worker <folder>`.

The folder is written by `aipo.training.launch`, which starts this module and reads what it leaves.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path


def main(folder: Path) -> None:
    """Train as one of the processes of the job in `folder`; the main one leaves `summary.json`."""
    from aipo.training.launch import read_job
    from aipo.training.loop import train
    from aipo.training.processes import World

    settings, job = read_job(folder)
    world = World.join(settings.processes)
    summary = train(settings, job, world, lambda row: None, started=lambda: (folder / "started").touch())
    if world.is_main:
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    world.leave()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        main(place)
    except Exception:
        rank = os.environ.get("RANK", "0")
        (place / f"error-{rank}.txt").write_text(traceback.format_exc(), encoding="utf-8")
        traceback.print_exc()
        sys.stderr.flush()
        # Not sys.exit: the other processes may wait for this one in a collective, and torchrun must see a failure now.
        os._exit(13)
