"""Labels of a legend: short names as they are, long ones cut so that they fit and can be told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import plots
from analysis.legend import draw_legend, shortened


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    assert shortened(["DPO", "AIPO [a=0.1,b=2]"], 11) == {"DPO": "DPO", "AIPO [a=0.1,b=2]": "AIPO …,b=2]"}


def test_names_that_would_read_alike_are_numbered() -> None:
    names = ["abcdefg-1-uvwxyz", "abcdefg-2-uvwxyz", "abcde…wxyz"]
    assert shortened(names, 10) == {
        "abcdefg-1-uvwxyz": "abcd…2…xyz",
        "abcdefg-2-uvwxyz": "abcd…3…xyz",
        "abcde…wxyz": "abcde…wxyz",
    }


@given(st.lists(st.text("ab…2", min_size=1, max_size=30), unique=True, max_size=8), st.integers(0, 40))
def test_every_label_fits_and_is_its_own(names: list[str], most: int) -> None:
    labels = shortened(names, most)
    assert set(labels) == set(names) and len(set(labels.values())) == len(names)
    assert all(len(label) <= max(most, 8) for label in labels.values())
    assert all(labels[name] == name for name in names if len(name) <= max(most, 8))


@pytest.mark.filterwarnings("error")
def test_no_name_is_wider_than_its_figure() -> None:
    with plots.style_context():
        figure = plots.new_figure(5.3, 3.8)
        axes = figure.subplots()
        draw_legend(figure, {f"DPO [{'setting=value,' * 20}{n}]": {"color": "black"} for n in range(3)}, base=True)
        figure.draw_without_rendering()
        (legend,) = figure.legends
        edges = legend.get_window_extent()
    assert edges.x0 >= 0 and edges.x1 <= 530
    assert axes.get_position().width >= 0.5 and axes.get_position().height >= 0.5
