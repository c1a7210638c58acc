"""What tables and plots show of one benchmark: a row per policy, then one per objective and iteration over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from aipo.jobs import BASE_ITERATION
from analysis import style
from analysis.collect import AnalysisError, Sweep

if TYPE_CHECKING:
    import pandas as pd

EXTRA_METRICS = ("win_rate", "lc_win_rate", "gold_score", "mean_tokens", "truncated_share")
"""Shown beside a benchmark's primary metric and length where it reports them under these names."""

EXTRA_LENGTHS = ("mean_tokens", "truncated_share")
"""Those of them that stand beside the length."""

DIAGNOSTIC_METRIC = "win_rate"

GROUP = ["objective", "variant", "iteration"]


def benchmarks(sweep: Sweep) -> list[str]:
    """The benchmarks any run of the sweep was configured for, sorted by name."""
    return sorted({name.partition("@")[0] for run in sweep.runs for name in run.primary})


def protocols(sweep: Sweep, benchmark: str) -> list[tuple[str, str]]:
    """The judges' names and protocols whose scores of this benchmark are there, diagnostic judges left out."""
    rows = sweep.scores[(sweep.scores["benchmark"] == benchmark) & (sweep.scores["diagnostic"] == "")]
    return sorted(set(zip(rows["judge"], rows["protocol"], strict=True)))


def restricted(sweep: Sweep, benchmark: str, protocol: str) -> Sweep:
    """The sweep without other benchmarks, and without scores of this one by another protocol."""
    rows = sweep.scores[sweep.scores["benchmark"] == benchmark]
    main = rows[(rows["diagnostic"] == "") & (rows["protocol"] == protocol)]
    jobs = set(main["job"])
    diagnostics = rows[(rows["diagnostic"] != "") & rows["job"].isin(jobs)]
    return replace(
        sweep,
        runs=tuple(run for run in sweep.runs if run.job in jobs),
        scores=sweep.scores.loc[sorted([*main.index, *diagnostics.index])],
        pairs=sweep.pairs[sweep.pairs["job"].isin(jobs)],
    )


def official(sweep: Sweep, benchmark: str) -> bool:
    """Whether all scores of this benchmark are on its own questions, not the miniature's."""
    return bool(sweep.scores.loc[sweep.scores["benchmark"] == benchmark, "official"].all())


def title(sweep: Sweep, benchmark: str) -> str:
    """The benchmark's name; a well-known one on other questions is marked."""
    name = style.benchmark_name(benchmark)
    cut = limits(sweep, benchmark)
    if cut:
        return f"{name} (first {' or '.join(map(str, cut))} questions only)"
    return f"{name} (miniature)" if benchmark in style.OFFICIAL_NAMES and not official(sweep, benchmark) else name


def limits(sweep: Sweep, benchmark: str) -> list[int]:
    """To how many questions jobs cut this benchmark (`benchmark.<name>.limit`); none where all were asked."""
    nodes = (run.record.settings.get("benchmark", {}).get(benchmark, {}) for run in sweep.runs)
    return sorted({node["limit"] for node in nodes if node.get("limit")})


def diagnostic_metric(sweep: Sweep, benchmark: str, judge: str) -> str:
    """What is shown of a diagnostic judge: the plain win rate, or the primary metric where there is none."""
    rows = sweep.scores[(sweep.scores["benchmark"] == benchmark) & (sweep.scores["diagnostic"] == judge)]
    return DIAGNOSTIC_METRIC if DIAGNOSTIC_METRIC in set(rows["metric"]) else metric_names(sweep, benchmark)[0]


def metric_names(sweep: Sweep, benchmark: str) -> tuple[str, str]:
    """The primary and the length metric of this benchmark. Raises AnalysisError when the runs disagree."""
    named = {(run.primary[benchmark], run.length[benchmark]) for run in sweep.runs if benchmark in run.primary}
    if len(named) != 1:
        raise AnalysisError(f"{benchmark}: the runs name different primary and length metrics: {sorted(named)}")
    return named.pop()


@lru_cache(maxsize=64)
def points(sweep: Sweep, benchmark: str) -> pd.DataFrame:
    """One row per policy: run, iteration, score with its interval, length, counts, extra metrics, fingerprints.

    Base models that several runs share appear once, under an empty objective. `replicate` tells the runs of a series
    apart: (seed, the base model's seed). Diagnostic scores are columns `by_<judge>`. The frame is shared by callers.
    Raises AnalysisError when more than one judge graded these scores, or on different questions (`restricted` picks
    one).
    """
    import pandas as pd

    rows = sweep.scores[sweep.scores["benchmark"] == benchmark]
    main = rows[rows["diagnostic"] == ""]
    if main["protocol"].nunique() > 1:
        jobs = main.groupby(["judge", "protocol"], sort=True)["job"].unique()
        listed = "; ".join(f"{judge}: jobs {', '.join(sorted(names))}" for (judge, _), names in jobs.items())
        raise AnalysisError(
            f"{benchmark}: scores by different judges or on different questions do not belong in one table ({listed})"
        )
    primary, length = metric_names(sweep, benchmark)
    diagnostics = {
        (row["job"], row["iteration"], row["diagnostic"], row["metric"]): (row["value"], row["fingerprint"])
        for row in rows[rows["diagnostic"] != ""].to_dict("records")
    }
    diagnostic_names = sorted(rows.loc[rows["diagnostic"] != "", "diagnostic"].unique())
    records = []
    policies: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in main.to_dict("records"):  # a group of a frame each would take seconds
        policies.setdefault((row["job"], row["iteration"]), []).append(row)
    replicates = {run.job: (run.seed, run.base_seed) for run in sweep.runs}
    for (job, iteration), metrics in policies.items():
        record = _point(benchmark, metrics, primary, length) | {"replicate": replicates[job]}
        for name in diagnostic_names:
            metric = diagnostic_metric(sweep, benchmark, name)
            value, digest = diagnostics.get((job, iteration, name, metric), (None, None))
            record[f"by_{name}"] = math.nan if value is None else value
            record["fingerprints"] += () if digest is None else (digest,)
        records.append(record)
    columns = [*POINT_COLUMNS, *EXTRA_METRICS, *(f"by_{name}" for name in diagnostic_names)]
    frame = pd.DataFrame(records, columns=columns)
    for extra in EXTRA_METRICS:
        if extra in (primary, length) or frame[extra].isna().all():
            frame = frame.drop(columns=extra)
    return _merge_base_models(frame)


POINT_COLUMNS = (
    *("job", "objective", "variant", "seed", "model", "recipe", "iteration", "judge"),
    *("score", "ci95_low", "ci95_high", "length", "n_scored", "n_total", "fingerprint", "fingerprints", "replicate"),
)


def of_each(frame: pd.DataFrame) -> Iterator[tuple[tuple[int, int | None], pd.DataFrame]]:
    """(replicate, its rows of `points`), in order of seed and base model; pandas groups by no None."""
    for one in sorted(set(frame["replicate"]), key=lambda one: (one[0], -1 if one[1] is None else one[1])):
        yield one, frame[[found == one for found in frame["replicate"]]]


def value_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of `points` that are averaged over seeds: score, other metrics, diagnostic judges', lengths."""
    scores = [name for name in frame.columns if name in EXTRA_METRICS and name not in EXTRA_LENGTHS]
    diagnostics = [name for name in frame.columns if name.startswith("by_")]
    return ["score", *scores, *diagnostics, "length", *(name for name in frame.columns if name in EXTRA_LENGTHS)]


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample sd over seeds, one row per objective, variant and iteration, base models first.

    `interval` says what the interval is over: "questions" (one policy: the benchmark's own) or "seeds" (several:
    Student's t over them). An artifact that several runs share counts once, and so do the questions, which all seeds
    are asked: `n_total` questions, of which the seed with the fewest has `n_scored` scored.
    """
    import pandas as pd

    rows = []
    groups = sorted(frame.groupby(GROUP, sort=False), key=lambda item: (style.series_order(*item[0][:2]), item[0][2]))
    for (objective, variant, iteration), group in groups:
        group = group.drop_duplicates("fingerprint")
        unscored = int((group["n_total"] - group["n_scored"]).sum())
        n_scored, n_total = int(group["n_scored"].min()), int(group["n_total"].max())
        if group["score"].notna().any():
            group = group[group["score"].notna()]  # a policy without one readable verdict has no score to average
        row: dict[str, Any] = {"objective": objective, "variant": variant, "iteration": iteration}
        row |= {"seeds": tuple(sorted(set(group["seed"]))), "n": len(group), "judge": group["judge"].iloc[0]}
        for column in value_columns(frame):
            row[column] = group[column].mean()
            row[f"{column}_sd"] = group[column].std(ddof=1)
        row["ci95_low"], row["ci95_high"] = group[["ci95_low", "ci95_high"]].iloc[0]
        row["interval"] = "questions"
        if len(group) > 1:
            half = student_t(len(group)) * row["score_sd"] / math.sqrt(len(group))
            row |= {"ci95_low": row["score"] - half, "ci95_high": row["score"] + half, "interval": "seeds"}
        row |= {"n_scored": n_scored, "n_total": n_total, "n_unscored_verdicts": unscored}
        row["fingerprints"] = unique(digest for digests in group["fingerprints"] for digest in digests)
        rows.append(row)
    return pd.DataFrame(rows)


def student_t(n: int) -> float:
    """The two-sided 95 % quantile of Student's t for the mean of n values."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.975))


def unique(values: Iterable[str]) -> tuple[str, ...]:
    """The values, each once, in order of first appearance."""
    return tuple(dict.fromkeys(values))


def _point(benchmark: str, metrics: list[dict[str, Any]], primary: str, length: str) -> dict[str, Any]:
    by_name = {row["metric"]: row for row in metrics}
    for name in (primary, length):
        if name not in by_name:
            first = metrics[0]
            raise AnalysisError(
                f"{benchmark}, job {first['job']}, scores {first['fingerprint']}: the run names the metric {name!r}, "
                f"but the artifact has only {sorted(by_name)}"
            )
    score = by_name[primary]
    record = {name: score[name] for name in POINT_COLUMNS[:8]}
    record |= {"score": score["value"], "ci95_low": score["ci95_low"], "ci95_high": score["ci95_high"]}
    record |= {"length": by_name[length]["value"], "n_scored": score["n_scored"]}
    record |= {"n_total": score["n_scored"] + score["n_unscored"]}
    record |= {"fingerprint": score["fingerprint"], "fingerprints": (score["fingerprint"],)}
    return record | {extra: by_name[extra]["value"] if extra in by_name else math.nan for extra in EXTRA_METRICS}


def _merge_base_models(frame: pd.DataFrame) -> pd.DataFrame:
    """Base rows under an empty objective, each artifact once; variants that share one are one base model."""
    import pandas as pd

    base = frame[frame["iteration"] == BASE_ITERATION]
    if base.empty:
        return frame.reset_index(drop=True)
    merged = base.drop_duplicates("fingerprint").assign(objective="")
    labels = base_labels(zip(base["variant"], base["fingerprint"], strict=True))
    merged["variant"] = merged["fingerprint"].map(labels)
    trained = frame[frame["iteration"] != BASE_ITERATION]
    return pd.concat([merged, trained], ignore_index=True)


def base_labels(found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What tells base models apart, from (a run's variant, a fingerprint of its base model): fingerprint -> variants.

    Variants that share a fingerprint are of one base model, and so are fingerprints of one variant, as over seeds.
    Empty texts where there is only one.
    """
    groups: list[tuple[set[str], set[str]]] = []  # (variants, fingerprints), disjoint in both
    for variant, digest in sorted(set(found)):
        touched = [group for group in groups if variant in group[0] or digest in group[1]]
        groups = [group for group in groups if group not in touched]
        groups.append(
            (
                {variant}.union(*(variants for variants, _ in touched)),
                {digest}.union(*(digests for _, digests in touched)),
            )
        )
    return {
        digest: "; ".join(sorted(variants)) if len(groups) > 1 else ""
        for variants, digests in groups
        for digest in digests
    }
