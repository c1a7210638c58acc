"""Write the parts of docs/objectives.md that follow from the code: `python docs/tables.py`.

The table and the formulas come from the docstrings of the objectives, their YAML files and the aliases. A test compares
the page with what this script would write, so that neither is kept by hand.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pydoc import locate
from typing import Any

import yaml
from hydra.utils import instantiate

from aipo.objectives import Objective
from aipo.objectives.aliases import ALIASES
from aipo.records import markdown_table

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "objectives.md"
FOLDER = ROOT / "conf" / "objective"
NEEDS = {
    "uses_reference": "reference",
    "uses_win_probability": "win probability",
    "uses_win_shares": "win shares",
    "uses_prefix": "prefix",
    "uses_sample": "sampled tokens",
    "uses_alignment": "alignment",
    "batch_coupled": "whole batch",
}
COEFFICIENT = re.compile(r"^  (?P<name>\w+): (?P<value>[^#\n]+?) *(?:# *(?P<source>.*))?$", re.MULTILINE)
MARK = "<!-- {}: written by docs/tables.py -->\n"


@dataclass(frozen=True)
class Described:
    """An objective as its docstring and its YAML describe it."""

    name: str
    summary: str
    formula: str
    notes: tuple[str, ...]
    needs: str
    coefficients: Mapping[str, tuple[str, str]]
    """Value and source, as the YAML writes them."""

    @classmethod
    def read(cls, file: Path) -> Described:
        """The objective of one file of conf/objective; ValueError says what its docstring or YAML lacks."""
        text = file.read_text(encoding="utf-8")
        node: dict[str, Any] = yaml.safe_load(text)
        target = node["loss"]["_target_"]
        if (function := locate(target)) is None:
            raise ValueError(f"{target}: write it in a module of aipo/objectives, and name it in its __all__")
        paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
        formulas = [part for part in paragraphs if part.startswith("    ")]
        if len(formulas) != 1 or paragraphs[1] != formulas[0]:
            raise ValueError(
                f"{target}: expected a docstring of one paragraph (name, paper and equation, sums or means), then one "
                "indented formula, then what the coefficients mean"
            )
        found = COEFFICIENT.findall(text.partition("\nloss:\n")[2])
        coefficients = {key: (value, source) for key, value, source in found if not key.startswith("_")}
        if unsourced := [key for key, (_, source) in coefficients.items() if not source]:
            raise ValueError(f"{file}: say in a comment where the value comes from: {', '.join(unsourced)}")
        built: Objective = instantiate(node, _convert_="all")
        return cls(
            name=built.name,
            summary=_line(paragraphs[0]),
            formula=textwrap.dedent(formulas[0]),
            notes=tuple(_line(part) for part in paragraphs[2:]),
            needs=", ".join(word for flag, word in NEEDS.items() if getattr(built, flag)) or "nothing",
            coefficients=coefficients,
        )

    @property
    def row(self) -> tuple[str, ...]:
        """Its line of the table, cell by cell."""
        values = "; ".join(f"`{key} {value}`: {source}" for key, (value, source) in self.coefficients.items())
        others = ", ".join(f"`{alias}`" for alias, name in ALIASES.items() if name == self.name)
        return f"[`{self.name}`](#{self.name})", self.summary, self.needs, values or "it has none", others

    @property
    def section(self) -> str:
        """Its formula, and what else its docstring says."""
        notes = "".join("\n" + textwrap.fill(part, 100, break_on_hyphens=False) + "\n" for part in self.notes)
        return f"### {self.name}\n\n```text\n{self.formula}\n```\n{notes}"


def is_ours(file: Path) -> bool:
    """Whether an objective's function is this package's."""
    target: str = yaml.safe_load(file.read_text(encoding="utf-8"))["loss"]["_target_"]
    return target.startswith("aipo.objectives.")


def _line(paragraph: str) -> str:
    return " ".join(paragraph.split())


def generated() -> dict[str, str]:
    """The parts of the page, by the name in their marks."""
    objectives = [Described.read(file) for file in sorted(FOLDER.glob("*.yaml")) if is_ours(file)]
    names = "objective", "what it is, and what it compares", "needs", "coefficients, and their source", "also called"
    table = markdown_table(names, [objective.row for objective in objectives]) + "\n"
    return {"table": table, "formulas": "\n".join(objective.section for objective in objectives)}


def rewritten(page: str) -> str:
    """The page with every generated part as it should be."""
    for name, text in generated().items():
        begin, end = MARK.format(name), MARK.format(f"end of {name}")
        before, found, rest = page.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise ValueError(f"{PAGE}: expected the lines {begin.strip()} and {end.strip()}")
        page = before + begin + "\n" + text + "\n" + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
