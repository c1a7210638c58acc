"""A whole iteration, sampling, reference pass and training: ours against transformers' `generate` and TRL's DPOTrainer.

    python speed/iteration.py                   # 64 prompts, half an hour and more on one core
    python speed/iteration.py --prompts 8 --alternations 1 --dry    # a quick look

Each side samples 5 candidates a prompt and computes reference log-probs and one epoch of DPO for one pair a prompt. The
pairs that are trained on are the same for all, made of our candidates. The ranker is left out: it is the users' choice,
and both sides would run the same one. Answers end by themselves: the model draws its EOS with a probability of about
1/110 a token, and at most 256 are drawn. `generate` is run at several numbers of prompts a batch, prompts ordered by
length, TRL at several numbers of pairs and with the head that it has on a GPU, all on one alternation; the best of each
is the peer. Seconds are the processor's, one thread; each measurement is a process of its own, and loading is
counted for ours alone. A random Llama of 19.5 M parameters, float32.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from results_table import append_result, machine_name
from train_step import measure
from workplace import SHAPES, Shape, make_pairs, make_workplace

from aipo.models.policy import PolicyRef
from aipo.records import Completion, Decoding, Pair, markdown_header, markdown_row, read_parquet, write_parquet

CANDIDATES = 5
MEAN_TOKENS = 110
DECODING = Decoding(temperature=1.0, top_p=1.0, top_k=50, max_new_tokens=256)
EOS = 1
SHAPE = dataclasses.replace(SHAPES["cpu"], pairs=64, epochs=1, longest=400)
GENERATE = ("generate_4", "generate_16", "generate_64")
TRL = ("trl_1", "trl_2")
"""Of the settings those that were not clearly slower on 8 prompts."""


def make_model_end(folder: Path, prompts: list[tuple[int, ...]]) -> None:
    """Give the random model of `folder` an EOS that it draws with a probability of about 1/MEAN_TOKENS.

    All embeddings get a part in common, which the layers let through, and the head's row of EOS that direction, so
    strong that EOS is as likely as wanted among the 50 most likely tokens.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    with torch.no_grad():
        direction = torch.nn.functional.normalize(torch.ones(model.config.hidden_size), dim=0)
        model.model.embed_tokens.weight += 4.0 * direction
        model.lm_head.weight *= 10  # else the 50 likeliest tokens are nearly equal, and none is as rare as EOS shall be
        ids = torch.tensor([prompt[:16] for prompt in prompts if len(prompt) >= 16])
        hidden = model.model(input_ids=ids).last_hidden_state[:, -1]
        logits = model.lm_head(hidden)
        logits[:, EOS] = -math.inf
        others = logits.topk(DECODING.top_k - 1).values.logsumexp(-1)
        wanted = others - math.log(MEAN_TOKENS - 1)
        model.lm_head.weight[EOS] = direction * (wanted.mean() / (hidden @ direction).mean())
        # The other 49 must not outbid it: it has to stay among the 50.
        assert (model.lm_head(hidden).topk(DECODING.top_k).indices == EOS).any(-1).float().mean() > 0.9
    model.save_pretrained(folder / "model")


def sample_ours(folder: Path, prompts: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Candidates of each prompt; they become the pairs of all sides."""
    from aipo.samplers.hf import HFSampler

    template = "{% for message in messages %}{{ message.content }}</s>{% endfor %}"
    sampler = HFSampler(PolicyRef(str(folder / "model"), chat_template=template))
    rows = sampler._run(prompts, DECODING, CANDIDATES, 0, ())
    return [[completion.token_ids for completion in row] for row in rows]


def sample_generate(model: Any, prompts: list[tuple[int, ...]], size: int) -> list[list[tuple[int, ...]]]:
    """The same with `generate`, `size` prompts at a time."""
    import torch

    torch.manual_seed(0)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found: list[list[tuple[int, ...]]] = [[] for _ in prompts]
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        width = max(len(prompts[index]) for index in batch)
        ids = torch.tensor([[0] * (width - len(prompts[index])) + list(prompts[index]) for index in batch])
        mask = torch.tensor([[0] * (width - len(prompts[index])) + [1] * len(prompts[index]) for index in batch])
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=mask, do_sample=True, temperature=DECODING.temperature, top_k=DECODING.top_k,
                top_p=DECODING.top_p, max_new_tokens=DECODING.max_new_tokens, num_return_sequences=CANDIDATES,
                pad_token_id=0, eos_token_id=EOS,
            )  # fmt: skip
        for number, row in enumerate(out[:, width:].tolist()):
            found[batch[number // CANDIDATES]].append(tuple(token for token in row if token != 0))
    return found


def one(folder: Path, side: str) -> dict[str, Any]:
    """One measurement in this process."""
    import torch
    from transformers import AutoModelForCausalLM

    if side.startswith(("ours", "trl")):
        return measure(folder, side)
    torch.set_num_threads(1)
    prompts = [pair.prompt_token_ids for pair in read_parquet(folder / "prompts.parquet", Pair)]
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    started = time.process_time()
    if side == "sample":
        candidates = sample_ours(folder, prompts)  # with loading
    else:
        candidates = sample_generate(model, prompts, int(side.removeprefix("generate_")))
    seconds = time.process_time() - started
    if side == "sample":
        write_parquet(folder / "pairs.parquet", pairs_of(prompts, candidates))
    lengths = [len(candidate) for row in candidates for candidate in row]
    assert len(lengths) == CANDIDATES * len(prompts)
    return {"seconds": seconds, "tokens": sum(lengths)}


def pairs_of(prompts: list[tuple[int, ...]], candidates: list[list[tuple[int, ...]]]) -> list[Pair]:
    """One pair a prompt, of its first two candidates."""
    return [
        Pair(f"p{i}", f"p{i}", prompt, *(Completion("", row[side], "stop") for side in (0, 1)), 1.0, 0.0)
        for i, (prompt, row) in enumerate(zip(prompts, candidates, strict=True))
    ]


def ask(folder: Path, side: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    output = folder / "measured.json"
    command = [sys.executable, __file__, "--measure", side, "--folder", str(folder), "--json", str(output)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    result: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    if side.startswith(("ours", "trl")):
        result = {"seconds": result["reference_s"] + result["train_s"], "gib": result["peak_memory_gib"]}
    print(
        f"  {side}: {result['seconds']:.1f} s",
        {k: round(v, 2) for k, v in result.items() if k != "seconds"},
        flush=True,
    )
    return result


def race(folder: Path, shape: Shape, alternations: int) -> dict[str, list[float]]:
    """Seconds of each part and alternation, the peers' best settings in turns with ours."""
    make_workplace(folder, shape, seed=0)
    prompts = make_pairs(shape, seed=0)
    write_parquet(folder / "prompts.parquet", prompts)
    make_model_end(folder, [pair.prompt_token_ids for pair in prompts])
    ask(folder, "sample")  # makes the pairs that the trainers need
    best = [min(group, key=lambda side: ask(folder, side)["seconds"]) for group in (GENERATE, TRL)]
    seconds: dict[str, list[float]] = {}
    for _ in range(alternations):
        for side in ("sample", best[0], "ours", "ours_cheapest", best[1]):
            seconds.setdefault(side, []).append(ask(folder, side)["seconds"])
    return seconds


COLUMNS = (
    *(
        "date",
        "prompts",
        "part",
        "ours, CPU s",
        "the peer's",
        "which peer",
        "ratio of the medians",
        "of each alternation",
    ),
    *("machine", "command"),
)


def rows(seconds: dict[str, list[float]], count: int, command: str) -> str:
    """Rows of the table: sampling, training with either layout, and both together."""
    sample, generate, ours, cheapest, trl = seconds
    added = {
        "sampling": (seconds[sample], seconds[generate], generate),
        "reference and training": (seconds[ours], seconds[trl], trl),
        "reference and training, layout=cheapest": (seconds[cheapest], seconds[trl], trl),
        "all": (_sum(seconds, sample, ours), _sum(seconds, generate, trl), f"{generate}, {trl}"),
        "all, layout=cheapest": (_sum(seconds, sample, cheapest), _sum(seconds, generate, trl), f"{generate}, {trl}"),
    }
    lines = []
    for part, (mine, theirs, peer) in added.items():
        a, b = statistics.median(mine), statistics.median(theirs)
        each = " / ".join(f"{y / x:.2f}" for x, y in zip(mine, theirs, strict=True))
        date = f"{datetime.now(UTC):%Y-%m-%d}"
        cells = (date, count, part, f"{a:.1f}", f"{b:.1f}", peer, f"{b / a:.2f}", each, machine_name(), f"`{command}`")
        lines.append(markdown_row(cells))
    return "\n".join(lines) + "\n"


def _sum(seconds: dict[str, list[float]], *sides: str) -> list[float]:
    return [sum(values) for values in zip(*(seconds[side] for side in sides), strict=True)]


HEADING = """
## A whole iteration against `generate` and TRL (`speed/iteration.py`)

Sampling, reference pass and one epoch of training. Ratios above 1 are in our favour.

"""


def main() -> None:
    """Race, print, and append the table to RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--alternations", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print, and leave RESULTS.md alone")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        arguments.json.write_text(json.dumps(one(arguments.folder, arguments.measure)), encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as folder:
        seconds = race(Path(folder), dataclasses.replace(SHAPE, pairs=arguments.prompts), arguments.alternations)
    table = rows(seconds, arguments.prompts, " ".join(["python speed/iteration.py", *sys.argv[1:]]))
    print(table)
    if not arguments.dry:
        append_result(HEADING + markdown_header(COLUMNS) + "\n", table)


if __name__ == "__main__":
    main()
