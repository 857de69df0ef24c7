"""Charts: positions of points, bars and names, and well-formed SVG for any input."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.report import charts
from compress.report.charts import Bar, Curve, Point

numbers = st.floats(0.01, 1e4)
points = st.lists(st.builds(Point, st.text(max_size=30), st.sampled_from(["float32", "int8"]), numbers, numbers),
                  min_size=1, max_size=12)  # fmt: skip


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(charts.standalone(svg))


@pytest.mark.parametrize(
    ("spots", "front"),
    [
        ([(1, 80), (2, 81)], [(1, 80), (2, 81)]),
        ([(2, 80), (1, 81)], [(1, 81)]),
        ([(1, 80), (1, 82), (3, 82)], [(1, 82)]),
        ([(3, 83), (1, 80), (2, 79), (4, 83)], [(1, 80), (3, 83)]),
    ],
)
def test_the_pareto_front_holds_the_points_that_no_other_dominates(
    spots: list[tuple[float, float]], front: list[tuple[float, float]]
) -> None:
    points_of_front = charts.pareto([Point("", "int8", x, y) for x, y in spots])
    assert [(point.x, point.y) for point in points_of_front] == front


@given(points)
def test_each_point_is_on_the_front_or_dominated_by_it(given_points: list[Point]) -> None:
    front = charts.pareto(given_points)
    for point in given_points:
        dominated = any(
            other.x <= point.x and other.y >= point.y and (other.x, other.y) != (point.x, point.y) for other in front
        )
        assert dominated != any((point.x, point.y) == (other.x, other.y) for other in front)


@given(points)
def test_every_picture_is_well_formed_and_holds_all_points(given_points: list[Point]) -> None:
    control = r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]"
    kept = [Point(re.sub(control, "", point.name), point.kind, point.x, point.y) for point in given_points]
    root = parsed(charts.accuracy_latency("<&>", kept))
    circles = [element for element in root.iter() if element.tag.endswith("circle")]
    assert len(circles) == len(kept)
    for circle in circles:
        assert 0 <= float(circle.attrib["cx"]) <= charts.WIDTH
        assert 0 <= float(circle.attrib["cy"]) <= charts.HEIGHT


@given(st.floats(0, 100), st.floats(0.001, 1000), st.integers(3, 10))
def test_ticks_are_round_few_and_inside(low: float, width: float, most: int) -> None:
    ticks = charts._ticks(low, low + width, most)
    assert len(ticks) <= most + 1
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in ticks)


def test_names_do_not_lie_on_each_other() -> None:
    crowd = [Point(f"file {index}", "int8", 1 + index / 100, 80 + index / 100) for index in range(6)]
    root = parsed(charts.accuracy_latency("crowd", crowd))
    heights = sorted(float(text.attrib["y"]) for text in root.iter() if (text.text or "").startswith("file"))
    assert len(heights) == 6
    assert all(below - above >= charts.LABEL_HEIGHT - 2 for above, below in pairwise(heights))


def test_names_do_not_lie_on_points_and_their_lines() -> None:
    close = [Point("float32", "float32", 0.63, 82.11, 0.9), Point("int8", "int8", 0.56, 81.96, 0.82)]
    svg = parsed(
        charts.accuracy_latency("close", [*close, Point("baseline", "float32", 2.27, 82.11, 2.92, 80.5, 83.6)])
    )
    names = [text for text in svg.iter() if text.text in {"float32", "int8", "baseline"}]
    marks = [float(mark.attrib["cy"]) for mark in svg.iter() if mark.tag.endswith("circle")]
    assert (len(names), len(marks)) == (3, 3)
    for height in (float(name.attrib["y"]) for name in names):
        assert not any(height - 12 < mark < height + 3 for mark in marks)


def test_a_waterfall_tells_screen_readers_what_it_shows() -> None:
    svg = parsed(charts.waterfall("points", [Bar("train", 80, None, "80.00 %"), Bar("prune", 70, 80, "-10.00")]))
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == "points. train: 80.00 %, 80.00 %; prune: 70.00 %, -10.00"
    first, second = [bar for bar in svg.iter() if bar.attrib.get("class", "").startswith("mark")]
    assert second.attrib["class"] == "mark bad"
    end = float(first.attrib["x"]) + float(first.attrib["width"])
    assert float(second.attrib["x"]) + float(second.attrib["width"]) == pytest.approx(end, abs=0.2)


def test_equal_values_and_nan_are_drawn(recwarn: pytest.WarningsRecorder) -> None:
    parsed(charts.accuracy_latency("one", [Point("a", "int8", 1.0, 80.0)]))
    parsed(charts.waterfall("flat", [Bar("a", 80, None, ""), Bar("b", 80, 80, "")]))
    root = parsed(charts.curves("loss", "loss", [Curve("train", "float32", [1.0, float("nan"), 0.5])]))
    (line,) = [element for element in root.iter() if element.tag.endswith("polyline")]
    assert len(line.attrib["points"].split()) == 2
    assert not recwarn.list
