"""Text from configs, models or exceptions, made harmless in Markdown, HTML and LaTeX."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
from pandas.api import types as pd_types

# `$`: GitHub sets what stands between two of them as a formula.
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~$])")
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.]*$)")
"""How a formula begins. `-` alone and numbers are none."""
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "√": r"$\surd$",
    "‖": r"$\|$",
    "–": "--",
    "…": r"\ldots{}",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    # After a line's end (\\) these two would be read as its options.
    "[": "{[}",
    "*": "{*}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def one_line(text: str) -> str:
    """The text on one line: line breaks and control characters become spaces, runs of them one."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def markdown(text: str) -> str:
    """A Markdown table cell or sentence that shows `text` literally, HTML included."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", text)


def csv(frame: pd.DataFrame) -> str:
    """Comma-separated values, floats to ten digits. A text that a spreadsheet would take for a formula gets a quote in
    front, which the spreadsheet hides."""
    harmless = frame.rename(columns=_no_formula)
    for name in harmless.columns[[not pd_types.is_numeric_dtype(kind) for kind in harmless.dtypes]]:
        harmless[name] = harmless[name].map(_no_formula)
    text: str = harmless.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    return text


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def latex(text: str) -> str:
    """LaTeX that shows `text` literally."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def latex_comment(text: str) -> str:
    """A LaTeX comment line."""
    return f"% {one_line(text)}\n"
