"""The tables of a sweep: one per benchmark, one over seeds, one of the fitted lines, one of the pairs behind it all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aipo.jobs import BASE_ITERATION
from analysis import style
from analysis.collect import Sweep, iteration_label
from analysis.fits import FIT_NAMES, Line
from analysis.over_dpo import keys_of, length_ratio, mean_and_sd, score_of_each, scores_over_dpo
from analysis.summary import (
    diagnostic_metric,
    metric_names,
    official,
    over_seeds,
    points,
    title,
    unique,
    value_columns,
)
from analysis.table import Table, digits_for, number

if TYPE_CHECKING:
    import pandas as pd


def score_table(sweep: Sweep, benchmark: str, name: str | None = None) -> Table:
    """One benchmark: a row per objective, variant and iteration, over seeds where there are several.

    Raises AnalysisError when the scores are by several judges or on different questions.
    """
    frame = points(sweep, benchmark)
    primary, length = metric_names(sweep, benchmark)
    rows = over_seeds(frame)
    several = bool((rows["n"] > 1).any())
    varied = bool((rows["variant"] != "").any())
    columns = value_columns(frame)
    headers = {"score": style.metric_name(primary, benchmark), "length": style.metric_name(length)}
    for column in columns:
        if column.startswith("by_"):
            metric = style.metric_name(diagnostic_metric(sweep, benchmark, column.removeprefix("by_")), benchmark)
            headers[column] = f"{metric} {_by_judge(column)}"
    header = ["objective", *(["variant"] if varied else []), "seed" + "s" * several, "round"]
    text_columns = len(header)
    header += ["score: " + headers["score"], "95 % interval" + " †" * several]
    header += [headers.get(column) or style.metric_name(column, benchmark) for column in columns[1:]] + [
        f"{style.counted_name(benchmark)} scored / asked" + " ‖" * several
    ]
    digits = {column: digits_for(rows[column].tolist()) for column in columns}
    cells = []
    for row in rows.to_dict("records"):
        cell = [_objective_cell(row), *([row["variant"]] if varied else [])]
        cell += [", ".join(map(str, row["seeds"])), iteration_label(row["iteration"])]
        cell += [_mean_sd(row, "score", digits["score"]), _interval(row, digits["score"])]
        cell += [_mean_sd(row, column, digits[column]) for column in columns[1:]]
        cells.append((*cell, f"{row['n_scored']:,} / {row['n_total']:,}"))
    return Table(
        name=name or benchmark,
        title=f"{title(sweep, benchmark)}, judge {', '.join(sorted(set(rows['judge'])))}",
        data=_csv(rows, benchmark, primary, length),
        header=tuple(header),
        cells=tuple(cells),
        notes=(*_score_notes(rows, columns, several), *drop_notes(sweep), *problem_notes(sweep)),
        fingerprints=_all_fingerprints(rows),
        text_columns=text_columns,
    )


def seeds_table(sweep: Sweep, benchmarks: Sequence[str]) -> Table:
    """Mean and sd over seeds at the last iteration of every objective, with the base model, for every benchmark."""
    import pandas as pd

    records: list[dict[str, Any]] = []
    keys = keys_of(sweep)
    for benchmark in benchmarks:
        primary, length = metric_names(sweep, benchmark)
        frame = points(sweep, benchmark)
        rows = over_seeds(frame)
        last = rows.groupby(["objective", "variant"], sort=False)["iteration"].idxmax()
        for row in rows.loc[last].to_dict("records"):
            ratio, ratio_sd = length_ratio(frame, row, keys)
            record = {"benchmark": benchmark, "metric": primary, "length_metric": length, **row}
            records.append(record | {"expected": _expected_seeds(sweep, row), "ratio": ratio, "ratio_sd": ratio_sd})
    rows = pd.DataFrame(records)
    varied = bool((rows["variant"] != "").any())
    judges = [name for name in rows.columns if name.startswith("by_") and not name.endswith("_sd")]
    cells = []
    for row in records:
        peers = rows[rows["benchmark"] == row["benchmark"]]
        score_digits, length_digits = digits_for(peers["score"].tolist()), digits_for(peers["length"].tolist())
        cell = [title(sweep, row["benchmark"]), style.metric_name(row["metric"], row["benchmark"])]
        cell += [_objective_cell(row)]
        cell += [row["variant"]] if varied else []
        cell += [iteration_label(row["iteration"]), f"{row['n']} / {row['expected']}"]
        cell += [_mean_sd(row, "score", score_digits)]
        cell += [_mean_sd(row, judge, score_digits) if judge in row else "–" for judge in judges]
        cell += [f"{_mean_sd(row, 'length', length_digits)}{_unit(row)}"]
        cells.append((*cell, _mean_sd(row, "ratio", 2)))
    header = ("benchmark", "metric", "objective", *(["variant"] if varied else []), "round", "seeds", "score")
    data = rows.assign(seeds=rows["seeds"].map(_joined), fingerprints=rows["fingerprints"].map(_joined))
    data["round"] = data["iteration"].map(iteration_label)
    keep = ["benchmark", "metric", "objective", "variant", "round", "n", "expected", "seeds", "score", "score_sd"]
    keep += [column for judge in judges for column in (judge, f"{judge}_sd")]
    keep += ["length_metric", "length", "length_sd", "ratio", "ratio_sd", "judge", "fingerprints"]
    names = {
        "n": "n_seeds",
        "expected": "n_seeds_expected",
        "ratio": "length_over_dpo",
        "ratio_sd": "length_over_dpo_sd",
    }
    return Table(
        name="seeds",
        title="Last round of each objective: mean ± sd over seeds",
        data=data[keep].rename(columns=names),
        header=(*header, *(_by_judge(judge) for judge in judges), "mean length", "length / DPO's"),
        cells=tuple(cells),
        notes=(
            "± is the sample standard deviation over seeds; seeds: those scored after this round / all of the sweep.",
            "length / DPO's: of the same seed, base model and round, then averaged over seeds.",
            *(_judge_note(judge) + " Shown is its plain win rate, or the metric itself." for judge in judges),
            *problem_notes(sweep),
        ),
        fingerprints=_all_fingerprints(rows),
        text_columns=3 + varied,
    )


def fits_table(sweep: Sweep, lines: dict[str, dict[tuple[str, str], Line]], paper: pd.DataFrame) -> Table:
    """The line of score over length of each objective, and its score at one length common to all.

    `lines` comes from `plots.fit_lines`; `paper` holds the paper's own fits, shown beside official benchmarks.
    """
    import pandas as pd

    keys = keys_of(sweep)
    published = {(row.benchmark, row.objective): row.slope for row in paper.itertuples()}
    records: list[dict[str, Any]] = []
    fingerprints: tuple[str, ...] = ()
    for benchmark, series in lines.items():
        frame = points(sweep, benchmark)
        at = common_length(list(series.values()))
        by_replicate = {one: score_of_each(frame, one, line.method, at, keys) for one, line in series.items()}
        for (objective, variant), line in sorted(series.items(), key=lambda item: style.series_order(*item[0])):
            mine = frame[(frame["objective"] == objective) & (frame["variant"] == variant)]
            used = unique(digest for digests in mine["fingerprints"] for digest in digests)
            fingerprints += used
            own = by_replicate[objective, variant]
            over_dpo_mean, over_dpo_sd = mean_and_sd(scores_over_dpo(by_replicate, (objective, variant)))
            records.append(
                {"benchmark": benchmark, "objective": objective, "variant": variant, "method": line.method}
                | {"n_points": line.n, "slope": line.slope, "intercept": line.intercept, "length_min": line.x_min}
                | {"length_max": line.x_max, "common_length": at, "score_at_common_length": line.at(at)}
                | {"score_at_common_length_sd": mean_and_sd(list(own.values()))[1]}
                | {"over_dpo": over_dpo_mean, "over_dpo_sd": over_dpo_sd}
                | {"extrapolated": not line.x_min <= at <= line.x_max}
                | {"paper_slope": published.get((benchmark, objective)) if official(sweep, benchmark) else None}
                | {"fingerprints": _joined(used)}
            )
    data = pd.DataFrame(records)
    compared = bool(records) and data["paper_slope"].notna().any()
    paired = bool(records) and data["over_dpo"].notna().any()
    cells = []
    for row in records:
        digits = digits_for([row["length_max"]])
        scores = data.loc[data["benchmark"] == row["benchmark"], "score_at_common_length"]
        at = _mean_sd(row, "score_at_common_length", digits_for(scores.tolist()) + 1) + " ‡" * row["extrapolated"]
        cell = [title(sweep, row["benchmark"]), style.series_name(row["objective"], row["variant"])]
        cell += [FIT_NAMES[row["method"]], str(row["n_points"]), f"{row['slope']:.4g}".replace("-", "−")]
        cell += [f"{number(row['length_min'], digits)} to {number(row['length_max'], digits)}"]
        cell += [number(row["common_length"], digits), at]
        if paired:
            cell.append(_mean_sd(row, "over_dpo", digits_for(scores.tolist()) + 1))
        cells.append((*cell, *([number(row["paper_slope"], 4)] if compared else [])))
    names = ("benchmark", "objective", "fit", "points", "slope", "lengths", "common length", "score there")
    header: tuple[str, ...] = (*names, *(("minus DPO's there",) if paired else ()))
    notes = ["slope: score per unit of length; one point per seed and round, the base model left out."]
    notes += ["common length: the middle of the range all lines of the benchmark cover, else of all their lengths."]
    if bool(records) and data["score_at_common_length_sd"].notna().any():
        notes.append("±: sample standard deviation over seeds of this score, each seed with a line of its own.")
    if paired:
        notes.append(
            "minus DPO's there: of the same seed and base model, each on a line of its own; mean ± sd over seeds."
        )
    if bool(records) and data["extrapolated"].any():
        notes.append("‡ extrapolated: this line's points do not reach the common length.")
    if compared:
        notes.append("paper: read off its length figure (arXiv 2409.08845), not measured here.")
    return Table(
        name="fits",
        title="Score over length: fitted lines",
        data=data,
        header=(*header, *(["slope (paper)"] if compared else [])),
        cells=tuple(cells),
        notes=(*notes, *problem_notes(sweep)),
        fingerprints=unique(fingerprints),
        text_columns=3,
    )


def pairs_table(sweep: Sweep) -> Table:
    """Pairs kept and dropped, by reason, per objective, variant and iteration: sums over seeds.

    A run's own numbers are in `pairs_per_job`.
    """
    import pandas as pd

    exact = pairs_per_job(sweep)
    reasons = [column for column in exact.columns if column.startswith("dropped_")]
    groups = exact.groupby(["objective", "variant", "iteration"], sort=False)
    data = groups.agg(
        {"seed": lambda seeds: _joined(unique(map(str, seeds))), "kept": "sum"}
        | dict.fromkeys(reasons, "sum")
        | {"fingerprints": lambda digests: _joined(unique(digests))}
    ).reset_index()
    data = pd.DataFrame(data).rename(columns={"seed": "seeds"})
    data.insert(3, "round", data["iteration"].map(iteration_label))
    varied = bool((data["variant"] != "").any())
    shown = [reason for reason in reasons if data[reason].any()]
    never = ", ".join(_reason(reason) for reason in reasons if reason not in shown)
    notes = ["Columns after kept: prompts or pairs dropped for that reason. Sums over the seeds named."]
    notes += [f"Reasons that never applied: {never}."] if never else []
    cells = []
    for row in data.to_dict("records"):
        cell = [_objective_cell(row), *([row["variant"]] if varied else [])]
        cell += [row["seeds"].replace(" ", ", "), iteration_label(row["iteration"])]
        cells.append((*cell, *(f"{row[column]:,}" for column in ["kept", *shown])))
    first = ("objective", *(["variant"] if varied else []), "seeds", "round")
    return Table(
        name="pairs",
        title="Preference pairs: kept and dropped",
        data=data.drop(columns="iteration"),
        header=(*first, "kept", *map(_reason, shown)),
        cells=tuple(cells),
        notes=(*notes, *problem_notes(sweep)),
        fingerprints=unique(sweep.pairs["fingerprint"]),
        text_columns=len(first),
    )


def pairs_per_job(sweep: Sweep) -> pd.DataFrame:
    """Pairs kept, and dropped by reason (a column each), of every run and iteration, in the order of the tables."""
    places = list(sweep.pairs[["objective", "variant", "seed", "iteration"]].itertuples(index=False, name=None))
    order = sorted(
        range(len(sweep.pairs)),
        key=lambda i: (style.series_order(*places[i][:2]), *places[i][2:]),
    )
    rows = sweep.pairs.iloc[order]
    data = rows.drop(columns=["dropped", "fingerprint"])
    for reason in sorted({reason for dropped in rows["dropped"] for reason in dropped}):
        data[f"dropped_{reason}"] = [dropped.get(reason, 0) for dropped in rows["dropped"]]
    return data.assign(fingerprints=rows["fingerprint"])


def _reason(column: str) -> str:
    return column.removeprefix("dropped_").replace("_", " ")


def common_length(lines: list[Line]) -> float:
    """A length at which all lines can be compared: the middle of their common range, else of their whole range."""
    if not lines:
        return math.nan
    low, high = max(line.x_min for line in lines), min(line.x_max for line in lines)
    if low > high:
        low, high = min(line.x_min for line in lines), max(line.x_max for line in lines)
    return (low + high) / 2


def drop_notes(sweep: Sweep) -> list[str]:
    """One sentence per objective and variant: pairs kept and dropped over all its iterations and seeds."""
    notes = []
    groups = sweep.pairs.groupby(["objective", "variant"])
    for (objective, variant), group in sorted(groups, key=lambda item: style.series_order(*item[0])):
        reasons: dict[str, int] = {}
        for dropped in group["dropped"]:
            for reason, count in dropped.items():
                reasons[reason] = reasons.get(reason, 0) + count
        listed = ", ".join(
            f"{reason.replace('_', ' ')} {count:,}" for reason, count in sorted(reasons.items()) if count
        )
        kept, n = int(group["kept"].sum()), len(group)
        rounds = f"{n} round{'s' * (n > 1)}"
        series = style.series_name(objective, variant)
        notes.append(f"Pairs, {series}: {kept:,} kept in {rounds} (all seeds); dropped: {listed or 'none'}.")
    return notes


def problem_notes(sweep: Sweep) -> list[str]:
    """A sentence when something is missing from the sweep's tables; the report lists what."""
    jobs = sorted({problem.job for problem in sweep.problems if problem.job})
    return [f"Incomplete: see the report's list for jobs {', '.join(jobs)}."] if jobs else []


def _score_notes(rows: pd.DataFrame, columns: list[str], several: bool) -> list[str]:
    notes = ["round: base is the model before training, 1 the policy after the first round."]
    if several:
        notes.append("± is the sample standard deviation over seeds, the score and length before it the mean.")
        notes.append("† with several seeds Student's t over them, with one the benchmark's own, over its questions.")
        notes.append("‖ each once, however many seeds answered; scored: of the seed with the fewest.")
    if (unscored := int(rows["n_unscored_verdicts"].sum())) > 0:
        notes.append(f"{unscored:,} verdicts could not be read and enter no score.")
    for column in columns:
        if column.startswith("by_"):
            notes.append(_judge_note(column))
    return notes


def _by_judge(column: str) -> str:
    return f"by judge {column.removeprefix('by_')}"


def _judge_note(column: str) -> str:
    judge = column.removeprefix("by_")
    return f"Judge {judge}: a diagnostic; {style.JUDGE_NOTES.get(judge, 'it grades the same answers')}."


def _csv(rows: pd.DataFrame, benchmark: str, primary: str, length: str) -> pd.DataFrame:
    data = rows.assign(benchmark=benchmark, metric=primary, length_metric=length)
    data["round"] = data["iteration"].map(iteration_label)
    data = data.drop(columns="iteration")
    data["objective"] = data["objective"].replace("", style.BASE_NAME)
    for column in ("seeds", "fingerprints"):
        data[column] = data[column].map(_joined)
    first = ["benchmark", "judge", "objective", "variant", "seeds", "n", "round", "metric", "score", "score_sd"]
    first += ["ci95_low", "ci95_high", "interval", "length_metric", "length", "length_sd", "n_scored", "n_total"]
    rest = [column for column in data.columns if column not in first and column != "fingerprints"]
    return data[[*first, *rest, "fingerprints"]].rename(columns={"n": "n_seeds"})


def _objective_cell(row: dict[str, Any]) -> str:
    return style.objective_name(row["objective"]) if row["objective"] else style.BASE_NAME


def _mean_sd(row: dict[str, Any], column: str, digits: int) -> str:
    text = number(row[column], digits)
    return text if math.isnan(row[f"{column}_sd"]) else f"{text} ± {number(row[f'{column}_sd'], digits)}"


def _interval(row: dict[str, Any], digits: int) -> str:
    if math.isnan(row["ci95_low"]):
        return "–"
    return f"{number(row['ci95_low'], digits)} to {number(row['ci95_high'], digits)}"


def _unit(row: dict[str, Any]) -> str:
    return {"mean_tokens": " tokens", "mean_chars": " characters"}.get(row["length_metric"], "")


def _joined(values: tuple[Any, ...]) -> str:
    return " ".join(map(str, values))


def _all_fingerprints(rows: pd.DataFrame) -> tuple[str, ...]:
    return unique(digest for digests in rows["fingerprints"] for digest in digests)


def _expected_seeds(sweep: Sweep, row: dict[str, Any]) -> int:
    if row["iteration"] == BASE_ITERATION:
        return row["n"]
    mine = (run for run in sweep.runs if (run.objective, run.variant) == (row["objective"], row["variant"]))
    return len({(run.seed, run.base_seed) for run in mine})
