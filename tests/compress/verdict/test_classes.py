"""Classes whose recall fell."""

from __future__ import annotations

import numpy as np
import pytest

from compress.verdict.classes import ClassDrop, ClassDrops, class_drops, never_right, too_small


def drops(images: list[int], lost: list[int], limit_pp: float = 4, confidence: float = 0.95) -> ClassDrops:
    """Return the drops of networks that are right before and lose some images of each class."""
    labels = np.repeat(np.arange(len(images)), images)
    first = np.concatenate([np.arange(count) for count in images])
    after = np.where(first < np.asarray(lost)[labels], (labels + 1) % len(images), labels)
    names = tuple(f"class-{label}" for label in range(len(images)))
    return class_drops(labels, after, labels, names, limit_pp, confidence)


@pytest.mark.parametrize(
    ("images", "lost", "collapsed", "unclear"),
    [
        ([400, 8], [0, 8], ["class-1"], []),
        ([100] * 19 + [8], [1] * 19 + [8], ["class-19"], []),  # classes with one change are not counted
        ([400, 8], [0, 4], [], ["class-1"]),  # half of a class, p = 0.06
        ([400, 8], [0, 3], [], []),
        ([400, 20], [0, 5], ["class-1"], []),
        ([50] * 20, [5] * 19 + [20], ["class-19"], []),
        ([50] * 19 + [8], [5] * 19 + [8], ["class-19"], []),  # the others can't be significant and are not counted
        ([50] * 20, [8] * 20, [], []),  # p = 0.08, corrected for twenty classes
        ([8] * 20, [8] * 20, [], [f"class-{label}" for label in range(20)]),
        ([400, 4], [0, 4], [], ["class-1"]),
        ([400, 1], [0, 1], [], ["class-1"]),
        ([400, 2], [0, 1], [], []),
        ([400, 100], [40, 5], ["class-0"], []),  # the bound of the second class is within the limit
        ([400, 300], [10, 10], [], []),  # within the limit
    ],
)
def test_classes_collapse_significantly_or_unclearly(
    images: list[int], lost: list[int], collapsed: list[str], unclear: list[str]
) -> None:
    result = drops(images, lost)
    assert [drop.name for drop in result.collapsed] == collapsed
    assert [drop.name for drop in result.unclear] == unclear


def test_a_drop_has_bounds_and_a_line() -> None:
    drop = ClassDrop("a", 8, 8, 0, 0.004)
    assert drop.drop_pp == drop.estimate(0.95).value == 100
    assert 49 < drop.estimate(0.95).low < 100
    assert (
        drop.line()
        == "class 'a' collapsed: 8 of 8 images lost, 0 gained, p = 0.004 (corrected for the number of classes)"
    )


@pytest.mark.parametrize(("confidence", "needed"), [(0.95, 5), (0.99, 7), (0.5, 1)])
def test_classes_that_are_too_small_for_any_verdict_are_named(confidence: float, needed: int) -> None:
    labels = np.repeat([0, 1], [100, needed])
    assert too_small(labels, ("a", "b"), confidence) is None
    line = too_small(labels[:-1], ("a", "b"), confidence)
    assert line == (f"fewer than {needed} test images: b; a loss in so small a class can't be shown; "
                    "add test images")  # fmt: skip


def test_of_many_small_classes_some_are_named() -> None:
    line = too_small(np.arange(6), tuple("abcdef"), 0.95)
    assert line is not None
    assert line.startswith("fewer than 5 test images: a, b, c and 3 more; ")


def test_classes_that_the_reference_never_gets_right_are_named() -> None:
    labels = np.repeat([0, 1, 2], 10)
    assert never_right(labels, labels, ("a", "b", "c")) is None
    assert never_right(np.zeros(30, np.int64), labels, ("a", "b", "c")) == (
        "the reference gets no test image right of: b, c; such a class has nothing to lose; check its training and its "
        "labels"
    )
