"""Text from configs, models or exceptions, made harmless in Markdown, HTML and LaTeX."""

from __future__ import annotations

import re

# `$`: GitHub sets what stands between two of them as a formula.
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~$])")
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


def latex(text: str) -> str:
    """LaTeX that shows `text` literally."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def latex_comment(text: str) -> str:
    """A LaTeX comment line."""
    return f"% {one_line(text)}\n"
