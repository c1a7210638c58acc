"""Labels of a legend: short names as they are, long ones cut so that they fit and can be told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import plots
from analysis.agreement import agreement
from analysis.collect import collect
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


@pytest.mark.filterwarnings("error:.*constrained_layout:UserWarning")
def test_the_figures_of_a_sweep_hold_long_variants(fake_sweep, tmp_path, monkeypatch) -> None:
    kept = []
    save = plots.save
    monkeypatch.setattr(
        plots, "save", lambda figure, *given, **named: kept.append(figure) or save(figure, *given, **named)
    )
    for beta in ("0.1", "0.2"):
        long = [f"trainer.setting_{number}={beta}_of_some_length" for number in range(8)]
        fake_sweep.job("dpo", iterations=2, benchmarks=("gold",), n_pairs=200, overrides=long)
    sweep = collect(fake_sweep.folder)
    frame, _ = agreement(sweep)
    assert plots.shows_agreement(frame)
    plots.length_vs_score(sweep, ["gold"], {}, tmp_path / "a")
    plots.per_iteration(sweep, ["gold"], "length", tmp_path / "b")
    plots.agreement_plot(frame, tmp_path / "c")
    assert len(kept) == 3
    for figure in kept:
        assert sum("…" in text.get_text() for text in figure.legends[0].get_texts()) == 2
        rows = {axes.get_subplotspec().rowspan.start: axes for axes in figure.axes}
        columns = {axes.get_subplotspec().colspan.start: axes for axes in figure.axes}
        assert sum(axes.get_position().width for axes in columns.values()) >= 0.5
        assert sum(axes.get_position().height for axes in rows.values()) >= 0.5
