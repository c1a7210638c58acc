"""One self-contained HTML page of a sweep: verdict, plots to point at, every sample, tables, provenance."""

from __future__ import annotations

from analysis.page.render import FILE, write_page
from analysis.page.sources import are_questions_here, available, behind
from analysis.page.verdict import Verdict, verdict

__all__ = ["FILE", "Verdict", "are_questions_here", "available", "behind", "verdict", "write_page"]
