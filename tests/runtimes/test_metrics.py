"""Tests of runtimes.metrics against a slow, simple reference."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtimes import metrics
from runtimes.metrics import Accuracy, accuracy

LOGIT = st.floats(-50, 50, width=32)


@st.composite
def answers(draw: Callable[..., object], least_classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits without ties and labels for them."""
    images, classes = draw(st.integers(1, 12)), draw(st.integers(least_classes, 9))
    logits = draw(hnp.arrays(np.float32, (images, classes), elements=LOGIT, unique=True))
    labels = draw(hnp.arrays(np.int64, images, elements=st.integers(0, classes - 1)))
    return logits, labels


def rank(row: np.ndarray, label: int) -> int:
    """Return how many classes are ahead of the right one."""
    return sum(value > row[label] for value in row)


@settings(max_examples=150)
@given(drawn=answers())
def test_loss_and_shares_are_those_of_the_slow_reference(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = drawn
    found = accuracy(logits, labels)
    ranks = [rank(row, label) for row, label in zip(logits, labels, strict=True)]
    losses = [
        math.log(sum(math.exp(float(value) - float(row[label])) for value in row))
        for row, label in zip(logits, labels, strict=True)
    ]
    assert found.images == len(labels)
    assert found.top1 == pytest.approx(np.mean([place < 1 for place in ranks]), abs=1e-12)
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-9, abs=1e-9)
    if logits.shape[1] >= 6:
        assert found.top5 == pytest.approx(np.mean([place < 5 for place in ranks]), abs=1e-12)
    else:
        assert found.top5 is None


@settings(max_examples=150)
@given(drawn=answers())
def test_confusion_precision_recall_and_f1_are_those_of_the_slow_reference(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    logits, labels = drawn
    found = accuracy(logits, labels)
    predicted, classes = [int(np.argmax(row)) for row in logits], logits.shape[1]
    pairs = list(zip(labels.tolist(), predicted, strict=True))
    rows = [[pairs.count((i, j)) for j in range(classes)] for i in range(classes)]
    assert metrics.confusion_rows(found.confusion, classes) == rows
    assert metrics.confusion_of_rows(rows) == list(found.confusion)
    assert metrics.images_per_class(found.confusion, classes) == [sum(row) for row in rows]
    for index in range(classes):
        hits, was, said = pairs.count((index, index)), labels.tolist().count(index), predicted.count(index)
        assert found.precision[index] == pytest.approx(hits / said if said else 0)
        assert found.recall[index] == pytest.approx(hits / was if was else 0)
        assert found.f1[index] == pytest.approx(2 * hits / (was + said) if was + said else 0)


@settings(max_examples=50)
@given(drawn=answers(), seed=st.integers(0, 99))
def test_the_order_of_the_images_changes_nothing(drawn: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    logits, labels = drawn
    order = np.random.default_rng(seed).permutation(len(labels))
    first, second = accuracy(logits, labels), accuracy(logits[order], labels[order])
    assert second.confusion == first.confusion
    assert second.loss == pytest.approx(first.loss, rel=1e-12, abs=1e-15)


def test_three_images_worked_out_by_hand() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [0.5, 0.4, 0.1]], np.float32))
    found = accuracy(logits, np.array([0, 1, 1]))
    assert found.top1 == pytest.approx(2 / 3)
    assert found.loss == pytest.approx(-(math.log(0.7) + math.log(0.5) + math.log(0.4)) / 3, rel=1e-6)
    assert found.confusion == ((0, 0, 1), (1, 0, 1), (1, 1, 1))
    assert found.precision == pytest.approx((0.5, 1, 0))
    assert found.recall == pytest.approx((1, 0.5, 0))
    assert found.f1 == pytest.approx((2 / 3, 2 / 3, 0))


@pytest.mark.parametrize("size", [1e4, 1e30, 3e38])
def test_large_logits_overflow_nothing(size: float) -> None:
    logits = np.array([[size, -size], [-size, size]], np.float32)
    assert accuracy(logits, np.array([0, 1])).loss == pytest.approx(0)
    assert accuracy(logits, np.array([1, 1])).loss == pytest.approx(float(np.float32(size)), rel=1e-6)


@pytest.mark.parametrize(("classes", "has_top5"), [(2, False), (5, False), (6, True), (1000, True)])
def test_top5_needs_six_classes(classes: int, has_top5: bool) -> None:
    found = accuracy(np.arange(classes, dtype=np.float32)[None], np.array([classes - 1]))
    assert (found.top5 is not None) is has_top5


@pytest.mark.parametrize(("place", "top5"), [(0, 1.0), (4, 1.0), (5, 0.0), (9, 0.0)])
def test_top5_counts_the_fifth_place_and_not_the_sixth(place: int, top5: float) -> None:
    assert accuracy(-np.arange(10, dtype=np.float32)[None], np.array([place])).top5 == top5


def test_of_equal_logits_the_first_class_is_predicted() -> None:
    assert accuracy(np.zeros((2, 3), np.float32), np.array([0, 1])).confusion == ((0, 0, 1), (1, 0, 1))


@pytest.mark.parametrize("tied", [6, 10])
def test_top5_is_never_below_top1_where_logits_are_equal(tied: int) -> None:
    found = accuracy(np.zeros((1, tied), np.float32), np.array([0]))
    assert found.top5 is not None
    assert found.top5 >= found.top1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    logits = np.zeros((2, 3), np.float32)
    logits[1, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        accuracy(logits, np.array([0, 1]))


@pytest.mark.parametrize(("rows", "labels"), [(0, 0), (2, 0), (2, 3), (3, 2)])
def test_rows_and_labels_must_be_as_many_and_some(rows: int, labels: int) -> None:
    with pytest.raises(ValueError, match=f"{rows} rows of logits for {labels} labels"):
        accuracy(np.zeros((rows, 3), np.float32), np.zeros(labels, np.int64))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    with pytest.raises(ValueError, match=str(label)):
        accuracy(np.eye(3, dtype=np.float32), np.array([label, 0, 1]))


@settings(max_examples=50)
@given(drawn=answers())
def test_json_gives_back_the_same(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    found = accuracy(*drawn)
    assert Accuracy.from_json(json.loads(json.dumps(asdict(found), allow_nan=False))) == found


def test_calibration_error_is_that_of_the_papers_equations() -> None:
    rng = np.random.default_rng(0)
    logits, labels = (3 * rng.normal(size=(500, 7))).astype(np.float32), rng.integers(0, 7, 500)
    powers = np.exp(logits.astype(np.float64))
    confidence = (powers / powers.sum(1, keepdims=True)).max(1)
    expected, greatest = 0.0, 0.0
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            gap = abs(np.mean(logits[inside].argmax(1) == labels[inside]) - confidence[inside].mean())
            expected, greatest = expected + inside.sum() / 500 * gap, max(greatest, gap)
    found = metrics.calibration(metrics.scores(logits, labels), labels)
    assert found.expected_error == pytest.approx(expected)
    assert found.maximum_error == pytest.approx(greatest)
    assert sum(one.images for one in found.bins) == 500
