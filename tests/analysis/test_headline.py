"""The picture a report opens with: what is drawn, and that the names beside its curves stand apart."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest

from analysis import headline as module
from analysis.headline import MOST_SERIES, NAME_POINTS, WIDEST_NAME_POINTS, headline, name_points


def frame(ends: dict[str, tuple[float, float]], rounds: int = 3, n: int = 2) -> pd.DataFrame:
    """A base model at (10, 0.5), and straight curves from there to each (length, score)."""
    rows = [("", -1, 10.0, 0.5)]
    for name, (length, score) in ends.items():
        for done in range(1, rounds + 1):
            share = done / rounds
            rows.append((name, done - 1, 10 + share * (length - 10), 0.5 + share * (score - 0.5)))
    found = pd.DataFrame(rows, columns=["objective", "iteration", "length", "score"])
    interval = {"ci95_low": found["score"] - 0.098, "ci95_high": found["score"] + 0.098}
    return found.assign(variant="", n=n, length_sd=2.0, score_sd=0.02, **interval)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws, and returns the two panels."""
    kept = []
    monkeypatch.setattr(module, "save", lambda figure, path, **_: kept.append(figure) or [path])

    def draw(rows: pd.DataFrame):
        assert headline(rows, tmp_path / "headline", score="Score", length="Length", sources=["a"]) != []
        return kept[-1].axes

    return draw


def test_curves_start_at_the_base_model_and_names_say_where_they_end(drawn) -> None:
    left, right = drawn(frame({"dpo": (60.0, 0.8), "aipo": (40.0, 0.9)}))
    curves = {tuple(line.get_xdata()): tuple(line.get_ydata()) for line in left.lines if len(line.get_xdata()) > 1}
    assert set(curves) == {(0, 1, 2, 3)} and len(left.lines) == 4
    lengths = sorted(tuple(round(float(y), 9) for y in line.get_ydata()) for line in left.lines)
    assert lengths == [(10.0, 20.0, 30.0, 40.0), (10.0, 26.666666667, 43.333333333, 60.0), (40.0,), (60.0,)]
    assert {text.get_text() for text in left.texts} == {"DPO 60", "AIPO 40"}
    assert {text.get_text() for text in right.texts} == {"DPO 0.800", "AIPO 0.900", "base model"}
    assert left.get_title(loc="left") == "How long answers become (2 seeds)"
    assert [tick for tick in left.get_xticks()] == [0, 1, 2, 3]


def test_bands_are_one_standard_error_of_the_mean_over_seeds(drawn) -> None:
    for axes, expected in zip(drawn(frame({"dpo": (60.0, 0.8)}, n=4)), (1.0, 0.01), strict=True):
        assert not axes.containers
        (curve,) = (line for line in axes.lines if len(line.get_xdata()) > 1)
        (band,) = (part for part in axes.collections if len(part.get_paths()[0].vertices) > 8 and part.get_alpha())
        edges: dict[float, list[float]] = {}
        for x, y in band.get_paths()[0].vertices:
            edges.setdefault(round(float(x), 6), []).append(float(y))
        for x, y in zip(curve.get_xdata(), curve.get_ydata(), strict=True):
            found = edges[round(float(x), 6)]
            assert (max(found) - y, y - min(found)) == pytest.approx((expected, expected), abs=1e-9)


def test_bars_of_one_seed_are_one_standard_error_over_its_questions(drawn) -> None:
    left, right = drawn(frame({"dpo": (60.0, 0.8)}, n=1))
    (bars,) = right.containers
    segments = bars.lines[2][0].get_segments()
    assert [[float(y) for _, y in segment] for segment in segments] == [
        pytest.approx([score - 0.05, score + 0.05]) for score in (0.5, 0.6, 0.7, 0.8)
    ]
    assert not left.containers


def test_names_of_curves_that_end_together_stand_apart_and_in_order(drawn) -> None:
    ends = {
        name: (50.0 + number / 10, 0.8 + number / 1000) for number, name in enumerate(("dpo", "kto", "aipo", "exo"))
    }
    for axes in drawn(frame(ends)):
        places = {}
        for text in axes.texts:
            if text.get_text() != "base model":
                anchor = float(axes.transData.transform(text.xy)[1]) * 72 / axes.figure.dpi
                places[text.get_text().split()[0]] = anchor + text.xyann[1]
        ordered = sorted(places, key=places.__getitem__)
        assert ordered == ["DPO", "kto", "AIPO", "exo"]  # by where the curves end, the lowest first
        gaps = [places[b] - places[a] for a, b in itertools.pairwise(ordered)]
        assert min(gaps) >= NAME_POINTS - 1e-6


LONG = "learning_rate=0.001,selection=shorter_near_best," * 9


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("letters", ["a=1", "m" * 8, "m" * 9, LONG[:12], LONG[:13], LONG[:14], LONG[:60], LONG])
def test_long_names_leave_the_panels_at_least_half_of_the_figure(drawn, letters: str) -> None:
    rows = frame({"dpo": (60.0, 0.8), "aipo": (1400.0, 0.9)})
    rows.loc[rows["objective"] != "", "variant"] = letters
    left, right = drawn(rows)
    figure = left.figure
    figure.draw_without_rendering()
    assert left.get_position().width + right.get_position().width >= 0.5
    assert min(axes.get_position().height for axes in (left, right)) >= 0.5
    assert len(figure.legends) == (name_points(f"AIPO [{letters}]") > WIDEST_NAME_POINTS)
    shown = {text.get_text() for text in left.texts}
    if not figure.legends:
        assert shown == {f"DPO [{letters}] 60", f"AIPO [{letters}] 1400"}
        return
    assert shown == {"60", "1400"}
    (legend,) = figure.legends
    assert [text.get_text().split()[0] for text in legend.get_texts()] == ["DPO", "AIPO"]
    edges = legend.get_window_extent()
    assert edges.x0 >= 0 and edges.x1 <= figure.get_figwidth() * figure.dpi


def test_a_name_is_as_wide_as_its_letters() -> None:
    # DejaVu Sans Bold: an m is 1.042 em wide, and an em is 9 points.
    assert name_points("mm") - name_points("m") == pytest.approx(1.042 * 9, abs=0.3)
    assert name_points("m" * 8) < WIDEST_NAME_POINTS < name_points("m" * 13)


def test_what_cannot_be_drawn_is_left_out(tmp_path) -> None:
    options = {"score": "Score", "length": "Length", "sources": []}
    only_base = frame({})
    assert headline(only_base, tmp_path / "headline", **options) == []
    many = frame({f"objective_{number}": (20.0 + number, 0.6) for number in range(MOST_SERIES + 1)})
    assert headline(many, tmp_path / "headline", **options) == []
    assert list(tmp_path.iterdir()) == []


def test_one_seed_and_no_base_model_are_drawn_too(tmp_path) -> None:
    rows = frame({"dpo": (30.0, 0.7)}, rounds=1, n=1)
    rows.loc[rows["n"] == 1, ["length_sd", "score_sd"]] = float("nan")
    written = headline(rows[rows["objective"] != ""], tmp_path / "headline", score="S", length="L", sources=["a", "b"])
    assert [path.name for path in written] == ["headline.png"] and written[0].stat().st_size > 5000
