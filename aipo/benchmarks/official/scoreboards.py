"""Tables from official files: what `python -m aipo.benchmarks score` prints, per benchmark."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from aipo.benchmarks.official.assets import AssetCache, MissingAsset, asset
from aipo.records import Judgment

Scoreboard = tuple[list[list[Any]], list[str]]
"""(rows with a header, notes)."""


def mt_bench(options: Namespace) -> Scoreboard:
    """show_result's numbers, single or pairwise, from the rows of all files together."""
    from aipo.benchmarks.official.mt_bench_files import matches, ratings, read_answers, read_judgment_rows

    rows = [row for file in options.judgments for row in read_judgment_rows(file)]
    notes = _one_judge({row["judge"][0] for row in rows})
    pairwise = {"g1_winner" in row for row in rows}
    if len(pairwise) > 1:
        raise ValueError("single and pairwise judgments do not belong in one table; score the files one by one")
    if pairwise == {True}:
        rows = _against(rows, options.baseline)
        listed = [
            [row.policy, row.wins, row.losses, row.ties, row.win_rate, row.loss_rate, row.win_rate_adjusted]
            for row in matches(rows, baseline=options.baseline)
        ]
        errors = sum("error" in (row["g1_winner"], row["g2_winner"]) for row in rows)
        notes.append(f"{errors} of {len(rows)} matches unscored")
        header = ["model", "win", "loss", "tie", "win_rate", "loss_rate", "win_rate_adjusted"]
        return [header, *listed], notes
    chars = {}
    for file in options.answers:
        model, answers = read_answers(file)
        turns = [turn for answer in answers for turn in answer.turns]
        chars[model] = sum(len(turn.text) for turn in turns) / len(turns)
    notes += _unjudged(chars, {str(row["model"]) for row in rows})
    listed = [
        [row.policy, row.turn_1, row.turn_2, row.average, row.n_scored, row.n_unscored, chars.get(row.policy)]
        for row in ratings(rows, keep_last=options.keep_last)
    ]
    outside = sum(row["score"] != -1 and not 1 <= row["score"] <= 10 for row in rows)
    if outside:
        notes.append(f"{outside} score(s) outside 1..10 are unscored here; show_result averages them in")
    repeated = len(rows) - len({(row["question_id"], row["model"], row["turn"]) for row in rows})
    if repeated and not options.keep_last:
        notes.append(f"{repeated} repeated line(s) count, as in show_result; --keep-last counts each verdict once")
    return [["model", "turn_1", "turn_2", "average", "n_scored", "n_unscored", "mean_chars"], *listed], notes


def _against(rows: list[dict[str, Any]], baseline: str | None) -> list[dict[str, Any]]:
    """The matches of a baseline; all of them where none is named."""
    if baseline is None:
        return rows
    models = {str(row[side]) for row in rows for side in ("model_1", "model_2")}
    if baseline not in models:
        raise ValueError(
            f"--baseline {baseline}: no such model in these judgments; choose from {', '.join(sorted(models))}"
        )
    return [row for row in rows if baseline in (str(row["model_1"]), str(row["model_2"]))]


def alpaca_eval(options: Namespace) -> Scoreboard:
    """The leaderboard's columns, with intervals, for each annotations.json."""
    import pandas as pd

    from aipo.benchmarks.alpaca_eval import FEW_ITEMS, N_FOLDS, difficulty_by_row, gamed_rows, preference_metrics
    from aipo.benchmarks.official.alpaca_eval_files import read_annotations, read_outputs

    notes = []
    gamed = None
    try:
        file = options.gamed or AssetCache(options.assets).path(asset("alpaca_eval/df_gamed.csv"))
        gamed = pd.read_csv(file)
    except MissingAsset as error:
        notes.append(f"no length control: {error}; or name another file with --gamed")
    outputs = dict(read_outputs(file) for file in options.answers)
    listed: list[list[Any]] = []
    annotators, policies = set(), set()
    for file in options.judgments:
        found = read_annotations(file)
        annotators.add(found.annotator)
        policies.add(found.policy)
        n_scored = sum(preference == preference for preference in found.preferences)
        controllable = gamed is not None and n_scored >= N_FOLDS
        if gamed is not None and not controllable:
            notes.append(f"no length control for {found.policy}: {n_scored} scored items, at least {N_FOLDS} needed")
        if repeated := len(found.instructions) - len(set(zip(found.instructions, found.chars, strict=True))):
            notes.append(f"{file}: {repeated} repeated row(s) count, as in the official code")
        chars = found.chars
        if found.policy in outputs:
            by_instruction = {row["instruction"]: len(row["output"]) for row in outputs[found.policy]}
            answered = [by_instruction.get(instruction) for instruction in found.instructions]
            if answered != list(chars):
                raise ValueError(f"{file}: the judged outputs are not those in the answers of {found.policy}")
            chars = tuple(by_instruction.values())
        metrics = {
            metric.name: metric
            for metric in preference_metrics(
                found.preferences,
                found.chars,
                found.baseline_chars,
                difficulty=None if gamed is None else difficulty_by_row(gamed, len(found.preferences)),
                gamed=gamed_rows(gamed),
                same_policy=found.policy == found.baseline,
                length_control=controllable,
            )
        }
        controlled, rate = metrics.get("lc_win_rate"), metrics["win_rate"]
        listed.append(
            [
                found.policy,
                None if controlled is None else controlled.value,
                None if controlled is None else controlled.ci95,
                metrics["lc_standard_error"].value if "lc_standard_error" in metrics else None,
                rate.value,
                rate.ci95,
                metrics["standard_error"].value,
                metrics["discrete_win_rate"].value,
                int(sum(chars) / len(chars)),
                rate.n_scored,
                rate.n_unscored,
            ]
        )
    if any(row[1] is not None and row[-2] + row[-1] < FEW_ITEMS for row in listed):
        notes.append(f"below {FEW_ITEMS} items the gamed rows dominate the length-controlled fit")
    notes += _unjudged(outputs, policies) + _one_judge(annotators)
    header = ["model", "lc_win_rate", "lc_ci95", "lc_se", "win_rate", "ci95", "se", "discrete", "avg_length"]
    listed.sort(key=lambda row: -(row[1] if row[1] is not None else row[4]))
    rows = [[*header, "n_scored", "n_unscored"], *listed]
    for ours, theirs in ((1, "length_controlled_winrate"), (4, "win_rate")):
        notes += _compare(rows, ours, options.published, theirs)
    return rows, list(dict.fromkeys(notes))


def arena_hard(options: Namespace) -> Scoreboard:
    """show_result's table; all judgment files share one pooled bootstrap, in sorted order of their names."""
    from aipo.benchmarks.arena_hard import game_metrics
    from aipo.benchmarks.official.arena_hard_files import read_judgments, standings

    baseline = options.baseline or "gpt-4-0314"
    judgments: dict[str, list[Judgment]] = {}
    repeats: list[str] = []
    for file in sorted(options.judgments):
        policy, games = read_judgments(file)
        if policy in judgments:
            raise ValueError(f"{file}: judgments of {policy} in a second file; expected one file for each policy")
        judgments[policy] = games
        if repeated := len(games) - len({(game.question_id, game.order) for game in games}):
            repeats.append(f"{file}: {repeated} repeated game(s) count, as in show_result")
    judges = {row.judge for rows in judgments.values() for row in rows}
    lengths, how = _arena_lengths(options.answers, AssetCache(options.assets))
    listed: list[list[Any]] = []
    for row in standings(judgments, baseline=baseline):
        own: Sequence[Any] = ["-"] * 3 if row.policy == baseline else _own_games(game_metrics(judgments[row.policy]))
        listed.append(
            [row.policy, row.win_rate, row.interval, own[0], row.rating, lengths.get(row.policy), own[1], own[2]]
        )
    header = ["model", "win_rate", "pooled_ci95", "own_ci95", "rating", how, "n_scored", "n_unscored"]
    notes = ["pooled_ci95 is the official interval and depends on the files given; own_ci95 resamples questions"]
    rows = [header, *listed]
    notes += _compare(rows, 1, options.published, "score")
    return rows, notes + repeats + _unjudged(lengths, {*judgments, baseline}) + _one_judge(judges)


def _own_games(metrics: Sequence[Any]) -> list[Any]:
    rate = metrics[0]
    return [rate.ci95, rate.n_scored, rate.n_unscored]


def _arena_lengths(files: Sequence[Path], cache: AssetCache) -> tuple[dict[str, int], str]:
    """Mean tokens, truncated as officially, and what they are: the files' own, tiktoken's, or an estimate."""
    from aipo.benchmarks.official.arena_hard_files import read_answers
    from aipo.benchmarks.official.cl100k import Cl100kTokens
    from aipo.benchmarks.token_counters import EstimatedTokens

    found = [read_answers(file) for file in files]
    if all(mean is not None for _, _, mean in found):
        return {model: int(mean) for model, _, mean in found if mean is not None}, "avg_tokens"
    counter: Cl100kTokens | EstimatedTokens = Cl100kTokens(cache)
    try:
        counter.count([])
    except MissingAsset:
        counter = EstimatedTokens()
    means = {}
    for model, answers, mean in found:
        counts = counter.count([answer.turns[0] for answer in answers])
        means[model] = int(mean if mean is not None else sum(counts) / len(counts))
    return means, counter.metric


def _compare(rows: list[list[Any]], column: int, published: Path | None, theirs: str) -> list[str]:
    """Add a published column and what ours exceeds it by; a policy that is not published gets dashes and a note."""
    if published is None:
        return []
    with published.open(encoding="utf-8", newline="") as file:
        table = {next(iter(row.values())): row for row in csv.DictReader(file)}
    if not table or theirs not in next(iter(table.values())):
        raise ValueError(f"{published}: expected a leaderboard with a column {theirs!r}")
    rows[0] += [f"published_{rows[0][column]}", "difference"]
    for row in rows[1:]:
        value = table.get(row[0], {}).get(theirs)
        known = bool(value) and row[column] is not None
        row += [float(value), f"{row[column] - float(value):+.6f}"] if value and known else [None, None]
    absent = [row[0] for row in rows[1:] if row[0] not in table]
    return [f"{published}: no row for {', '.join(absent)}"] if absent else []


def _unjudged(answered: Iterable[str], judged: set[str]) -> list[str]:
    """A note on answers of policies that no judgment is about."""
    extra = sorted(set(answered) - judged)
    return [f"answers of {', '.join(extra)} not used: no judgment is about them"] if extra else []


def _one_judge(judges: set[str]) -> list[str]:
    if len(judges) > 1:
        raise ValueError(f"judgments of several judges in one table: {sorted(judges)}; score each judge by itself")
    return [f"judge: {next(iter(judges))}"]


SCOREBOARDS: dict[str, Callable[[Namespace], Scoreboard]] = {
    "mt_bench": mt_bench,
    "alpaca_eval": alpaca_eval,
    "arena_hard": arena_hard,
}
