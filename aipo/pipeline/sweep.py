"""What happens around a sweep: every combination is checked before the first job, and the analysis runs at the end."""

from __future__ import annotations

import atexit
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from aipo.pipeline.check import ConfigError, check


class SweepCallback(Callback):
    """Hydra's hooks, for `python run.py` and `python run.py -m` alike."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check all combinations at once: a mistake in the last must not wait for the first to end."""
        problems: dict[str, None] = {}
        checked = []
        for combination in combinations(config):
            try:
                checked.append(check(compose(config_name=config.hydra.job.config_name, overrides=combination)))
            except ConfigError as error:
                problems |= dict.fromkeys(f"{problem} [{' '.join(combination)}]" for problem in error.problems)
        if problems:
            print(ConfigError(list(problems)), file=sys.stderr)
            sys.exit(2)
        # Hydra tells a callback of a sweep's end only when every job succeeded; the rest deserve their tables too.
        if config.plan:
            atexit.register(_print_totals, checked)
        else:
            atexit.register(_analyse, Path(config.hydra.sweep.dir))

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """The tables and plots of the sweep this job belongs to."""
        if not config.plan:
            _analyse(Path(config.hydra.run.dir).parent.parent)


def combinations(config: DictConfig) -> Iterator[list[str]]:
    """The override lists of a sweep's jobs, as Hydra's basic sweeper expands them."""
    given = list(config.hydra.overrides.task)
    parameters = config.hydra.sweeper.get("params") or {}
    named = {item.split("=", 1)[0] for item in given}
    given += [f"{key}={value}" for key, value in parameters.items() if key not in named]
    choices = []
    for override in OverridesParser.create().parse_overrides(given):
        if override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([override.input_line])
    for combination in itertools.product(*choices):
        yield list(combination)


def _print_totals(configs: list[dict[str, Any]]) -> None:
    from aipo.pipeline.loop import walk
    from aipo.planning.report import print_sweep

    print_sweep([(config, walk(config)) for config in configs])


def _analyse(sweep: Path) -> None:
    if not any(sweep.glob("jobs/*/run.json")):
        return
    from analysis import analyse

    written = analyse(sweep)
    print(f"wrote {sweep / 'report.md'} and {len(written) - 1} tables and plots beside it")
