"""A Markdown table, as a renderer takes it apart again."""

from __future__ import annotations

from aipo.records import markdown_row, markdown_table


def test_a_table_is_header_rule_and_rows() -> None:
    assert markdown_table(("name", "n"), [("a", 1), ("b", 2.5)], text_columns=1) == (
        "| name | n |\n|---|---:|\n| a | 1 |\n| b | 2.5 |"
    )
    assert markdown_table(("name",), []) == "| name |\n|---|"


def test_a_cell_stays_one_cell_on_one_line() -> None:
    assert markdown_row(["a|b", "two\nlines"]) == r"| a\|b | two lines |"
    assert markdown_row(["<b>"], cell=lambda cell: cell.replace("<", "&lt;")) == "| &lt;b> |"
