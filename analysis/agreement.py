"""How often the reference model agrees with the ranker, against how much longer the chosen completion is.

The reference agrees on a pair when it gives the chosen completion the larger summed log-prob: its margin
log ref(chosen) - log ref(rejected) is above zero. AIPO's loss is built on this margin (arXiv 2409.08845).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.collect import AnalysisError, Problem, Sweep, read_manifest

if TYPE_CHECKING:
    import pandas as pd

BINS = 9
"""Bins of the length gap, the open outer ones included."""

Z95 = 1.959963984540054

COLUMNS = [
    *("objective", "variant", "iteration", "gap_low", "gap_high", "gap_mean", "n_pairs", "n_agreeing", "share"),
    *("ci95_low", "ci95_high", "fingerprints"),
]


def read_pairs(store: Path, pairs: str, reference: str) -> tuple[np.ndarray, np.ndarray]:
    """Of every pair: the length gap (chosen minus rejected visible policy tokens) and the reference margin (nats).

    Raises AnalysisError when the two artifacts do not hold the same pairs.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    folders = []
    for stage, digest in (("pairs", pairs), ("reference", reference)):
        read_manifest(store, stage, digest)
        folders.append(store / stage / digest / f"{stage}.parquet")
    sides = [f"{side}.{field}" for side in ("chosen", "rejected") for field in ("token_ids", "finish")]
    try:
        pair_table = pq.ParquetFile(folders[0]).read(columns=["pair_id", *sides])  # keeps the nesting
        reference_table = pq.ParquetFile(folders[1]).read(columns=["pair_id", "chosen", "rejected"])
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise AnalysisError(f"pairs/{pairs} with reference/{reference} cannot be read: {error}") from error

    def visible_tokens(side: str) -> np.ndarray:
        completion = pair_table[side].combine_chunks()
        ids = pc.list_value_length(pc.struct_field(completion, "token_ids")).to_numpy(zero_copy_only=False)
        stopped = pc.equal(pc.struct_field(completion, "finish"), "stop").to_numpy(zero_copy_only=False)
        return ids - stopped.astype(ids.dtype)  # the end-of-turn token is not part of the visible text

    order = {pair_id: row for row, pair_id in enumerate(pair_table["pair_id"].to_pylist())}
    reference_ids = reference_table["pair_id"].to_pylist()
    if len(order) != len(reference_ids) or set(order) != set(reference_ids):
        raise AnalysisError(
            f"reference/{reference} holds {len(reference_ids)} rows that are not the {len(order)} of pairs/{pairs}"
        )
    gap = (visible_tokens("chosen") - visible_tokens("rejected"))[[order[pair_id] for pair_id in reference_ids]]
    margin = reference_table["chosen"].to_numpy() - reference_table["rejected"].to_numpy()
    return gap.astype(float), margin.astype(float)


def agreement(sweep: Sweep) -> tuple[pd.DataFrame, list[Problem]]:
    """Share of agreeing pairs by objective, variant, iteration and length-gap bin, seeds pooled; Wilson intervals.

    Bins are common to the sweep. An artifact shared by several runs of a group counts once.
    """
    import pandas as pd

    groups: dict[tuple[str, str, int], dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]] = {}
    cache: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    problems = []
    for run in sweep.runs:
        for point in run.points:
            if point.pairs is None or point.reference is None:
                continue
            key = (point.pairs, point.reference)
            if key not in cache:
                try:
                    cache[key] = read_pairs(run.store, *key)
                except AnalysisError as error:
                    problems.append(Problem(run.job, point.iteration, str(error)))
                    continue
            groups.setdefault((run.objective, run.variant, point.iteration), {})[key] = cache[key]
    if not groups:
        return pd.DataFrame(columns=COLUMNS), problems
    edges = bin_edges(np.concatenate([gap for gap, _ in cache.values()]))
    rows = []
    for (objective, variant, iteration), sources in sorted(groups.items()):
        gap = np.concatenate([source[0] for source in sources.values()])
        agrees = np.concatenate([source[1] for source in sources.values()]) > 0
        index = np.digitize(gap, edges[1:-1])
        fingerprints = " ".join(sorted({digest for key in sources for digest in key}))
        for number, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            inside = index == number
            n, k = int(inside.sum()), int(agrees[inside].sum())
            interval = wilson(k, n) if n else (math.nan, math.nan)
            mean, share = (gap[inside].mean(), k / n) if n else (math.nan, math.nan)
            rows.append((objective, variant, iteration, low, high, mean, n, k, share, *interval, fingerprints))
    return pd.DataFrame(rows, columns=COLUMNS), problems


def bin_edges(gaps: Sequence[float] | np.ndarray) -> list[float]:
    """Edges of BINS bins: equal widths of an odd number of tokens around zero, the outer bins open.

    Edges lie between whole numbers, so that the bins of -g and +g mirror each other; the inner ones cover at least nine
    tenths of the pairs.
    """
    # The smallest gap that nine tenths do not exceed: an interpolated quantile may lie below it.
    spread = float(np.quantile(np.abs(np.asarray(gaps, dtype=float)), 0.9, method="inverted_cdf"))
    inner = BINS - 2
    width = 2 * math.ceil(max(0.0, (2 * spread / inner - 1) / 2)) + 1
    return [-math.inf, *((number - inner / 2) * width for number in range(inner + 1)), math.inf]


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of k in n; it always holds k / n, which rounding could leave outside."""
    centre, spread = k + Z95**2 / 2, Z95 * math.sqrt(k * (n - k) / n + Z95**2 / 4)
    return min((centre - spread) / (n + Z95**2), k / n), max((centre + spread) / (n + Z95**2), k / n)
