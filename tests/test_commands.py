"""Every command that a page, the help or a comment of a launcher promises is one that `python run.py` accepts.

Nothing is run: the command line goes through Hydra's own parser, each job of it is composed, and the check that every
run begins with is made. `plan=true` does the same and then lists the stages.
"""

from __future__ import annotations

import itertools
import re
import runpy
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from composing import composed
from hydra._internal.utils import get_args_parser
from omegaconf import open_dict

from aipo.pipeline.check import check
from aipo.pipeline.sweep import combinations

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "results" / "README.md"]
SCRIPTS = [ROOT / "conf" / "config.yaml", *sorted((ROOT / "conf" / "hydra").rglob("*.yaml"))]
"""The experiments' own commands are tested in test_experiments.py."""
PLACEHOLDERS = {"<40-digit commit>": "0" * 40}
"""What stands for a value of the reader's own; any other `<name>` becomes `name`."""
PLUGINS = {"slurm": "submitit", "slurm_nodes": "submitit", "submitit_slurm": "submitit"}


@dataclass(frozen=True)
class Command:
    """A command, and where it stands."""

    place: str
    arguments: list[str]

    @property
    def whole(self) -> bool:
        """False where the reader is to go on ("...") or to choose."""
        return "..." not in self.arguments

    def __str__(self) -> str:
        return f"{self.place} {' '.join(self.arguments)}"


def commands(start: str) -> list[Command]:
    """The arguments of every command that begins with `start`, in code blocks, inline code, scripts and comments."""
    found = {}
    for path in (path for path in (*PAGES, *SCRIPTS) if path.is_file() and path.suffix != ".pyc"):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for match in re.finditer(rf"{re.escape(start)}\s([^\n`]*)", text):
            # What follows a command: another one, a comment, its description in a column, what may be added.
            line = re.sub(r"&&.*|\s#\s.*|\s{2,}.*|\s\[[^\s\]]+\]|\)$", "", match[1])
            for name, value in PLACEHOLDERS.items():
                line = line.replace(name, value)
            line = re.sub(r"<([\w ]+)>", r"\1", line)
            if "$" not in line:
                place = str(path.relative_to(ROOT))
                found[place, line] = Command(place, shlex.split(line if line.endswith("...") else line.rstrip(" .;:,")))
    return list(found.values())


RUNS = [command for command in commands("python run.py") if command.arguments]


def test_commands_are_found() -> None:
    assert len(RUNS) > 15 and {"README.md", "docs/training.md", "docs/models.md"} <= {run.place for run in RUNS}


@pytest.mark.parametrize("command", RUNS, ids=str)
def test_a_run_that_is_written_down_is_accepted(command: Command) -> None:
    given = [argument for argument in command.arguments if argument != "..."]
    parsed = get_args_parser().parse_args(given)  # ends the test where Hydra would refuse the line
    if parsed.help or parsed.hydra_help or parsed.cfg:
        return
    overrides = parsed.overrides
    for override in overrides:
        launcher = override.removeprefix("hydra/launcher=")
        if launcher != override:
            pytest.importorskip(PLUGINS.get(launcher, launcher))
    jobs = [overrides]
    if parsed.multirun:
        config = composed(*(item for item in overrides if not _sweeps(item)), with_hydra=True)
        with open_dict(config):
            config.hydra.overrides.task = [item for item in overrides if not item.startswith("hydra")]
        jobs = list(combinations(config))
    for job in (jobs[0], jobs[-1])[: len(jobs)]:
        config = composed(*(item for item in job if not item.startswith("hydra")))
        if command.whole:
            check(config)


def _sweeps(override: str) -> bool:
    return bool(re.search(r",(?![^\[({]*[\])}])", override.partition("=")[2]))


NAMED = {match for path in PAGES for match in re.findall(r"python -m ([\w.]+)", path.read_text(encoding="utf-8"))}
MODULES = sorted(name for name in NAMED if name.partition(".")[0] in ("aipo", "analysis"))
"""Those of other packages are theirs to test."""
OTHERS = [
    *(
        ("aipo.command", found)
        for found in commands("aipo")
        if re.fullmatch(r"--help|[a-z]+", "".join(found.arguments[:1]))
    ),
    *((module, command) for module in MODULES for command in commands(f"python -m {module}")),
]


def _words(arguments: list[str]) -> list[str]:
    """What stands before the first option."""
    return list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))


@pytest.mark.parametrize(("module", "command"), OTHERS, ids=lambda given: str(given))
def test_another_command_that_is_written_down_has_the_words_and_options(
    module: str, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its help is asked for: a parser refuses an unknown word before it helps."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", [module, *_words(command.arguments), "--help"])
    for name in (module, f"{module}.__main__"):  # runpy warns of one that is there already
        if not hasattr(sys.modules.get(name), "__path__"):
            monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    if module == "aipo.command" and command.arguments[:1] == ["run"]:
        get_args_parser().parse_args(command.arguments[1:])  # its options are Hydra's, whose help is another
        return
    options = {word.partition("=")[0] for word in command.arguments if re.match(r"--?[a-z]", word)}
    assert [option for option in options if option not in said.out] == []


def test_every_module_and_command_is_among_them() -> None:
    assert len(MODULES) >= 5 and {module for module, _ in OTHERS} == {"aipo.command", *MODULES}
    assert {"status", "export", "compare"} <= {
        word for module, one in OTHERS if module == "aipo.command" for word in one.arguments[:1]
    }
