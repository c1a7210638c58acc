"""An optimizer step of DPO at several shapes: ours against a plain loop, TRL at its best setting, and Liger's loss.

    python speed/step_race.py                                    # all shapes; an hour and more
    python speed/step_race.py --shapes uniform --alternations 5 --dry

One thread, CPU seconds of each process, so that other work on the machine counts little. Every side is a process that
stays; each setting of a peer (pairs at a time) takes one step first, and its best one then runs in turns with ours.
Liger is a side where `liger-kernel` can be imported. `speed/train_step.py` measures whole epochs and memory alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from results_table import append_result, machine_name
from workplace import SHAPES, Shape, make_workplace

from aipo.records import Pair, markdown_header, markdown_row, read_parquet

SMALL = dataclasses.replace(SHAPES["cpu"], vocabulary=8000, pairs=4, pairs_per_step=4, epochs=1)
RACES: dict[str, Shape] = {
    "reference": dataclasses.replace(SMALL, vocabulary=32_000),
    "long prompts": dataclasses.replace(SMALL, prompt_mean=600, completion_mean=100, longest=1200, sigma=0.3),
    "short prompts": dataclasses.replace(SMALL, prompt_mean=20, completion_mean=120),
    "uniform lengths": dataclasses.replace(SMALL, prompt_mean=32, completion_mean=128, sigma=0.0),
    "hidden 256": SMALL,
    "hidden 768": dataclasses.replace(SMALL, hidden=768, intermediate=2064, layers=2, heads=12, key_value_heads=12),
}
SETTINGS = {
    "ours": ["rows", "cheapest"],
    "plain": ["1", "2", "4"],
    "trl": ["1 gpu", "2 gpu", "4 gpu"],
    "trl_cpu": ["1 cpu"],
    "liger": ["1", "4"],
}
NAMES = {
    "ours rows": "ours, a row a pair (default)",
    "ours cheapest": "ours, layout=cheapest",
    "plain": "plain loop",
    "trl": "TRL with its GPU's head",
    "trl_cpu": "TRL on a CPU",
    "liger": "Liger's fused DPO loss",
}


class Worker:
    """A process that takes steps of one side when asked."""

    def __init__(self, side: str) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, __file__, "--worker", side]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer to one question."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {question} ended with {self.process.wait()}; see its errors above")
        return json.loads(line)


def work(side: str) -> None:
    """Answer questions from standard input until it ends: a step of a side in a folder, with a setting."""
    import step_sides
    import torch
    from transformers import AutoModelForCausalLM

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(1)
    made: dict[str, step_sides.Step] = {}
    last = ""
    for line in sys.stdin:
        question = json.loads(line)
        folder, setting = Path(question["folder"]), question["setting"]
        if str(folder) != last:
            made, last = {}, str(folder)
        if setting not in made:
            pairs = read_parquet(folder / "pairs.parquet", Pair)
            model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
            build = getattr(step_sides, side.removesuffix("_cpu"))
            made[setting] = build(model, pairs, setting, *([folder] if side.startswith("trl") else []))
        loss, seconds = made[setting]()
        answers.write(json.dumps({"loss": loss, "seconds": seconds}) + "\n")
        answers.flush()


def race(
    shape: Shape, workers: dict[str, Worker], alternations: int, folder: Path
) -> dict[str, dict[str, list[float] | str]]:
    """By side: its setting, seconds of each alternation, losses from the first step on."""
    make_workplace(folder, shape, seed=0)
    best: dict[str, tuple[str, str]] = {}
    losses: dict[str, list[float]] = {}
    for side, worker in workers.items():
        first = {name: worker.ask(folder=str(folder), setting=name) for name in SETTINGS[side]}
        print("  ", side, {name: round(answer["seconds"], 2) for name, answer in first.items()}, flush=True)
        kept = list(first) if side == "ours" else [min(first, key=lambda name: first[name]["seconds"])]
        for name in kept:
            label = f"ours {name}" if side == "ours" else side
            best[label], losses[label] = (side, name), [first[name]["loss"]]
    seconds: dict[str, list[float]] = {label: [] for label in best}
    for _ in range(alternations):
        for label, (side, name) in best.items():
            answer = workers[side].ask(folder=str(folder), setting=name)
            seconds[label].append(answer["seconds"])
            losses[label].append(answer["loss"])
    return {label: {"setting": best[label][1], "seconds": seconds[label], "losses": losses[label]} for label in best}


def rows(name: str, shape: Shape, found: dict[str, Any]) -> str:
    """A table row for each side."""
    medians = {label: statistics.median(values["seconds"]) for label, values in found.items()}
    lines = []
    for label, values in found.items():
        setting = values["setting"].split()[0] if not label.startswith("ours") else ""
        ratios = [medians[label] / medians[f"ours {layout}"] for layout in SETTINGS["ours"]]
        apart = max(abs(a - b) for a, b in zip(values["losses"], found["ours rows"]["losses"], strict=True))
        lines.append(
            markdown_row(
                (
                    name, NAMES[label], setting, f"{medians[label]:.2f}",
                    " / ".join(f"{value:.2f}" for value in values["seconds"]),
                    *(f"{ratio:.2f}" for ratio in ratios), "" if label == "liger" else f"{apart:.1e}",
                )
            )
        )  # fmt: skip
    return "\n".join(lines) + "\n"


COLUMNS = (
    *("shape", "side", "pairs at a time", "CPU s a step", "each", "ours (default) is faster by"),
    *("ours (cheapest) is faster by", "largest loss difference"),
)


def main() -> None:
    """Race, print, and write the table below a heading of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=sorted(RACES), default=list(RACES))
    parser.add_argument("--sides", nargs="+", choices=sorted(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--alternations", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print, and leave RESULTS.md alone")
    parser.add_argument("--worker", choices=sorted(SETTINGS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return
    sides = [side for side in arguments.sides if side != "liger" or importlib.util.find_spec("liger_kernel")]
    workers = {side: Worker(side) for side in sides}
    table = ""
    for name in arguments.shapes:
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            lines = rows(name, RACES[name], race(RACES[name], workers, arguments.alternations, Path(folder)))
        print(lines, flush=True)
        table += lines
    if not arguments.dry:
        heading = f"\n## An optimizer step, by `speed/step_race.py` ({machine_name()})\n\n"
        append_result(heading + markdown_header(COLUMNS, text_columns=3) + "\n", table)


if __name__ == "__main__":
    main()
