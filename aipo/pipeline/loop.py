"""The loop, readable from top to bottom: one job of a sweep, from the config to its scores."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from aipo.artifacts import PlanStore, StageEvent
from aipo.artifacts.provenance import changes, provenance
from aipo.jobs import BenchmarkRecord, JobFile, JobRecord, Point, ProxyRecord, ScoreRecord, Status
from aipo.pipeline import cpu, measures
from aipo.pipeline.asked import asked
from aipo.pipeline.check import ConfigError, check
from aipo.pipeline.console import ALONE, JobConsole, Place
from aipo.pipeline.ends import EndsWhenTold, GivenUp, HandedOn, Terminated
from aipo.pipeline.live import LivePage
from aipo.pipeline.missing import missing_needs
from aipo.pipeline.quantity import quantity
from aipo.pipeline.reached import reached
from aipo.pipeline.run import Run, build_run
from aipo.pipeline.stages import Policy, Stages
from aipo.pipeline.trackers import Trackers
from aipo.remote import redact
from aipo.terminal import show_details

logger = logging.getLogger("aipo")
LATER = "all but its judging is done (judge_later=true); the same command without that, or `aipo rerun`, adds it"
Watch = Callable[[int, float | None], None]
"""Of an iteration and a job's value after it."""
TRACEBACK = "traceback.txt"
CHANGES = "changes.diff"
"""What the code had beyond its commit as the job started."""


def run(
    config: DictConfig,
    folder: Path,
    overrides: Sequence[str],
    choices: Mapping[str, Any],
    place: Place = ALONE,
    nodes: int | None = None,
) -> float | None:
    """Check the config, then run (or plan) one job, as `run_checked` does. Raises ConfigError, too."""
    return run_checked(check(config), folder, overrides, choices, place, nodes=nodes)


def run_checked(
    plain: Mapping[str, Any],
    folder: Path,
    overrides: Sequence[str],
    choices: Mapping[str, Any],
    place: Place = ALONE,
    watch: Watch = lambda iteration, value: None,
    on_begin: Callable[[str, str], None] | None = None,
    nodes: int | None = None,
) -> float | None:
    """Run (or plan) one job, by the values that `check` gave; `folder` receives its run.json, metrics and log.

    `choices`: what Hydra chose for each config group; they go into run.json. `place`: for the console. `watch` learns
    after each policy what `run` would return now, `on_begin` the name and note of each stage that is about to be made,
    and both may end the job by raising. `nodes`: machines that the job has where it trains; None: those it has now.
    Returned is the first benchmark's score, at the length `returns_at_length` where that is set.

    Raises ConfigError before anything runs, for what is missing; any error of a stage is written into run.json and
    passes through.
    """
    cpu.limit(plain["cpu_threads"], plain["cpu_instructions"])
    show_details(plain["verbose"])
    job = build_run(plain)
    missing = missing_needs(job, asked(job, loop), nodes)
    if plain["plan"]:
        from aipo.planning.report import print_plan

        print_plan(job, planned(job, missing), missing)
        return None
    if missing:
        raise ConfigError([f"missing {item}" for item in missing])
    folder.mkdir(parents=True, exist_ok=True)
    for name in (TRACEBACK, CHANGES):
        (folder / name).unlink(missing_ok=True)  # of an earlier attempt
    if diff := changes():
        (folder / CHANGES).write_text(redact(diff), encoding="utf-8")
    file = JobFile(folder, describe(job, overrides, choices))
    trackers = Trackers(job.trackers)
    shown = JobConsole(job, place)
    job.store.listeners += [log_event, shown.ends]
    job.store.on_begin += [one for one in (on_begin, shown.begins) if one is not None]
    trackers.start(folder, file.record)
    page = _live_page(folder) if plain["live_page"] else None
    if page is not None:
        job.store.listeners.append(page.stage)
    with file, EndsWhenTold(), shown, page or nullcontext():
        try:
            stages = Stages(job, lambda step: trackers.log("train", step))
            measured: list[list[dict[str, Any]]] = []
            value = None
            for point in loop(stages):
                file.add(point)
                rows = list(metrics_of(job, point))
                for row in rows:
                    trackers.log("score", row)
                shown.reached(point, rows)
                trackers.round(partial(reached, job.store.root, point))
                if page is not None:
                    page.round()
                measured.append(rows)
                if file.record.benchmarks:
                    value = quantity(measured, file.record.benchmarks[0], plain.get("returns_at_length"))
                watch(point.iteration, value)
            if job.judge_later and any(benchmark.uses_judge for benchmark in job.benchmarks.values()):
                file.finish("interrupted", LATER)
            else:
                file.finish("done")
            return value
        except BaseException as error:
            stopped: Status = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
            status = error.status if isinstance(error, Terminated | GivenUp | HandedOn) else stopped
            file.finish(status, redact(_cause(error)))
            if not isinstance(error, HandedOn):
                (folder / TRACEBACK).write_text(redact(traceback.format_exc()), encoding="utf-8")
            raise
        finally:
            trackers.finish()


def _cause(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    return str(error) if isinstance(error, Terminated | HandedOn) else f"{type(error).__name__}: {error}"


def planned(job: Run, missing: Sequence[str]) -> list[StageEvent]:
    """The stages of a plan. ConfigError with what is missing where they cannot even be named without it."""
    try:
        return walk(job)
    except Exception as error:
        if not missing:
            raise
        raise ConfigError([f"missing {item}" for item in missing]) from error


def _live_page(folder: Path) -> LivePage | None:
    """Of the sweep that the job's folder belongs to; None for a folder that is in none."""
    return LivePage(folder.parent.parent) if folder.parent.name == "jobs" else None


def walk(job: Run) -> list[StageEvent]:
    """Every stage of a job, cached or planned, in the order of a run; one that is met again only once."""
    store = PlanStore.of(job.store)
    events: dict[tuple[str, str], StageEvent] = {}

    def note(event: StageEvent) -> None:
        events.setdefault((event.stage, event.fingerprint), event)

    store.listeners.append(note)
    for _ in loop(Stages(replace(job, store=store))):
        pass
    return list(events.values())


def loop(stages: Stages) -> Iterator[Point]:
    """Algorithm 1 of the paper. Yields a point for the base model and one after every round."""
    iteration = stages.run.iteration
    base = stages.base_model()
    pool = stages.pool()
    scores, proxies = evaluate(stages, base, base)
    yield Point(base.iteration, base.fingerprint, scores, proxies=proxies)
    policy = average = base
    for number in range(iteration.iterations):
        prompts = stages.prompts(pool, policy, number)
        candidates = stages.candidates(pool, prompts, policy, number)
        ranking = stages.ranking(candidates, number)
        pairs = stages.pairs(candidates, ranking, policy, number)
        frozen = {"previous": policy, "initial": base, "ema": average}[iteration.reference]
        reference = stages.reference(pairs, frozen, number)
        previous = policy
        policy, trained = stages.train(policy, pairs, reference, number)
        kl = measures.kl(stages, pool, policy, base, previous)
        scores, proxies = evaluate(stages, policy, base)
        yield Point(
            iteration=number,
            policy=policy.fingerprint,
            scores=scores,
            ranking=ranking.fingerprint,
            pairs=pairs.fingerprint,
            reference=reference.fingerprint,
            train=trained.fingerprint,
            kl=kl.fingerprint if kl else None,
            proxies=proxies,
        )
        if iteration.reference == "ema" and number + 1 < iteration.iterations:
            average = stages.average(average, policy)


def evaluate(stages: Stages, policy: Policy, base: Policy) -> tuple[tuple[ScoreRecord, ...], tuple[ProxyRecord, ...]]:
    """Every benchmark by the main judge and, where it asks one, by each diagnostic judge; and by the ranker."""
    job = stages.run
    found: list[ScoreRecord] = []
    proxies: list[ProxyRecord] = []
    for name, benchmark in job.benchmarks.items():
        answers = stages.answers(name, policy)
        baseline = stages.answers(name, base) if benchmark.needs_baseline else None
        if benchmark.uses_judge and job.judge_later:
            if proxy := measures.proxy(stages, name, answers, policy.iteration):
                proxies.append(ProxyRecord(name, proxy.fingerprint))
            continue
        judges = [(job.judge.name if benchmark.uses_judge else name, False, job.judge)]
        if benchmark.uses_judge:
            judges += [(label, True, judge) for label, judge in job.diagnostic_judges.items()]
        for label, diagnostic, judge in judges:
            shown = f"{name} by {label}" if diagnostic else name
            judgments = None
            if benchmark.uses_judge:
                judgments = stages.judgments(name, judge, answers, baseline, policy.iteration, shown)
            scores = stages.scores(name, answers, judgments, baseline, policy.iteration, shown)
            found.append(ScoreRecord(name, label, diagnostic, scores.fingerprint))
        if proxy := measures.proxy(stages, name, answers, policy.iteration):
            proxies.append(ProxyRecord(name, proxy.fingerprint))
    return tuple(found), tuple(proxies)


def describe(job: Run, overrides: Sequence[str], choices: Mapping[str, Any]) -> JobRecord:
    """What run.json says of a job before its first point."""
    root = job.store.root
    return JobRecord(
        objective=job.objective.name,
        seed=job.seed,
        model=choices["model"],
        data=choices["data"],
        needs_world=job.recipe.source.is_world,
        overrides=tuple(overrides),
        choices={key: str(value) for key, value in choices.items() if "/" not in key},
        settings=job.content,
        store=str(root.resolve()) if root.is_absolute() else str(root),
        benchmarks=tuple(
            BenchmarkRecord(name, benchmark.primary_metric, benchmark.length_metric, benchmark.official)
            for name, benchmark in job.benchmarks.items()
        ),
        provenance=provenance(),
    )


def metrics_of(job: Run, point: Point) -> Iterator[dict[str, Any]]:
    """Every metric of a point as a row for the trackers."""
    for score in point.scores:
        path = job.store.root / "scores" / score.fingerprint / "metrics.json"
        for metric in json.loads(path.read_text(encoding="utf-8")):
            judge = score.judge if score.diagnostic else None
            yield {"iteration": point.iteration, "benchmark": score.benchmark, "diagnostic_judge": judge, **metric}


def log_event(event: StageEvent) -> None:
    """One line per stage in run.log, and on the console where details are wanted."""
    numbers = [f"{key}={_short(value)}" for key, value in event.report.counts.items()]
    dropped = {reason: count for reason, count in event.report.dropped.items() if count}
    if dropped:
        numbers.append("dropped: " + ", ".join(f"{reason} {count}" for reason, count in dropped.items()))
    seconds = f"{event.seconds:7.1f} s" if event.outcome == "run" else " " * 9
    logger.info(
        "%-31s %-11s %s  %-6s %s  %s",
        event.note,
        event.stage,
        event.fingerprint,
        event.outcome,
        seconds,
        " ".join(numbers[:8]),
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
