"""The page as one file: template, style, script and data together, and a policy that lets it load nothing else."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from aipo.records import to_row
from analysis.page.data import overview
from analysis.page.packing import pack
from analysis.page.verdict import Verdict

if TYPE_CHECKING:
    from analysis.collect import Sweep
    from analysis.page.views import SeriesView
    from analysis.table import Table

FILE = "index.html"
SCRIPTS = ("core.js", "texts.js", "charts.js", "overview.js", "tables.js", "cards.js", "samples.js", "main.js")
"""Joined in this order into one script."""


def write_page(sweep: Sweep, tables: Sequence[Table], verdict: Verdict | None, problems: Sequence[str]) -> Path:
    """Writes index.html into the sweep's folder; the same artifacts give the same bytes."""
    path = sweep.folder / FILE
    replace(path, render(sweep, tables, verdict, problems))
    return path


def replace(path: Path, html: str) -> None:
    """Write a page, whole or not at all: somebody may be reading the one that is there."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(html, encoding="utf-8", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def render(sweep: Sweep, tables: Sequence[Table], verdict: Verdict | None, problems: Sequence[str]) -> str:
    """The page's HTML."""
    from jinja2 import Environment, StrictUndefined

    view, texts = overview(sweep, tables)
    style = asset("page.css") + _colours(view.series)
    script = "\n".join(asset(name) for name in SCRIPTS)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    done = sum(job.status == "done" for job in view.jobs)
    return environment.from_string(asset("page.html")).render(
        title=view.title,
        policy=f"default-src 'none'; script-src {digest(script)}; style-src {digest(style)}; base-uri 'none'; "
        "form-action 'none'",
        style=style,
        script=script,
        done=done,
        jobs=len(view.jobs),
        verdict=verdict,
        problems=[*problems, *(gap for gap in view.gaps if not any(gap in problem for problem in problems))],
        overview=pack(to_row(view)),
        chunks=texts.chunks,
    )


def asset(name: str) -> str:
    """The text of a file of the page's own."""
    return (resources.files("analysis.page") / "assets" / name).read_text(encoding="utf-8")


def digest(text: str) -> str:
    """How a content security policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _colours(series: Sequence[SeriesView]) -> str:
    """Each series' colour as a custom property and a class that uses it."""
    light = "".join(f"--s{number}:{one.colour};" for number, one in enumerate(series))
    dark = "".join(f"--s{number}:{one.dark_colour};" for number, one in enumerate(series))
    classes = "".join(f".s{number}{{--c:var(--s{number})}}" for number in range(len(series)))
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}{classes}"
