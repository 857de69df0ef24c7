"""Charts: what they show lies where it should, and they are well-formed whatever they are given."""

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
def test_the_pareto_front_is_what_nothing_else_beats(
    spots: list[tuple[float, float]], front: list[tuple[float, float]]
) -> None:
    found = charts.pareto([Point("", "int8", x, y) for x, y in spots])
    assert [(point.x, point.y) for point in found] == front


@given(points)
def test_no_point_beats_one_of_the_front_and_each_other_is_beaten(given_points: list[Point]) -> None:
    front = charts.pareto(given_points)
    for one in given_points:
        beaten = any(other.x <= one.x and other.y >= one.y and (other.x, other.y) != (one.x, one.y) for other in front)
        assert beaten != any((one.x, one.y) == (other.x, other.y) for other in front)


@given(points)
def test_every_picture_is_well_formed_and_holds_all_points(given_points: list[Point]) -> None:
    kept = [Point(re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "", one.name), one.kind, one.x, one.y)
            for one in given_points]  # fmt: skip
    root = parsed(charts.accuracy_latency("<&>", kept))
    circles = [one for one in root.iter() if one.tag.endswith("circle")]
    assert len(circles) == len(kept)
    for circle in circles:
        assert 0 <= float(circle.attrib["cx"]) <= charts.WIDTH
        assert 0 <= float(circle.attrib["cy"]) <= charts.HEIGHT


@given(st.floats(0, 100), st.floats(0.001, 1000), st.integers(3, 10))
def test_ticks_are_round_few_and_inside(low: float, width: float, most: int) -> None:
    found = charts._ticks(low, low + width, most)
    assert len(found) <= most + 1
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in found)


def test_names_do_not_lie_on_each_other() -> None:
    crowd = [Point(f"file {index}", "int8", 1 + index / 100, 80 + index / 100) for index in range(6)]
    texts = [
        one for one in parsed(charts.accuracy_latency("crowd", crowd)).iter() if (one.text or "").startswith("file")
    ]
    heights = sorted(float(one.attrib["y"]) for one in texts)
    assert len(heights) == 6
    assert all(next_one - one >= charts.LABEL_HEIGHT - 2 for one, next_one in pairwise(heights))


def test_names_do_not_lie_on_points_and_their_lines() -> None:
    close = [Point("float32", "float32", 0.63, 82.11, 0.9), Point("int8", "int8", 0.56, 81.96, 0.82)]
    svg = parsed(charts.accuracy_latency("close", [*close, Point("uncut", "float32", 2.27, 82.11, 2.92, 80.5, 83.6)]))
    names = [one for one in svg.iter() if one.text in {"float32", "int8", "uncut"}]
    marks = [float(one.attrib["cy"]) for one in svg.iter() if one.tag.endswith("circle")]
    assert (len(names), len(marks)) == (3, 3)
    for baseline in (float(one.attrib["y"]) for one in names):
        assert not any(baseline - 12 < mark < baseline + 3 for mark in marks)


def test_a_waterfall_tells_screen_readers_what_it_shows() -> None:
    svg = parsed(charts.waterfall("points", [Bar("train", 80, None, "80.00 %"), Bar("prune", 70, 80, "-10.00")]))
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == "points. train: 80.00 %, 80.00 %; prune: 70.00 %, -10.00"
    first, second = [one for one in svg.iter() if one.attrib.get("class", "").startswith("mark")]
    assert second.attrib["class"] == "mark bad"
    end = float(first.attrib["x"]) + float(first.attrib["width"])
    assert float(second.attrib["x"]) + float(second.attrib["width"]) == pytest.approx(end, abs=0.2)


def test_equal_values_and_nan_are_drawn(recwarn: pytest.WarningsRecorder) -> None:
    parsed(charts.accuracy_latency("one", [Point("a", "int8", 1.0, 80.0)]))
    parsed(charts.waterfall("flat", [Bar("a", 80, None, ""), Bar("b", 80, 80, "")]))
    root = parsed(charts.curves("loss", "loss", [Curve("train", "float32", [1.0, float("nan"), 0.5])]))
    (line,) = [one for one in root.iter() if one.tag.endswith("polyline")]
    assert len(line.attrib["points"].split()) == 2
    assert not recwarn.list
