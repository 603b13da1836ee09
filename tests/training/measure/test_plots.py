from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.measure.plots import Axis, Bars, Series, forest, plot


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_ticks_are_a_few_round_numbers_inside_the_axis(low: float, span: float) -> None:
    places = Axis("", low, low + span).places()
    assert 1 <= len(places) <= 6
    assert all(low - 1e-6 * span <= place <= low + span * (1 + 1e-6) for place in places)
    assert places == Axis("", low + span, low).places()


def test_ticks_are_told_as_people_write_them() -> None:
    assert Axis("", 0, 1, is_share=True).places() == pytest.approx((0, 0.2, 0.4, 0.6, 0.8, 1))
    assert Axis("", 0, 1, is_share=True).told(0.2) == "20 %"
    assert Axis("", 0, 1, is_share=True).told(-0.0) == "0 %"
    assert Axis("", -20, 20).told(-10) == "\N{MINUS SIGN}10"
    assert Axis("", 0, 12_000).told(5_000) == "5,000"


def test_points_are_where_their_numbers_are() -> None:
    series = Series("s-image", [0, 1], [0, 1], band=([0, 0.9], [0.1, 1]), notes=["a < b", "c"])
    bars = Bars([0.5], [1.0], 1.0)
    root = ElementTree.fromstring(  # noqa: S314
        plot([series], x=Axis("x", 0, 1), y=Axis("y", 0, 1), name="a & b", diagonal=True, bars=bars)
    )
    assert root.get("aria-label") == "a & b"
    first, last = root.findall("circle")
    assert (first.get("cx"), first.get("cy")) == ("58.0", "238.0")  # left, bottom
    assert (last.get("cx"), last.get("cy")) == ("418.0", "12.0")  # right, top
    assert [title.text for title in root.iter("title")] == ["a < b", "c"]
    [line] = [one for one in root.findall("polyline") if one.get("class") == "line s-image"]
    assert line.get("points") == "58.0,238.0 418.0,12.0"


def test_an_axis_may_fall() -> None:
    falling = plot(
        [Series("", [20, -20], [1, 0], notes=["clean", "noise"])],
        x=Axis("dB", 20, -20),
        y=Axis("", 0, 1),
        name="",
    )
    clean, noise = ElementTree.fromstring(falling).findall("circle")  # noqa: S314
    assert float(clean.get("cx", 0)) < float(noise.get("cx", 0))


def test_a_forest_has_a_line_for_each_and_a_whisker_where_there_is_an_interval() -> None:
    rows = [("one", 0.5, (0.4, 0.6), "s-image"), ("two", 0.7, None, "s-text")]
    root = ElementTree.fromstring(forest(rows, x=Axis("accuracy", 0, 1), name=""))  # noqa: S314
    assert len(root.findall("circle")) == 2
    [whisker] = [path for path in root.findall("path") if path.get("class") == "whisker s-image"]
    assert whisker.get("d") == "M470.0 22H620.0"
