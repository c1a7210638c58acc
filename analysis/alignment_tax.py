"""What training cost elsewhere: lm-evaluation-harness's results of a sweep's policies, as one table.

`aipo lm-eval results/<sweep>` (`aipo.command.lm_eval`) writes a record per policy, tasks and arguments into
`<sweep>/lm_eval/`: whose results they are, and the harness's own file as it came. Values are the harness's: shares,
unless a task says else. Only what was asked with the same arguments is averaged or subtracted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from aipo.jobs import BASE_ITERATION
from analysis import style
from analysis.summary import base_labels
from analysis.table import Table, digits_for, number

if TYPE_CHECKING:
    from analysis.collect import Run, Sweep

FOLDER = "lm_eval"
"""Of a sweep's folder."""
NO_ERROR = "N/A"
"""How the harness writes a standard error that it did not estimate."""


class ResultsError(ValueError):
    """A record cannot be read; the message says what was expected, what was found and what to do."""


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task for one policy."""

    policy: str
    """Its fingerprint, as in a job's points."""
    task: str
    metric: str
    """With the harness's filter where that is none of `none`: `acc`, `exact_match (strict-match)`."""
    value: float
    standard_error: float
    """Over questions; NaN where the harness gives none."""
    n_questions: int
    """0 where the harness does not say."""
    arguments: tuple[str, ...]
    """What the harness was given beside the task, as `--num_fewshot 5`."""


def read(path: Path) -> list[TaskScore]:
    """The scores of one record, of the tasks that were asked for. Raises ResultsError."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        policy, asked, results = str(record["policy"]), list(record["tasks"]), record["results"]
        arguments = tuple(map(str, record.get("arguments", ())))
        found = [score for task in asked for score in _of_task(policy, task, results, arguments)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ResultsError(
            f"{FOLDER}/{path.name}: expected a record that `aipo lm-eval` wrote (policy, tasks, and results of "
            f"the harness for each of them), found {what}; delete the file and run `aipo lm-eval` again"
        ) from error
    return found


def _of_task(policy: str, task: str, results: Mapping[str, Any], arguments: tuple[str, ...]) -> Iterator[TaskScore]:
    row = results["results"][task]
    n_questions = results.get("n-samples", {}).get(task, {}).get("effective", 0)
    for key, value in row.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = row.get(f"{metric}_stderr,{filtered}", NO_ERROR)
        spread = float(error) if isinstance(error, int | float) else math.nan
        name = metric if filtered == "none" else f"{metric} ({filtered})"
        yield TaskScore(policy, task, name, float(value), spread, int(n_questions), arguments)


def files(sweep: Path) -> list[Path]:
    """Every record."""
    return sorted((sweep / FOLDER).glob("*.json"))


def gather(sweep: Path) -> tuple[list[TaskScore], list[str]]:
    """All scores, and a line for each record that cannot be read."""
    scores: list[TaskScore] = []
    problems: list[str] = []
    for path in files(sweep):
        try:
            scores += read(path)
        except ResultsError as error:
            problems.append(str(error))
    return scores, problems


@dataclass(frozen=True)
class _Line:
    """A row of the table before it is one: one series, round, task, metric and arguments over its seeds."""

    series: str
    iteration: int
    task: str
    metric: str
    arguments: tuple[str, ...]
    values: tuple[float, ...]
    """One per job."""
    changes: tuple[float, ...]
    """From the job's base model, where that was evaluated with the same arguments."""
    standard_error: float
    n_questions: int


def table(sweep: Sweep, scores: Sequence[TaskScore]) -> Table | None:
    """A row per task, metric, objective and round; None where no policy of the sweep was evaluated.

    Where the harness was asked with several lists of arguments, each is a row of its own, and a column names them.
    """
    import pandas as pd

    lines = list(_lines(sweep.runs, scores))
    if not lines:
        return None
    several = len({line.arguments for line in lines}) > 1
    rows, cells = [], []
    for line in lines:
        asked = [" ".join(line.arguments) or "none"] if several else []
        digits = digits_for(line.values)
        change = mean(line.changes) if line.changes else math.nan
        rows.append(
            {
                "task": line.task,
                "metric": line.metric,
                **({"arguments": asked[0]} if asked else {}),
                "policy": line.series,
                "round": _round(line.iteration),
                "value": mean(line.values),
                "standard_error": line.standard_error,
                "change_from_base": change,
                "questions": line.n_questions,
                "seeds": len(line.values),
            }
        )
        shown = number(mean(line.values), digits), number(line.standard_error, digits), number(change, digits)
        counts = number(line.n_questions, 0) if line.n_questions else "–", str(len(line.values))
        cells.append((line.task, line.metric, *asked, line.series, _round(line.iteration), *shown, *counts))
    policies = {score.policy for score in scores}
    behind = [point.policy for run in sweep.runs for point in run.points if point.policy in policies]
    return Table(
        name="alignment_tax",
        title="Alignment tax: other abilities, by lm-evaluation-harness",
        data=pd.DataFrame(rows).assign(fingerprints=" ".join(dict.fromkeys(behind))),
        header=(
            "task",
            "metric",
            *(["arguments"] if several else []),
            "policy",
            "round",
            "value",
            "standard error",
            "change from base",
            "questions",
            "seeds",
        ),
        cells=tuple(cells),
        notes=(
            "Values and standard errors (over questions, of one policy; none over several seeds) are the harness's. "
            "Change: from the base model of the same seed, asked with the same arguments, a mean over seeds. "
            "Differences of less than about two standard errors are no finding.",
        ),
        fingerprints=tuple(dict.fromkeys(behind)),
        text_columns=3 + several,
    )


def _round(iteration: int) -> str:
    return "base" if iteration == BASE_ITERATION else str(iteration + 1)


def _lines(runs: Sequence[Run], scores: Sequence[TaskScore]) -> Iterator[_Line]:
    asked: dict[str, dict[tuple[str, str, tuple[str, ...]], TaskScore]] = {}
    for score in scores:  # of two records with the same task and arguments, the first
        asked.setdefault(score.policy, {}).setdefault((score.task, score.metric, score.arguments), score)
    started = {run.job: point.policy for run in runs for point in run.points if point.iteration == BASE_ITERATION}
    labels = base_labels((run.variant, started[run.job]) for run in runs if run.job in started)
    found: dict[tuple[str, str, tuple[str, ...], int, str], list[tuple[TaskScore, float | None]]] = {}
    bases: set[str] = set()
    for run in runs:
        before = asked.get(started.get(run.job, ""), {})
        for point in run.points:
            is_base = point.iteration == BASE_ITERATION
            if is_base and point.policy in bases:  # jobs share it
                continue
            bases |= {point.policy} if is_base else set()
            series = style.series_name(run.objective, run.variant)
            if is_base:
                series = style.BASE_NAME + style.series_name("", labels[point.policy])
            for what, score in asked.get(point.policy, {}).items():
                reference = None if is_base else before.get(what)
                change = None if reference is None else score.value - reference.value
                found.setdefault((*what, point.iteration, series), []).append((score, change))
    for (task, metric, arguments, iteration, series), entries in sorted(found.items()):
        yield _Line(
            series=series,
            iteration=iteration,
            task=task,
            metric=metric,
            arguments=arguments,
            values=tuple(score.value for score, _ in entries),
            changes=tuple(change for _, change in entries if change is not None),
            standard_error=entries[0][0].standard_error if len(entries) == 1 else math.nan,
            n_questions=entries[0][0].n_questions,
        )
