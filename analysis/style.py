"""Names and colours: what an objective, a metric or a benchmark is called and looks like, in every table and plot."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Any

OBJECTIVE_NAMES = {"dpo": "DPO", "dpo_nll": "DPO+NLL", "simpo": "SimPO", "alpha_dpo": "α-DPO", "aipo": "AIPO"}
"""As the paper writes them; other objectives keep the name of their YAML."""

BASE_NAME = "base model"
BASE_COLOUR = "#4D4D4D"

# Okabe and Ito's palette, which stays apart under the common forms of colour blindness.
OBJECTIVE_COLOURS = {
    "dpo": "#0072B2",
    "dpo_nll": "#56B4E9",
    "simpo": "#CC79A7",
    "alpha_dpo": "#009E73",
    "aipo": "#D55E00",
}
# For all others: the rest of Okabe and Ito and of Paul Tol's "muted" scheme that is far from the five above.
OTHER_COLOURS = ("#E69F00", "#332288", "#882255", "#999933", "#661100", "#000000", "#8A8A8A")

OBJECTIVE_MARKERS = {"dpo": "o", "dpo_nll": "s", "simpo": "^", "alpha_dpo": "D", "aipo": "v"}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")

METRIC_NAMES = {
    "lc_win_rate": "length-controlled win rate (%)",
    "win_rate": "win rate (%)",
    "discrete_win_rate": "discrete win rate (%)",
    "rating": "rating (1–10)",
    "gold_score": "gold score (−1 to 1)",
    "constraints_met": "constraints met (share, 0 to 1)",
    "prompt_strict": "prompts followed, strict (%)",
    "prompt_loose": "prompts followed, loose (%)",
    "instruction_strict": "instructions followed, strict (%)",
    "instruction_loose": "instructions followed, loose (%)",
    "mean_chars": "mean length (characters)",
    "mean_words": "mean length (words)",
    "mean_tokens": "mean length (tokens)",
    "truncated_share": "cut at the token limit (%)",
    "mean_tokens_cl100k": "mean length (cl100k tokens)",
    "mean_tokens_cl100k_estimated": "mean length (cl100k tokens, estimated)",
}
BENCHMARK_METRIC_NAMES = {("arena_hard", "win_rate"): "Bradley–Terry win rate (%)"}
"""Where one name means another quantity than elsewhere."""

JUDGE_NOTES = {"length_only": "it prefers the longer answer, so its column shows what length alone buys"}
"""What a diagnostic judge's numbers mean."""

OFFICIAL_NAMES = {"mt_bench": "MT-Bench", "alpaca_eval": "AlpacaEval 2", "arena_hard": "Arena-Hard"}
BENCHMARK_NAMES = {
    "gold": "Gold quality",
    "constraints": "Constraints",
    "ifeval": "IFEval",
    "ifbench": "IFBench",
    **OFFICIAL_NAMES,
}
SEVERAL_VERDICTS = ("mt_bench", "mt_bench_pairwise", "arena_hard")
"""Benchmarks with more than one verdict on a question: turns, or games."""


def objective_name(objective: str) -> str:
    """How the objective is written for people."""
    return OBJECTIVE_NAMES.get(objective, objective)


def metric_name(metric: str, benchmark: str = "") -> str:
    """How a benchmark's metric is written on axes and in headers, with its unit where it has one."""
    return BENCHMARK_METRIC_NAMES.get((benchmark, metric)) or METRIC_NAMES.get(metric, metric.replace("_", " "))


def benchmark_name(benchmark: str) -> str:
    """How a benchmark is written for people."""
    return BENCHMARK_NAMES.get(benchmark, benchmark)


def counted_name(benchmark: str) -> str:
    """What a benchmark's counts of scored and asked are of."""
    return "verdicts" if benchmark in SEVERAL_VERDICTS else "questions"


def series_name(objective: str, variant: str) -> str:
    """An objective and, where the sweep varies more, the variant, its keys without their path."""
    short = re.sub(r"(^|,)[^=,]*\.(\w+=)", r"\1\2", variant)
    return objective_name(objective) + (f" [{short}]" if short else "")


def order(objective: str) -> int:
    """The place of an objective in tables and legends: the base model (""), the paper's order, then all others."""
    known = ["", *OBJECTIVE_NAMES]
    return known.index(objective) if objective in known else len(known)


def series_order(objective: str, variant: str) -> tuple[Any, ...]:
    """The place of an objective's variant: numbers in a variant's text go by value, so that 2 comes before 10."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", variant)
    return order(objective), objective, [(float(part), "") if i % 2 else (0.0, part) for i, part in enumerate(parts)]


def marker(objective: str) -> str:
    """The marker of an objective that has no variants: a second cue beside the colour."""
    return OBJECTIVE_MARKERS.get(objective) or MARKERS[zlib.crc32(objective.encode()) % len(MARKERS)]


def colours(objectives: Iterable[str]) -> dict[str, str]:
    """One colour per objective: fixed for the paper's five, picked by the name (free ones first) for all others."""
    picked = {}
    taken: set[str] = set()
    for objective in sorted(set(objectives)):
        if objective in OBJECTIVE_COLOURS:
            picked[objective] = OBJECTIVE_COLOURS[objective]
            continue
        start = zlib.crc32(objective.encode()) % len(OTHER_COLOURS)
        order = OTHER_COLOURS[start:] + OTHER_COLOURS[:start]
        picked[objective] = next((colour for colour in order if colour not in taken), order[0])
        taken.add(picked[objective])
    return picked


def tint(colour: str, share: float) -> str:
    """The colour mixed with white, or with black where `share` is negative: 0 leaves it, 1 is white, -1 black."""
    end = 255 if share > 0 else 0
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(channel + (end - channel) * abs(share)):02X}" for channel in channels)
