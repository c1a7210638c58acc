"""The league: every objective under an equal tuning budget, confirmed on fresh seeds. Protocol: docs/league.md.

`python -m analysis.league results/league_tuning` chooses a learning rate for each objective and prints the confirming
commands; with the confirming sweep's folder as a second argument it writes the league's table into that folder.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aipo.jobs import JobFileError
from aipo.stats import Range, common_lengths, holm, mean_score_over
from analysis import style
from analysis.collect import AnalysisError, Sweep, collect
from analysis.contrasts import Contrast, pair_contrasts
from analysis.estimates import counted, shown_p
from analysis.findings import leading
from analysis.replicates import CONTROL, Curves, Replicate, curves, key_of, left_out
from analysis.summary import points, unique
from analysis.table import Table, number

LEVEL = 0.05
KNOB = "trainer.learning_rate"


@dataclass(frozen=True)
class Special:
    """An arm whose verdict is known beforehand: made of another objective's, at that one's chosen learning rate."""

    name: str
    of: str
    overrides: tuple[str, ...]
    expected: str


PLACEBO = Special("dpo_placebo", "dpo", ("objective.loss.beta=0.100001",), "no different")
"""DPO under another name. The sixth digit of beta changes roundings alone; so its samples are not DPO's, its law is."""
FAULTS = (
    Special(
        "r_dpo_flipped",
        "r_dpo",
        ("objective.loss._target_=experiments.planted_faults.r_dpo_flipped",),
        "worse",
    ),
    Special("simpo_low_beta", "simpo", ("objective.loss.beta=0.1",), "worse"),
)
"""R-DPO with its length term's sign flipped, and SimPO at a twentieth of its beta."""


@dataclass(frozen=True)
class Choice:
    """What the tuning seeds say of one objective."""

    objective: str
    learning_rate: float
    value: float
    """Mean over tuning seeds of the score minus the control's at equal length; see `by_length`."""
    by_length: bool
    """False: no setting of it shares lengths with the control on every seed, so the last score decided."""
    settings: int
    """How many were tried."""


def choose(tuning: Sweep) -> list[Choice]:
    """The best learning rate of every objective, by the score at the control's lengths, ties to the smaller one.

    The control is DPO at the learning rate in the middle of those tried. Raises AnalysisError where objectives differ
    in what was tried or on which seeds: the budget would not be equal.
    """
    by_setting = _once(tuning, [((one.series[0], rate), one) for one, rate in _with_rates(tuning)])
    rates = sorted({rate for _, rate in by_setting})
    names = sorted({name for name, _ in by_setting})
    lacking = [f"{name} at {rate:g}" for name in names for rate in rates if (name, rate) not in by_setting]
    if CONTROL not in names or lacking:
        raise AnalysisError(
            f"{tuning.folder}: expected {CONTROL} and every objective at the same learning rates, all rounds scored; "
            f"missing: {', '.join(lacking) or CONTROL}. Finish the tuning sweep (aipo rerun {tuning.folder})"
        )
    control = by_setting[CONTROL, rates[len(rates) // 2]]
    keys = set(map(key_of, control.replicates))
    for (name, rate), one in by_setting.items():
        if set(map(key_of, one.replicates)) != keys:
            raise AnalysisError(
                f"{tuning.folder}: {name} at {rate:g} has other seeds than {CONTROL}: the budget is not equal. "
                f"Finish the tuning sweep (aipo rerun {tuning.folder})"
            )
    return [_choice(name, {rate: by_setting[name, rate] for rate in rates}, control) for name in names]


def _once(sweep: Sweep, found: Sequence[tuple[tuple[str, float], Curves]]) -> dict[tuple[str, float], Curves]:
    """The series by objective and learning rate. Raises AnalysisError where two differ in something else."""
    keys = [key for key, _ in found]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        listed = ", ".join(f"{name} at {rate:g}" for name, rate in twice)
        raise AnalysisError(
            f"{sweep.folder}: expected one setting of each arm, but several differ in more than the learning rate: "
            f"{listed}; give each an objective.name of its own, or move the jobs that are not meant away"
        )
    return dict(found)


def _choice(name: str, settings: dict[float, Curves], control: Curves) -> Choice:
    at_equal = {rate: _equal_length(one, control) for rate, one in settings.items()}
    known = {rate: value for rate, value in at_equal.items() if not math.isnan(value)}
    last = {rate: float(np.mean([r.scores[-1] for r in one.replicates])) for rate, one in settings.items()}
    values = known or last
    best = max(sorted(values), key=lambda rate: values[rate])
    return Choice(name, best, values[best], bool(known), len(settings))


def _equal_length(one: Curves, control: Curves) -> float:
    """Mean over replicates of the score minus the control's at the lengths that both curves pass; NaN without any."""
    against = {key_of(replicate): replicate for replicate in control.replicates}
    differences = []
    for mine in one.replicates:
        theirs = against[key_of(mine)]
        where = common_lengths([mine.lengths, theirs.lengths])
        if where.is_empty:
            return math.nan
        differences.append(_read(mine, where) - _read(theirs, where))
    return float(np.mean(differences))


def _read(replicate: Replicate, where: Range) -> float:
    return mean_score_over(replicate.lengths, replicate.scores, where)


def _with_rates(sweep: Sweep) -> Iterator[tuple[Curves, float]]:
    for one in curves(sweep, leading(sweep)):
        yield one, _rate(sweep, one)


def _rate(sweep: Sweep, one: Curves) -> float:
    group, key = KNOB.split(".")
    job = one.replicates[0].job
    return next(float(run.record.settings[group][key]) for run in sweep.runs if run.job == job)


def commands(choices: Sequence[Choice], seeds: str) -> list[str]:
    """The override lists of the confirming runs: one per learning rate, and one per special arm."""
    rates = {choice.objective: choice.learning_rate for choice in choices}
    found = []
    for rate in sorted(set(rates.values())):
        names = ",".join(name for name in rates if rates[name] == rate)
        found.append(f"objective={names} {KNOB}={rate:g} seed={seeds}")
    for arm in (PLACEBO, *FAULTS):
        if arm.of in rates:
            arguments = " ".join((f"objective={arm.of}", f"objective.name={arm.name}", *arm.overrides))
            found.append(f"{arguments} {KNOB}={rates[arm.of]:g} seed={seeds}")
    return found


def league_table(league: Sweep, choices: Sequence[Choice]) -> Table:
    """A row per arm against DPO: length, score, and score at the lengths that both pass; the best first.

    p is Holm's over the arms that have one in the column. Raises AnalysisError where DPO is missing, a learning
    rate was not chosen, an arm ran with several settings, or shares no seed with DPO.
    """
    import pandas as pd

    rates = {choice.objective: choice.learning_rate for choice in choices}
    rates |= {arm.name: rates[arm.of] for arm in (PLACEBO, *FAULTS) if arm.of in rates}
    with_rates = list(_with_rates(league))
    for one, rate in with_rates:
        name = one.series[0]
        if rates.get(name) != rate:
            raise AnalysisError(f"{league.folder}: {name} ran at {rate:g}, the tuning seeds chose {rates.get(name)}")
    series = list(_once(league, [((one.series[0], rate), one) for one, rate in with_rates]).values())
    control = next((one for one in series if one.series[0] == CONTROL), None)
    if control is None:
        raise AnalysisError(f"{league.folder}: expected {CONTROL} among its arms, as every other is held against it")
    arms = {one.series[0]: pair_contrasts(one, control) for one in series if one is not control}
    if apart := [name for name, mine in arms.items() if not mine]:
        raise AnalysisError(f"{league.folder}: expected seeds of {CONTROL} for every arm; none of: {', '.join(apart)}")
    found = _corrected(arms)
    order = sorted(found, key=lambda name: (-_value(found[name], "score_at_equal_length"), name))
    cells, data = [], []
    expected = {arm.name: arm.expected for arm in (PLACEBO, *FAULTS)}
    for name in order:
        mine = found[name]
        shown = [_shown(mine.get(quantity)) for quantity in ("log_length", "score", "score_at_equal_length")]
        verdict = _verdict(mine)
        cells.append((style.objective_name(name), f"{rates[name]:g}", *shown, verdict, expected.get(name, "–")))
        data.append({"objective": name, "learning_rate": rates[name], "verdict": verdict})
        data[-1]["n_seeds"] = mine["score"].estimate.n_replicates
        for quantity, contrast in mine.items():
            e = contrast.estimate
            data[-1] |= {quantity: e.value, f"{quantity}_ci95_low": e.low, f"{quantity}_ci95_high": e.high}
            data[-1] |= {f"{quantity}_p_holm": contrast.p_holm}
    fingerprints = unique(d for digests in points(league, leading(league))["fingerprints"] for d in digests)
    over = counted([contrast.estimate for mine in found.values() for contrast in mine.values()])
    tried = max(choice.settings for choice in choices)
    return Table(
        name="league",
        title=f"The league: {len(order)} arms against {style.objective_name(CONTROL)}",
        data=pd.DataFrame(data),
        header=(
            *("objective", "learning rate", "length / DPO's", "score − DPO's", "score − DPO's, at equal length"),
            *("verdict", "known beforehand"),
        ),
        cells=tuple(cells),
        notes=(
            f"After round {control.rounds}, on fresh seeds; in brackets the 95 % interval over {over}; p corrected by "
            "Holm for the arms that have one in the column. Each arm's learning rate is the best of "
            f"{tried} on the tuning seeds; all other coefficients are those of conf/objective. Arms known beforehand "
            "have the learning rate of what they alter.",
            "At equal length: read off the measured curves over the lengths that this arm and DPO both pass; – where "
            "they pass none in common. Verdict: by that column, else by the score, at p < 0.05.",
            "Known beforehand: an arm that is DPO itself, and two that are wrong on purpose (docs/league.md).",
            *left_out(league, leading(league)),
        ),
        fingerprints=fingerprints,
    )


def _corrected(arms: dict[str, dict[str, Contrast]]) -> dict[str, dict[str, Contrast]]:
    found: dict[str, dict[str, Contrast]] = {name: {} for name in arms}
    for quantity in ("log_length", "score", "score_at_equal_length"):
        having = [name for name in arms if quantity in arms[name]]
        corrected = holm([arms[name][quantity].estimate.p for name in having])
        for name, p in zip(having, corrected, strict=True):
            found[name][quantity] = replace(arms[name][quantity], p_holm=p)
    return found


def _value(mine: dict[str, Contrast], quantity: str) -> float:
    return mine[quantity].estimate.value if quantity in mine else -math.inf


def _verdict(mine: dict[str, Contrast]) -> str:
    decisive = mine.get("score_at_equal_length") or mine["score"]
    if math.isnan(decisive.p_holm):
        return "not tested: one seed"
    if not decisive.p_holm < LEVEL:
        return "no different"
    return "better" if decisive.estimate.value > 0 else "worse"


def _shown(contrast: Contrast | None) -> str:
    if contrast is None:
        return "–"
    e = contrast.estimate
    ratio = contrast.quantity == "log_length"
    values = [math.exp(v) if ratio else v for v in (e.value, e.low, e.high)]
    value, low, high = (number(v, 2 if ratio else 3) for v in values)
    shown = value if math.isnan(e.low) else f"{value} ({low} to {high})"
    if math.isnan(contrast.p_holm):
        return shown
    return f"{shown}; p {'' if contrast.p_holm < 1e-4 else '= '}{shown_p(contrast.p_holm)}"


def _seeds(text: str) -> list[int]:
    return [int(item) for item in text.split(",")]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis.league", description=__doc__.split("\n")[0])
    parser.add_argument("tuning", type=Path, help="the tuning sweep's folder, as results/league_tuning")
    parser.add_argument("league", type=Path, nargs="?", help="the confirming sweep's folder: writes its table")
    parser.add_argument(
        "--seeds", type=_seeds, default="0,1,2,3,4,5", help="of the confirming runs, with commas (%(default)s)"
    )
    parsed = parser.parse_args(arguments)
    try:
        tuning = collect(parsed.tuning)
        choices = choose(tuning)
        tuned = {run.seed for run in tuning.runs}
        if parsed.league is None:
            if shared := tuned & set(parsed.seeds):
                raise AnalysisError(f"--seeds: expected fresh seeds, but {sorted(shared)} were tuning seeds")
            for choice in choices:
                how = "at DPO's lengths" if choice.by_length else "last score: no lengths in common with DPO"
                print(f"{choice.objective}: {choice.learning_rate:g} ({choice.value:+.3f} {how})", file=sys.stderr)
            print("\n".join(commands(choices, ",".join(map(str, parsed.seeds)))))
            return 0
        league = collect(parsed.league)
        if shared := tuned & {run.seed for run in league.runs}:
            raise AnalysisError(f"{parsed.league}: expected fresh seeds, but {sorted(shared)} were tuning seeds")
        table = league_table(league, choices)
        for path in table.write(parsed.league / "tables"):
            print(f"wrote {path}")
    except (AnalysisError, JobFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
