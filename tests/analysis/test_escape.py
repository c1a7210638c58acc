"""Texts of other people in tables that spreadsheets open."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis import escape


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+cmd|x", "-2+3+cmd", "\t=1", "\r=1"])
def test_a_formula_is_shown_and_not_computed(text: str) -> None:
    frame = pd.DataFrame({"name": [text], text: ["a"]})
    header, *_ = escape.csv(frame).splitlines()
    assert escape._no_formula(text) == f"'{text}"
    assert header.split(",")[1].strip('"').startswith("'") or "\r" in text


def test_everything_else_is_written_as_it_was() -> None:
    frame = pd.DataFrame({"name": ["a", "-", "-1.5", "+3", None], "value": [-1.0, 2.0, float("nan"), 1e-12, 3.0]})
    assert escape.csv(frame) == frame.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    pd.testing.assert_frame_equal(frame, frame.copy())


def test_every_sign_of_our_own_tables_is_one_that_latex_knows() -> None:
    """Without a package for Greek, pdflatex stops at a bare letter."""
    for sign, shown in {"β of the fit": r"$\beta$ of the fit", "√KL": r"$\surd$KL", "asked ‖": r"asked $\|$"}.items():
        assert escape.latex(sign) == shown
