"""`aipo search`: settings tried by Optuna, each a job of one sweep, looked at after every round, given up if hopeless.

Optuna is asked for settings and told what came of them; the job is the same as any other, so trials share what they
have in common, and an interrupted one goes on from the store.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from aipo.command.options import CONF
from aipo.components import missing_package
from aipo.jobs import JobFileError, Submission, is_alive, read_job, submit
from aipo.pipeline import cluster, folders, keys
from aipo.pipeline.check import ConfigError, check
from aipo.pipeline.composer import Combination, Composer
from aipo.pipeline.ends import GivenUp
from aipo.pipeline.missing import missing_needs
from aipo.pipeline.options import explain
from aipo.pipeline.run import build_run
from aipo.pipeline.sweep import undivided

if TYPE_CHECKING:
    import optuna

STUDY = "search.jsonl"
"""Optuna's journal, in the sweep's folder: several processes may share it."""
FOLDER = "folder"


@dataclass(frozen=True)
class Search:
    """What is searched, and how far."""

    fixed: tuple[str, ...]
    """Overrides of every trial."""
    space: dict[str, optuna.distributions.BaseDistribution]
    sweep: Path
    trials: int
    prune: bool
    seed: int


def command(arguments: Sequence[str], trials: int, prune: bool, seed: int) -> int:
    """Run trials until the sweep has so many, then the tables. The exit status: 0 if one is complete."""
    if lacking := missing_package("optuna", "optuna"):
        print(ConfigError([f"missing {line}" for line in lacking]), file=sys.stderr)
        return 2
    if found := keys.in_overrides(arguments):
        print(ConfigError(found), file=sys.stderr)
        return 2
    search = parsed(arguments, trials, prune, seed)
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="run"):
        found = study_of(search)
        try:
            while sum(map(_came_to_an_end, found.trials)) < search.trials:
                run_trial(search, found, Composer("config"))
        except ConfigError as error:
            print(error, file=sys.stderr)
            return 2
    complete = [trial for trial in found.trials if trial.state.name == "COMPLETE"]
    if any(search.sweep.glob("jobs/*/run.json")):
        from analysis.__main__ import analyse_sweep

        analyse_sweep(search.sweep)
    if not complete:
        print("no trial came to its end", file=sys.stderr)
        return 1
    best = found.best_trial
    print(f"best of {len(complete)} complete trials, {len(found.trials)} in all: {best.value:.4g} with", end=" ")
    print(" ".join(f"{key}={value}" for key, value in best.params.items()), f"({best.user_attrs[FOLDER]})")
    return 0


def parsed(arguments: Sequence[str], trials: int, prune: bool, seed: int) -> Search:
    """Overrides with several values are the space, in Hydra's own words; the others hold for every trial.

    ValueError where there is no space, or no such override.
    """
    try:
        overrides = OverridesParser.create().parse_overrides(list(arguments))
    except Exception as error:  # Hydra's grammar has errors of several kinds
        raise ValueError(f"{' '.join(arguments)}: {error}") from error
    space = {item.get_key_element(): distribution(item) for item in overrides if item.is_sweep_override()}
    if not space:
        raise ValueError(
            "nothing to search: give a setting several values, as 'trainer.learning_rate=tag(log,interval(1e-5,1e-3))' "
            "or 'iteration.candidates=range(2,9)' or 'objective=aipo,dpo'"
        )
    fixed = [str(item.input_line) for item in overrides if not item.is_sweep_override()]
    names = [str(item.value()) for item in overrides if item.key_or_group == "sweep" and not item.is_sweep_override()]
    sweep = names[-1] if names else "search"
    if problem := folders.sweep_problem(sweep):
        raise ValueError(f"sweep: {problem}")
    fixed += [] if names else [f"sweep={sweep}"]
    return Search(tuple(fixed), space, Path("results") / sweep, trials, prune, seed)


def distribution(override: Override) -> optuna.distributions.BaseDistribution:
    """Optuna's kind of what Hydra's grammar says: choice, range, interval; `tag(log, ...)` for a logarithmic one."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution([str(item) for item in override.sweep_string_iterator()])
    if isinstance(value, IntervalSweep):
        return FloatDistribution(float(value.start or 0.0), float(value.end or 0.0), log="log" in value.tags)
    if isinstance(value, RangeSweep) and all(isinstance(item, int) for item in (value.start, value.stop, value.step)):
        values = list(range(value.start, value.stop, value.step))  # type: ignore[arg-type]
        return IntDistribution(values[0], values[-1], step=int(value.step))
    raise ValueError(
        f"{override.input_line}: cannot be searched; give choices, a range of whole numbers or an interval"
    )


def study_of(search: Search) -> optuna.Study:
    """The sweep's study, begun or gone on with; trials whose process died are tried once more."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search.sweep.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=search.sweep.name,
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(search.sweep / STUDY))),
        sampler=optuna.samplers.TPESampler(seed=search.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3) if search.prune else optuna.pruners.NopPruner(),
        direction="maximize",
        load_if_exists=True,
    )
    for trial in study.trials:
        folder = trial.user_attrs.get(FOLDER)
        if trial.state.name == "RUNNING" and (folder is None or not is_alive(Path(folder))):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)
    return study


def run_trial(search: Search, study: optuna.Study, composer: Composer) -> None:
    """One job, its value told after each round. ConfigError before anything runs; a trial that fails is told so."""
    from optuna.trial import TrialState

    trial = study.ask(search.space)
    overrides = [*search.fixed, *(f"{key}={value}" for key, value in trial.params.items())]
    try:
        combination = _composed(composer, overrides)
        plain = check(combination.config)
        if missing := missing_needs(build_run(plain)):
            raise ConfigError([f"missing {item}" for item in missing])
        if problems := undivided(build_run(plain)):
            raise ConfigError(problems)
        if not plain["benchmark"]:
            raise ConfigError(["benchmark: a search needs one, whose score it raises"])
        asked = cluster.asked(search.sweep, folders.named(plain), combination, plain)
    except ConfigError:
        study.tell(trial, state=TrialState.FAIL)
        raise
    trial.set_user_attr(FOLDER, asked.folder)
    submit(search.sweep, [Submission(Path(asked.folder).name, asked.overrides)])

    def watch(iteration: int, value: float | None) -> None:
        if value is None or iteration < 0:
            return
        trial.report(value, iteration)
        if trial.should_prune():
            raise GivenUp(f"after round {iteration + 1} its score of {value:.4g} is below the median of the others")

    shown = " ".join(f"{key}={value}" for key, value in trial.params.items())
    try:
        value = cluster.run_asked(asked, watch)
    except GivenUp:
        study.tell(trial, state=TrialState.PRUNED)
        print(f"trial {trial.number}: {shown}: given up", flush=True)
        return
    except (ValueError, OSError, RuntimeError) as error:
        logging.getLogger("aipo").error("trial %d: %s: %s", trial.number, shown, error)
        study.tell(trial, state=TrialState.FAIL)
        return
    if value is None:
        study.tell(trial, state=TrialState.FAIL)
        raise ValueError(f"{asked.folder}: its first benchmark gave no score")
    study.tell(trial, value)
    print(f"trial {trial.number}: {shown}: {value:.4g}", flush=True)


def _composed(composer: Composer, overrides: Sequence[str]) -> Combination:
    try:
        return composer.compose(overrides)
    except Exception as error:
        if (explained := explain(error, overrides, CONF)) is None:
            raise
        raise explained from error


def _came_to_an_end(trial: optuna.trial.FrozenTrial) -> bool:
    """Not where its process died: that one is tried again, as another trial."""
    if trial.state.name != "FAIL":
        return trial.state.is_finished()
    try:
        return read_job(Path(trial.user_attrs[FOLDER])).status == "failed"
    except (KeyError, JobFileError):
        return False
