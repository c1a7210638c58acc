"""What a sweep shows and what it does not: objectives against a control, with intervals, tests and their power."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from aipo.jobs import BASE_ITERATION
from analysis import replicates, style
from analysis.collect import AnalysisError
from analysis.contrasts import (
    QUANTITIES,
    SUBJECT,
    Contrast,
    compared,
    contrasts,
    levels,
    order_agreement,
    over_replicates,
    statistic_of,
    subject_contrasts,
)
from analysis.estimates import cell, columns, corrected, counted, exact, is_ratio, shown, told_p, with_interval
from analysis.replicates import curves, left_out, questions
from analysis.summary import limits, metric_names, points, title, unique
from analysis.table import Table, digits_for, number

if TYPE_CHECKING:
    import pandas as pd

    from analysis.collect import Sweep

LEADING = ("gold", "alpaca_eval", "arena_hard", "mt_bench")
"""Which benchmark the verdict is about: the first of these that a sweep has."""
SATURATED = {"win_rate": 95.0, "lc_win_rate": 95.0, "rating": 9.5}
"""From this mean on, a metric can hardly tell better from best."""
EXTRAPOLATED = 0.8
"""Beyond this share of answers longer than the baseline's, a rate at equal length rests on a model, not on data."""
OFTEN_CUT = 5.0
"""Above this percentage of cut answers, lengths are those of the limit as well."""
LATE_ROUNDS = 5


def leading(sweep: Sweep) -> str:
    """The benchmark that the most runs have, all of them where one is common to all; of several, by LEADING.

    Raises AnalysisError where no run has one.
    """
    runs_with = Counter(name for run in sweep.runs for name in run.primary)
    if not runs_with:
        raise AnalysisError(
            f"{sweep.folder}: expected runs with a benchmark, but none of its {len(sweep.runs)} has one; run the sweep "
            "again with one (benchmark=...), which adds it to what is trained already"
        )
    most = max(runs_with.values())
    return next(name for name in (*LEADING, *runs_with) if runs_with[name] == most)


@lru_cache(maxsize=16)
def all_contrasts(sweep: Sweep, benchmark: str) -> list[Contrast]:
    """Shared by the tables and the verdict: redrawn questions make them the dearest numbers of a report."""
    series = curves(sweep, benchmark)
    return contrasts(series) if series else []


def control_name(sweep: Sweep, benchmark: str) -> str:
    """What the control is called: with its variant where the sweep has several of them."""
    return replicates.control_name(curves(sweep, benchmark))


@lru_cache(maxsize=16)
def _subject_contrasts(sweep: Sweep, benchmark: str) -> list[Contrast]:
    return subject_contrasts(curves(sweep, benchmark))


def contrasts_table(sweep: Sweep, benchmark: str, name: str) -> Table | None:
    """Every objective against DPO, paired by seed and base model, at rounds 5, 10, 15 or as far as the sweep goes."""
    control = control_name(sweep, benchmark)
    note = f"Minus or over {control}'s of the same seed and base model"
    return _table(sweep, benchmark, name, all_contrasts(sweep, benchmark), f"against {control}", note, QUANTITIES)


def subject_table(sweep: Sweep, benchmark: str, name: str) -> Table | None:
    """AIPO against every other objective, likewise; None with fewer than two others or several variants of it."""
    subject = style.objective_name(SUBJECT)
    headers = {
        "log_length": f"{subject}'s length / its length",
        "score": f"{subject}'s score − its score",
        "score_at_equal_length": f"{subject}'s score − its score, at equal length",
        "log_length_at_equal_score": f"{subject}'s length / its length, at equal score",
    }
    note = f"{subject}'s minus or over that of the named objective with the same seed and base model"
    return _table(
        sweep, benchmark, name, _subject_contrasts(sweep, benchmark), f"{subject} against each", note, headers
    )


def _table(
    sweep: Sweep, benchmark: str, name: str, found: list[Contrast], what: str, note: str, headers: dict[str, str]
) -> Table | None:
    import pandas as pd

    if not found:
        return None
    varied = any(contrast.variant for contrast in found)
    digits = digits_for([contrast.estimate.value for contrast in found if not is_ratio(contrast)])
    rows = sorted({(c.horizon, *style.series_order(c.objective, c.variant)[:1], c.objective, c.variant) for c in found})
    by_place = {(c.horizon, c.objective, c.variant, c.quantity): c for c in found}
    cells, data = [], []
    for horizon, _, objective, variant in rows:
        mine = [by_place.get((horizon, objective, variant, quantity)) for quantity in QUANTITIES]
        first = [str(horizon), style.objective_name(objective), *([variant] if varied else [])]
        cells.append((*first, *(cell(contrast, digits) for contrast in mine)))
        data.append({"benchmark": benchmark, "round": horizon, "objective": objective, "variant": variant})
        for contrast in (contrast for contrast in mine if contrast):
            data[-1] |= exact(contrast)
    notes = [
        f"{note}; in brackets the 95 % interval over {counted([one.estimate for one in found])}{corrected(found)}.",
        "At equal length: read off the measured curves by interpolation, averaged over the lengths that all curves "
        "compared here pass; at equal score likewise. No line is fitted.",
    ]
    notes += [*_power_notes(found, digits, headers), *left_out(sweep, benchmark)]
    if any(contrast.new_base_models for contrast in found):
        notes.append("The intervals are about these base models; about others see ..._new_base_models_* in the CSV.")
    fingerprints = unique(d for digests in points(sweep, benchmark)["fingerprints"] for d in digests)
    return Table(
        name=name,
        title=f"{title(sweep, benchmark)}: {what}",
        data=pd.DataFrame(data),
        header=("after round", "objective", *(["variant"] if varied else []), *headers.values()),
        cells=tuple(cells),
        notes=tuple(notes),
        fingerprints=fingerprints,
        text_columns=2 + varied,
    )


def curves_table(sweep: Sweep, benchmark: str, name: str) -> Table | None:
    """Per objective: where its curve ends, its peak, what is lost after it, and its mean score at equal length."""
    import pandas as pd

    series = curves(sweep, benchmark)
    if not series:
        return None
    horizon = min(one.rounds for one in series)
    at_equal, where = levels(series, horizon)
    varied = any(one.series[1] for one in series)
    digits = digits_for([float(replicate.scores.max()) for one in series for replicate in one.replicates])
    late = max(0, horizon - LATE_ROUNDS)
    cells, data, ends = [], [], []
    for one in sorted(series, key=lambda s: style.series_order(*s.series)):
        last_score = over_replicates(one, horizon, lambda _, scores: float(scores[-1]))
        last_length = over_replicates(one, horizon, lambda lengths, _: float(lengths[-1]))
        ends.append(last_score)
        mean_scores = np.mean([replicate.scores[:horizon] for replicate in one.replicates], axis=0)
        mean_lengths = np.mean([replicate.lengths[:horizon] for replicate in one.replicates], axis=0)
        peak = int(mean_scores.argmax())
        lost = over_replicates(one, horizon, lambda _, scores: float(scores[-1] - scores[late - 1])) if late else None
        equal = at_equal.get(one.series)
        cells.append(
            (
                style.objective_name(one.series[0]), *([one.series[1]] if varied else []),
                with_interval(last_length, 1), with_interval(last_score, digits),
                f"{number(float(mean_scores[peak]), digits)} "
                f"(round {peak + 1}, {number(float(mean_lengths[peak]), 1)})",
                "–" if lost is None else f"{with_interval(lost, digits)}{told_p(lost.p)}",
                "–" if equal is None else with_interval(equal, digits),
            )
        )  # fmt: skip
        row = {"benchmark": benchmark, "objective": one.series[0], "variant": one.series[1], "rounds": horizon}
        row |= {"n_seeds": len(one.replicates), "n_base_models": len(set(one.base_models))}
        row |= {"n_questions": one.n_questions, "peak_score": mean_scores[peak], "peak_round": peak + 1}
        row |= {"peak_length": mean_lengths[peak]}
        quantities = {"last_length": last_length, "last_score": last_score, "late_change": lost}
        for key, found in (quantities | {"score_at_equal_length": equal}).items():
            row |= columns(key, found)
        row["score_at_equal_length_n_seeds"] = equal.n_replicates if equal else 0
        data.append(row)
    length = style.metric_name(metric_names(sweep, benchmark)[1])
    notes = [f"In brackets 95 % intervals over {counted(ends)}. Length: {length}."]
    notes.append("Peak: of the mean over seeds, which noise lifts a little; round and length there.")
    if any(1 < len(set(one.base_models)) < len(one.replicates) for one in series):
        notes[-1] += " All else counts each base model the same, however many seeds it has."
    if not where.is_empty and at_equal:
        notes.append(f"Equal length: from {number(where.low, 1)} to {number(where.high, 1)}, which all curves pass.")
        if any(row["score_at_equal_length_n_seeds"] != row["n_seeds"] for row in data):
            n = max(equal.n_replicates for equal in at_equal.values())
            notes[-1] = (
                f"{notes[-1].removesuffix('all curves pass.')}all curves that are compared pass; of each over the {n} "
                f"seed{'s' * (n > 1)} that all of these have (score_at_equal_length_n_seeds in the CSV)."
            )
    elif len(series) > 1:
        notes.append("Nothing at equal length: the objectives share no finished seed, or no length that all pass.")
    notes += left_out(sweep, benchmark)
    fingerprints = unique(d for digests in points(sweep, benchmark)["fingerprints"] for d in digests)
    change = f"score, round {horizon} − round {late}" if late else "late change of the score"
    header = ("objective", *(["variant"] if varied else []), "last length", "last score", "peak score", change)
    return Table(
        name=name,
        title=f"{title(sweep, benchmark)}: the curves after {horizon} round{'s' * (horizon > 1)}",
        data=pd.DataFrame(data),
        header=(*header, "mean score at equal length"),
        cells=tuple(cells),
        notes=tuple(notes),
        fingerprints=fingerprints,
        text_columns=1 + varied,
    )


def verdict(sweep: Sweep, benchmarks: Sequence[str]) -> list[str]:
    """What may be concluded from the leading benchmark and what may not, a sentence each."""
    name = next((benchmark for benchmark in (*LEADING, *benchmarks) if benchmark in benchmarks), None)
    series = curves(sweep, name) if name else []
    found = all_contrasts(sweep, name) if name else []
    if not found or name is None:
        return left_out(sweep, name) if name else []
    horizon = max(contrast.horizon for contrast in found)
    last = [contrast for contrast in found if contrast.horizon == horizon]
    sentences = []
    for contrast in sorted(last, key=lambda c: style.series_order(c.objective, c.variant)):
        if contrast.quantity in ("log_length", "score_at_equal_length"):
            sentences.append(_sentence(contrast, title(sweep, name), control_name(sweep, name)))
    sentences += left_out(sweep, name)
    if alone := [one for one in last if one.estimate.n_replicates == 1]:
        names = dict.fromkeys(style.series_name(one.objective, one.variant) for one in alone)
        what = "This is one seed" if len(alone) == len(last) else f"There is one seed of {', '.join(names)}"
        knows = "know other questions, not other training runs" if alone[0].estimate.n_questions else "are not known"
        sentences.append(f"{what}: the intervals {knows}. One seed decides nothing; run more (seed=0,1,2,...).")
    if len(alone) < len(last):
        together = compared(series)
        equal, _ = statistic_of("score_at_equal_length", together, horizon)
        for statistic, rising, what in (
            (lambda lengths, _: float(lengths[-1]), True, "last length, the shortest first"),
            (lambda _, scores: float(scores[-1]), False, "last score, the best first"),
            (equal, False, "score at equal length, the best first"),
        ):
            if statistic is None:
                continue
            agreement = order_agreement(together, statistic, rising=rising)
            if agreement is not None:
                order = ", ".join(style.objective_name(objective) for objective in agreement.order)
                sentences.append(
                    f"In order of the {what}: {order}. Kendall's tau with the paper's order is "
                    f"{number(agreement.tau, 2)} ({number(agreement.low, 2)} to {number(agreement.high, 2)}; exact "
                    f"p = {agreement.p:.3g}); {100 * agreement.share_equal:.0f} % of redraws have exactly its order."
                )
    return sentences


def warnings(sweep: Sweep, benchmarks: Sequence[str]) -> list[str]:
    """Numbers that should not be read as they stand: length control beyond its data, saturated benchmarks."""
    found = []
    if cut := {style.benchmark_name(name): limits(sweep, name) for name in benchmarks if limits(sweep, name)}:
        asked = "; ".join(f"{name}: {' or '.join(map(str, numbers))}" for name, numbers in cut.items())
        found.append(
            f"Only the first questions were asked ({asked}): a first contact with the judge, no result. Take limit "
            "(or benchmark.<name>.limit) out for scores."
        )
    for benchmark in benchmarks:
        primary, _ = metric_names(sweep, benchmark)
        frame = points(sweep, benchmark)
        trained = frame[(frame["objective"] != "") & (frame["iteration"] == frame["iteration"].max())]
        limit = SATURATED.get(primary)
        if limit is not None and not trained.empty and float(trained["score"].max()) >= limit:
            found.append(
                f"{title(sweep, benchmark)} is saturated: {number(float(trained['score'].max()), 1)} of the last "
                f"policies' {style.metric_name(primary, benchmark)} leaves no room to tell better from best."
            )
        found += _often_cut(sweep, benchmark, trained)
        longer = share_longer_than_baseline(sweep, benchmark)
        if longer > EXTRAPOLATED:
            found.append(
                f"{title(sweep, benchmark)}: {100 * longer:.0f} % of the last policies' answers are longer than the "
                "baseline's to the same question. The length-controlled win rate is therefore extrapolated to equal "
                "lengths that were hardly seen; read the plain win rate beside the length instead."
            )
    return found


def _often_cut(sweep: Sweep, benchmark: str, last: pd.DataFrame) -> list[str]:
    """A sentence about the series whose last answers (rows of `points`) were often cut, the worst five; else none."""
    if last.empty or "truncated_share" not in last:
        return []
    shares = last.groupby(["objective", "variant"])["truncated_share"].mean().sort_values(ascending=False)
    often = [(style.series_name(*key), share) for key, share in shares.items() if share > OFTEN_CUT]
    if not often:
        return []
    listed = ", ".join(f"{name} {share:.0f} %" for name, share in often[:5])
    listed += f", and {len(often) - 5} more" if len(often) > 5 else ""
    return [
        f"{title(sweep, benchmark)}: many of the last policies' answers were cut at the token limit ({listed}). Their "
        "lengths, and most differences of lengths, are understated, and what was cut may count as wrong; raise its "
        f"max_new_tokens (benchmark.{benchmark}) where its protocol leaves that free."
    ]


def share_longer_than_baseline(sweep: Sweep, benchmark: str) -> float:
    """Of the answers after each job's last round, the share with more characters than the baseline's, over all jobs.

    Only where length is controlled for and the baseline is the base model, whose answers are in the sweep (the
    miniature's AlpacaEval); else NaN.
    """
    rows = sweep.scores[
        (sweep.scores["benchmark"] == benchmark)
        & (sweep.scores["diagnostic"] == "")
        & (sweep.scores["metric"] == "lc_win_rate")
        & ~sweep.scores["official"].astype(bool)
    ]
    stores = {run.job: run.store for run in sweep.runs}
    longer: list[float] = []
    for job, mine in rows.groupby("job", sort=False):
        ends = (mine.loc[mine["iteration"].idxmin()], mine.loc[mine["iteration"].idxmax()])
        if ends[0]["iteration"] != BASE_ITERATION or ends[1]["iteration"] == BASE_ITERATION:
            continue
        base, last = (questions(stores[job], end["fingerprint"]) for end in ends)
        if base is not None and last is not None and base["ids"] == last["ids"]:
            longer.append(float(np.mean(last["chars"] > base["chars"])))
    return float(np.mean(longer)) if longer else math.nan


def _power_notes(found: Sequence[Contrast], digits: int, headers: dict[str, str]) -> list[str]:
    horizon = max(contrast.horizon for contrast in found)
    last = [contrast for contrast in found if contrast.horizon == horizon and contrast.estimate.n_replicates > 1]
    notes = []
    for quantity, header in headers.items():
        mine = [contrast for contrast in last if contrast.quantity == quantity]
        if mine:
            smallest = max(contrast.estimate.detectable for contrast in mine)
            least = f"a ratio of {number(math.exp(-smallest), 2)}" if is_ratio(mine[0]) else number(smallest, digits)
            text = "the smallest difference that these seeds would have shown in 4 of 5 repetitions is"
            notes.append(f"{header}: {text} {least}.")
    return notes


def _sentence(contrast: Contrast, benchmark: str, control: str) -> str:
    name, p = style.series_name(contrast.objective, contrast.variant), contrast.p_holm
    if contrast.quantity == "log_length":
        what = "answers are " + shown(contrast, 3, f" times as long as {control}'s")
    else:
        what = f"{benchmark} at equal length minus {control}'s is {shown(contrast, 3)}"
    says = f"{told_p(p)}: {'a difference' if p < 0.05 else 'no difference shown'}"
    return f"{name}, after round {contrast.horizon}: {what}{'' if math.isnan(p) else says}."
