"""Our training against TRL's DPOTrainer: same pairs, model, batch and precision, alternating in one run.

    python speed/train_step.py --shape cpu            # 64 pairs on one thread, about half an hour
    python speed/train_step.py --shape gpu            # needs a data-centre GPU and downloads nothing
    python speed/train_step.py --shape cpu --repeats 1 --pairs 16    # a quick look

Every measurement is a process of its own, so peak memory is that of one side alone: VmHWM of the process on a CPU,
allocated memory on a GPU. Seconds are those of the processor on a CPU, of the clock on a GPU. All sides train with DPO
for the same number of epochs. Pairs/s are those of one epoch, the reference pass included: pairs / (reference seconds +
training seconds / epochs). Loading and imports are not counted for TRL; for ours, loading the policy twice and writing
the result are. TRL is run with 1, 2 and 4 pairs at a time and the whole batch, on a CPU with the head that it has on a
GPU, which projects completion positions only (`trl_*_cpu`: as it is on a CPU, every position). Results go to
`speed/RESULTS.md` and, in full, to the JSON file given by `--json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from results_table import append_result, machine_name
from workplace import SHAPES, Shape, make_workplace, words

from aipo.records import Pair, markdown_header, markdown_row, read_parquet

BETA = 0.1


def seconds_now() -> float:
    """Of this process's CPU time, which other work on the machine does not lengthen; of the clock with a GPU."""
    import torch

    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def run_ours(folder: Path, shape: Shape, pairs: list[Pair], layout: str | None = None) -> dict[str, Any]:
    """Reference log-probs and training with this library."""
    from transformers import AutoModelForCausalLM

    from aipo.models.policy import PolicyRef
    from aipo.training.reference import compute_reference_logps
    from aipo.training.trainer import Trainer

    policy = PolicyRef(str(folder / "model"), dtype=shape.dtype)
    objective = {
        "_target_": "aipo.objectives.Objective",
        "name": "dpo",
        "loss": {"_target_": "aipo.objectives.dpo", "_partial_": True, "beta": BETA},
    }
    trainer = Trainer(
        learning_rate=shape.learning_rate,
        epochs=shape.epochs,
        pairs_per_step=shape.pairs_per_step,
        tokens_per_batch=None if layout else shape.tokens_per_batch,
        gradient_checkpointing=shape.gradient_checkpointing,
        checkpoint_every_seconds=None,
        layout=layout,
    )
    rows: list[Any] = []
    # The libraries' start-up is not a step's cost; TRL's side loads its model before its clock too.
    AutoModelForCausalLM.from_pretrained(folder / "model")
    started = seconds_now()
    reference = compute_reference_logps(policy, pairs, tokens_per_batch=trainer.tokens_per_batch, layout=layout)
    referenced = seconds_now()
    with tempfile.TemporaryDirectory() as out:
        trainer.run(
            policy=policy,
            pairs=pairs,
            reference=reference,
            objective_config=objective,
            out=Path(out),
            seed=0,
            log=rows.append,
        )
        trained = seconds_now()
    return {
        "reference_s": referenced - started,
        "train_s": trained - referenced,
        "losses": [row["loss"] for row in rows],
    }


def run_trl(folder: Path, shape: Shape, pairs: list[Pair], per_device: int, *, gpu_head: bool) -> dict[str, Any]:
    """The same with TRL: `per_device` pairs at a time, precomputed reference log-probs, our order of the pairs.

    `gpu_head`: on a CPU, too, its head projects completion positions only, its tiles computed by PyTorch.
    """
    import torch
    import trl.trainer.utils
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from aipo.training.schedule import step_indices, steps_per_epoch

    seconds: dict[str, float] = {}
    if gpu_head:
        trl.trainer.utils._use_triton = lambda device: True

    class TimedTrainer(DPOTrainer):
        def _precompute_ref_logps(self, *arguments: Any, **named: Any) -> Any:
            started = seconds_now()
            result = super()._precompute_ref_logps(*arguments, **named)
            seconds["reference_s"] = seconds_now() - started
            return result

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    steps = steps_per_epoch(len(pairs), shape.pairs_per_step)
    # One pass over a data set of `epochs` copies, in our order: TRL would shuffle each epoch in its own way.
    order = [
        index
        for step in range(shape.epochs * steps)
        for index in step_indices(step, len(pairs), shape.pairs_per_step, 0)
    ]
    dataset = Dataset.from_list(
        [
            {
                "prompt": words(pairs[index].prompt_token_ids),
                "chosen": words(pairs[index].chosen.token_ids),
                "rejected": words(pairs[index].rejected.token_ids),
            }
            for index in order
        ]
    )
    half = shape.dtype == "bfloat16"
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    with tempfile.TemporaryDirectory() as out:
        trainer = TimedTrainer(
            model=model,
            args=DPOConfig(
                output_dir=out,
                per_device_train_batch_size=per_device,
                gradient_accumulation_steps=shape.pairs_per_step // per_device,
                learning_rate=shape.learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=math.ceil(0.1 * shape.epochs * steps),
                num_train_epochs=1,
                beta=BETA,
                max_length=None,
                precompute_ref_log_probs=True,
                gradient_checkpointing=shape.gradient_checkpointing,
                bf16=half,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
            ),
            processing_class=AutoTokenizer.from_pretrained(folder / "model"),
            train_dataset=dataset,
        )
        tokens = trainer.train_dataset[0]
        expected = pairs[order[0]]
        assert tuple(tokens["prompt_ids"]) == expected.prompt_token_ids, "the two sides would see different prompts"
        assert tuple(tokens["chosen_ids"]) == expected.chosen.token_ids, "the two sides would see different completions"
        started = seconds_now()
        trainer.train()
        seconds["train_s"] = seconds_now() - started
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    # The reference pass went over `epochs` copies; one is enough.
    return {
        "reference_s": seconds["reference_s"] / shape.epochs,
        "train_s": seconds["train_s"],
        "losses": losses,
    }


def measure(folder: Path, side: str) -> dict[str, Any]:
    """One side in this process."""
    import torch

    shape = Shape(**json.loads((folder / "shape.json").read_text(encoding="utf-8")))
    pairs = read_parquet(folder / "pairs.parquet", Pair)
    cuda = torch.cuda.is_available()
    if not cuda:
        torch.set_num_threads(1)
    name, *settings = side.split("_")
    if name == "ours":
        result = run_ours(folder, shape, pairs, *settings)
    else:
        per_device = int(settings[0]) if settings[:1] and settings[0].isdigit() else shape.pairs_per_step
        result = run_trl(folder, shape, pairs, per_device, gpu_head="cpu" not in settings)
    seconds = result["reference_s"] + result["train_s"] / shape.epochs
    result |= {
        "pairs_per_s": len(pairs) / seconds,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else _resident_peak_gib(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }
    if cuda:
        tokens = sum(len(p.prompt_token_ids) + len(p.chosen.token_ids) + len(p.rejected.token_ids) for p in pairs)
        parameters = shape.layers * (
            shape.hidden * (2 * shape.hidden + 2 * shape.hidden * shape.key_value_heads // shape.heads)
            + 3 * shape.hidden * shape.intermediate
        )
        head = shape.vocabulary * shape.hidden
        completions = sum(len(p.chosen.token_ids) + len(p.rejected.token_ids) for p in pairs)
        # Useful work only: 6 per weight and token, no padding, no recomputation, attention scores left out.
        result["model_tflops"] = (
            6 * (parameters * tokens + head * completions) * shape.epochs / result["train_s"] / 1e12
        )
    return result


def _resident_peak_gib() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    raise RuntimeError("this system does not report VmHWM; run the CPU shape on Linux")


def alternate(folder: Path, sides: list[str], repeats: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure the sides in turn, each in a fresh process."""
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    environment |= {} if "CUDA_VISIBLE_DEVICES" in os.environ else {"OMP_NUM_THREADS": "1"}
    for repeat in range(repeats):
        for side in sides:
            output = folder / f"{side}-{repeat}.json"
            command = [sys.executable, __file__, "--measure", side, "--folder", str(folder), "--json", str(output)]
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            yield side, json.loads(output.read_text(encoding="utf-8"))


def summarise(shape_name: str, shape: Shape, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians, ratios, and how far the first ten losses are apart."""
    sides: dict[str, Any] = {}
    for side, results in runs.items():
        sides[side] = {
            name: statistics.median(result[name] for result in results)
            for name in ("reference_s", "train_s", "pairs_per_s", "peak_memory_gib", "model_tflops")
            if name in results[0]
        }
    ours = sides["ours"]
    for side in sides.values():
        side["speed_ratio"] = ours["pairs_per_s"] / side["pairs_per_s"]
        side["memory_ratio"] = ours["peak_memory_gib"] / side["peak_memory_gib"]
    for side, results in runs.items():
        pairs = zip(runs["ours"][0]["losses"][:10], results[0]["losses"][:10], strict=False)
        sides[side]["largest_loss_difference"] = max(abs(a - b) for a, b in pairs)
    return {"shape": shape_name, **dataclasses.asdict(shape), "sides": sides, "runs": runs}


TRL = {"trl": "TRL, whole batch at once", "trl_1": "TRL, one pair at a time"} | {
    f"trl_{size}": f"TRL, {size} pairs at a time" for size in (2, 4)
}
NAMES = {"ours": "ours", "ours_cheapest": "ours, layout=cheapest"} | TRL
NAMES |= {f"{side}_cpu": f"{name}, head of its CPU path" for side, name in TRL.items()}


def markdown(summary: dict[str, Any], command: str, machine: str) -> str:
    """Rows for RESULTS.md."""
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    shape = f"{summary['shape']}: {summary['pairs']} pairs, batch {summary['pairs_per_step']}, {summary['dtype']}"
    lines = []
    for side, values in summary["sides"].items():
        tflops = f"; {values['model_tflops']:.0f} TFLOP/s" if "model_tflops" in values else ""
        ratios = (f"{values[name]:.2f}" for name in ("peak_memory_gib", "speed_ratio", "memory_ratio"))
        measured = (f"{values['pairs_per_s']:.2f}{tflops}", *ratios, f"{values['largest_loss_difference']:.1e}")
        runs = len(summary["runs"][side])
        lines.append(markdown_row((date, shape, NAMES[side], *measured, runs, machine, f"`{command}`")))
    return "\n".join(lines) + "\n"


HEADING = """
## Training against TRL 1.16 with the head of its GPU path (`speed/train_step.py`)

Medians; pairs/s of CPU time where there is no GPU; GiB is the peak. Ratios are ours to that row's: speed above 1 and
memory below 1 are in our favour. The loss difference is the largest of the first ten steps.

"""
COLUMNS = "date, shape, side, pairs/s, GiB, speed ratio, memory ratio, loss difference, runs, machine, command".split(
    ", "
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pairs", type=int, help="another number of pairs than the shape's")
    parser.add_argument("--sides", nargs="+", choices=sorted(NAMES), default=["ours", "ours_cheapest", *TRL])
    parser.add_argument("--json", type=Path, help="write the full result here")
    parser.add_argument("--dry", action="store_true", help="print, and leave RESULTS.md alone")
    parser.add_argument("--measure", choices=sorted(NAMES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        arguments.json.write_text(json.dumps(measure(arguments.folder, arguments.measure)), encoding="utf-8")
        return
    shape = SHAPES[arguments.shape]
    if arguments.pairs:
        shape = dataclasses.replace(shape, pairs=arguments.pairs)
    command = "python speed/train_step.py " + " ".join(sys.argv[1:])
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in arguments.sides}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_workplace(folder, shape, seed=0)
        for side, result in alternate(folder, arguments.sides, arguments.repeats):
            runs[side].append(result)
            print(f"{side}: {result['pairs_per_s']:.3f} pairs/s, {result['peak_memory_gib']:.2f} GiB", flush=True)
    summary = summarise(arguments.shape, shape, runs)
    rows = markdown(summary, command, machine_name())
    print(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    if not arguments.dry:
        append_result(HEADING + markdown_header(COLUMNS) + "\n", rows)


if __name__ == "__main__":
    main()
