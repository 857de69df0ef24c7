"""Metrics of imbalanced data and the bounds of their drop."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from compress.verdict import metrics
from compress.verdict.metrics import Metric
from compress.verdict.statistics import drop_pp, top1_drop_pp

Classes = npt.NDArray[np.int64]
OF_CLASSES: tuple[Metric, ...] = ("balanced_accuracy", "macro_f1")


def test_the_metrics_are_those_of_their_definitions() -> None:
    labels = [0] * 8 + [1] * 2
    predicted = [0] * 7 + [1] + [1, 0]
    assert metrics.value("top1", predicted, labels) == pytest.approx(0.8)
    assert metrics.value("balanced_accuracy", predicted, labels) == pytest.approx((7 / 8 + 1 / 2) / 2)
    assert metrics.value("macro_f1", predicted, labels) == pytest.approx((14 / 16 + 2 / 4) / 2)


def test_the_metrics_are_those_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, (2, 300))
    assert metrics.value("balanced_accuracy", predicted, labels) == pytest.approx(
        sklearn.balanced_accuracy_score(labels, predicted)
    )
    assert metrics.value("macro_f1", predicted, labels) == pytest.approx(
        sklearn.f1_score(labels, predicted, average="macro")
    )


def test_classes_without_images_are_not_part_of_the_means() -> None:
    labels, predicted = [3, 3, 7, 7], [3, 9, 7, 1]
    assert metrics.value("balanced_accuracy", predicted, labels) == pytest.approx(0.5)
    assert metrics.value("macro_f1", predicted, labels) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_a_network_that_finds_no_defect_is_good_by_top1_only() -> None:
    labels = np.repeat([0, 1], [950, 50])
    found, blind = labels, np.zeros(1000, np.int64)
    drops = {name: metrics.drop_pp(name, found, blind, labels, 0.95) for name in get_args(Metric)}
    assert drops["top1"].high < 7
    assert drops["balanced_accuracy"].value == pytest.approx(50)
    assert drops["balanced_accuracy"].low > 44
    assert drops["macro_f1"].value == pytest.approx(100 * (1 - (1900 / 1950 + 0) / 2))
    assert drops["macro_f1"].low > 40


def test_of_one_class_the_balanced_accuracy_is_top1() -> None:
    labels, before, after = np.zeros(40), np.repeat([0, 1], [35, 5]), np.repeat([0, 1], [30, 10])
    expected = top1_drop_pp(before, after, labels, 0.95)
    actual = metrics.drop_pp("balanced_accuracy", before, after, labels, 0.95)
    assert (actual.value, actual.low, actual.high) == pytest.approx((expected.value, expected.low, expected.high))


@pytest.mark.parametrize("metric", OF_CLASSES)
def test_unchanged_predictions_are_no_certainty(metric: Metric) -> None:
    """The distance of the bounds is that of the smallest class, divided by the number of classes."""
    labels = np.repeat([0, 1], [5000, 8])
    drop = metrics.drop_pp(metric, labels, labels, labels, 0.95)
    assert drop.value == 0
    expected = drop_pp(0, 0, 8, 0.95).high / 2
    assert drop.high == pytest.approx(-drop.low)
    assert drop.high >= expected * (1 if metric == "balanced_accuracy" else 0.5)


@pytest.mark.parametrize("metric", OF_CLASSES)
def test_a_gain_mirrors_a_drop(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    before, after = (np.where(rng.random(200) < share, labels, (labels + 1) % 3) for share in (0.9, 0.8))
    drop = metrics.drop_pp(metric, before, after, labels, 0.9)
    gain = metrics.drop_pp(metric, after, before, labels, 0.9)
    assert (gain.value, gain.low, gain.high) == pytest.approx((-drop.value, -drop.high, -drop.low))
    assert drop.low < drop.value < drop.high


@pytest.mark.parametrize("metric", OF_CLASSES)
def test_one_image_decides_nothing(metric: Metric) -> None:
    lost = metrics.drop_pp(metric, [0], [1], [0], 0.95)
    assert -100 <= lost.low < 100 == lost.value == lost.high
    half = metrics.drop_pp(metric, [0, 1, 1], [0, 0, 1], [0, 1, 1], 0.5)
    assert half.low == pytest.approx(half.value) == pytest.approx(half.high)


CASES: dict[str, tuple[list[int], Any, Any, Any]] = {  # images, accuracy, lost and gained share, by class
    "few of one class": ([8, 60], 0.95, [0.1, 0.02], [0.02, 0.02]),
    "all right before": ([8, 60], 1.0, [0.1, 0.02], 0.0),
    "collapse": ([8, 60], 1.0, [0.6, 0.0], 0.0),
    "imbalanced": ([500, 20], 0.97, [0.01, 0.1], [0.01, 0.02]),
    "many small classes": ([8] * 10, 0.95, 0.25, 0.0),
    "large drop": ([300, 300], 0.9, 0.2, 0.02),
    "noise": ([50] * 5, 0.8, 0.03, 0.03),
}


def draw(rng: np.random.Generator, labels: Classes, case: tuple[Any, Any, Any]) -> tuple[Classes, Classes]:
    """Return predictions of two networks; some wrong predictions change to another wrong class."""
    classes = int(labels.max()) + 1
    accuracy, lost, gained = (np.broadcast_to(share, classes)[labels] for share in case)
    place = rng.random(len(labels))
    wrong, other = (labels + rng.integers(1, classes, (2, len(labels)))) % classes
    before = np.where(place < accuracy, labels, wrong)
    right = ((place < accuracy) & (place >= lost)) | ((place >= accuracy) & (place < accuracy + gained))
    return before, np.where(right, labels, np.where(rng.random(len(labels)) < 0.8, wrong, other))


def true_drop_pp(metric: Metric, images: list[int], case: tuple[Any, Any, Any]) -> float:
    """Return the drop on a million images in the same shares."""
    labels = np.repeat(np.arange(len(images)), 1_000_000 * np.asarray(images) // sum(images))
    before, after = draw(np.random.default_rng(1), labels, case)
    return 100 * (metrics.value(metric, before, labels) - metrics.value(metric, after, labels))


@pytest.mark.parametrize("metric", OF_CLASSES)
@pytest.mark.parametrize("name", CASES)
def test_each_bound_holds_about_as_often_as_it_says(metric: Metric, name: str) -> None:
    images, *case = CASES[name]
    shares = (case[0], case[1], case[2])
    truth, runs = true_drop_pp(metric, images, shares), 400
    labels = np.repeat(np.arange(len(images)), images)
    rng = np.random.default_rng(0)
    drops = [metrics.drop_pp(metric, *draw(rng, labels, shares), labels, 0.95) for _ in range(runs)]
    slack = 3 * math.sqrt(0.95 * 0.05 / runs)  # three standard errors of the simulation
    assert np.mean([drop.low <= truth for drop in drops]) >= 0.95 - slack
    assert np.mean([drop.high >= truth for drop in drops]) >= 0.95 - slack


def test_the_bounds_of_a_metric_contain_its_value_and_narrow_with_the_images() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    predicted = np.where(np.arange(100) % 4 == 0, (labels + 1) % 3, labels)
    widths = {}
    for metric in ("top1", "balanced_accuracy"):
        small, large = (
            metrics.estimate(metric, np.tile(predicted, times), np.tile(labels, times), 0.95) for times in (1, 16)
        )
        assert small.value == pytest.approx(metrics.value(metric, predicted, labels))
        assert small.low < large.low < large.value < large.high < small.high
        widths[metric] = small.high - small.low
    assert widths["balanced_accuracy"] > widths["top1"]  # the class of 10 images weighs a third
    with pytest.raises(ValueError, match="macro_f1 has no bounds"):
        metrics.estimate("macro_f1", predicted, labels, 0.95)


def test_every_metric_has_bounds_to_compare_networks() -> None:
    labels = np.arange(300) % 3
    predicted = labels.copy()
    predicted[:60] = (predicted[:60] + 1) % 3
    for metric in metrics.NAMES:
        estimate = metrics.with_bounds(metric, predicted, labels, 0.95)
        assert estimate.value == pytest.approx(metrics.value(metric, predicted, labels))
        assert 0.7 < estimate.low < estimate.value < estimate.high < 0.9
