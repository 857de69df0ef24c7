"""Metrics of a classifier, and confidence bounds for the drop of a metric between two networks on the same images."""

from __future__ import annotations

from statistics import NormalDist
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from compress.verdict import statistics
from compress.verdict.statistics import Estimate

Metric = Literal["top1", "balanced_accuracy", "macro_f1"]
NAMES: dict[Metric, str] = {
    "top1": "top-1", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro-F1",
}  # fmt: skip

_Array: TypeAlias = npt.NDArray[np.float64]


def value(metric: Metric, predicted: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return a metric from 0 to 1; predicted classes and labels, (N,) each.

    top1: share of right predictions. balanced_accuracy: mean of the recall of the classes. macro_f1: mean of their F1,
    2 TP / (images of the class + predictions of the class). Classes without images are not part of the means.
    """
    if metric == "top1":
        return float(np.mean(np.asarray(predicted) == np.asarray(labels)))
    counts = _Counts.of(predicted, labels)
    return float(np.mean(counts.hits / counts.images if metric == "balanced_accuracy" else counts.f1))


def estimate(metric: Metric, predicted: npt.ArrayLike, labels: npt.ArrayLike, confidence: float) -> Estimate:
    """Estimate top-1 or the balanced accuracy, from 0 to 1; predicted classes and labels, (N,) each.

    Jeffreys' bounds of the share of right predictions; for the balanced accuracy those of each class's recall, combined
    by MOVER. Raises ValueError for macro_f1.
    """
    if metric == "top1":
        return statistics.agreement(labels, predicted, confidence)
    if metric == "macro_f1":
        raise ValueError("macro_f1 has no bounds; use top1 or balanced_accuracy")
    of_images, predictions = np.asarray(labels), np.asarray(predicted)
    masks = [of_images == label for label in np.unique(of_images)]
    recalls = [statistics.agreement(of_images[mask], predictions[mask], confidence) for mask in masks]
    below, above = (
        np.sqrt(np.sum(np.square(distances))) / len(recalls)
        for distances in zip(
            *((recall.value - recall.low, recall.high - recall.value) for recall in recalls), strict=True
        )
    )
    mean = float(np.mean([recall.value for recall in recalls]))
    return Estimate(mean, max(0.0, mean - float(below)), min(1.0, mean + float(above)))


def with_bounds(metric: Metric, predicted: npt.ArrayLike, labels: npt.ArrayLike, confidence: float) -> Estimate:
    """Estimate any metric, from 0 to 1, to compare networks: macro_f1 by its drop from a network without errors."""
    if metric != "macro_f1":
        return estimate(metric, predicted, labels, confidence)
    drop = drop_pp(metric, labels, predicted, labels, confidence)
    return Estimate(value(metric, predicted, labels), 1 - drop.high / 100, 1 - drop.low / 100)


def drop_pp(
    metric: Metric, baseline: npt.ArrayLike, candidate: npt.ArrayLike, labels: npt.ArrayLike, confidence: float
) -> Estimate:
    """Estimate by how many percentage points the candidate's metric is below the baseline's, paired by image.

    baseline, candidate: predicted classes (N,); labels: (N,). low and high are one-sided bounds.
    """
    if metric == "top1":
        return statistics.top1_drop_pp(baseline, candidate, labels, confidence)
    drops = _recall_drops(baseline, candidate, labels, confidence)
    if metric == "balanced_accuracy":
        return _combined(float(np.mean(drops[:, 0])), (drops[:, 0] - drops[:, 1:].T) / len(drops))
    before, after = _Counts.of(baseline, labels), _Counts.of(candidate, labels)
    drop = float(np.mean(before.f1) - np.mean(after.f1))
    return _combined(drop, _f1_distances(before, after, drops, confidence))


class _Counts:
    """Counts of one network per class with images: images, hits and predictions; the predicted class of each image.

    labels, predicted: (N,) positions of the classes; classes without images share the position after the last.
    """

    def __init__(self, labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int) -> None:
        self.labels, self.predicted = labels, predicted
        self.images, self.hits, predictions = (
            np.bincount(classes_of, minlength=classes + 1)[:classes].astype(np.float64)
            for classes_of in (labels, labels[labels == predicted], predicted)
        )
        self.whole = self.images + predictions
        self.f1: _Array = 2 * self.hits / self.whole

    @classmethod
    def of(cls, predicted: npt.ArrayLike, labels: npt.ArrayLike) -> _Counts:
        """Return the counts of predicted classes and labels, (N,) each."""
        classes, positions = np.unique(np.asarray(labels), return_inverse=True)
        places = np.minimum(np.searchsorted(classes, np.asarray(predicted)), len(classes) - 1)
        return cls(positions, np.where(classes[places] == predicted, places, len(classes)), len(classes))

    @property
    def per_hit(self) -> _Array:
        """Derivative of the sum of all F1 with respect to the hits of each class."""
        derivative: _Array = 2 * (self.whole - self.hits) / self.whole**2
        return derivative

    @property
    def per_false_alarm(self) -> _Array:
        """The same with respect to the false predictions of each class, and 0 for classes without images."""
        return np.append(-2 * self.hits / self.whole**2, 0.0)

    def influence(self) -> _Array:
        """Return the derivative of the sum of all F1 with respect to the share of each image, (N,)."""
        hit = self.predicted == self.labels
        influence: _Array = np.where(hit, self.per_hit[self.labels], self.per_false_alarm[self.predicted])
        return influence


def _recall_drops(
    baseline: npt.ArrayLike, candidate: npt.ArrayLike, labels: npt.ArrayLike, confidence: float
) -> _Array:
    """Return value, low and high of the drop of each class's recall, as shares; (classes with images, 3)."""
    before, after = _Counts.of(baseline, labels), _Counts.of(candidate, labels)
    classes = len(before.images)
    right = [counts.predicted == counts.labels for counts in (before, after)]
    lost = np.bincount(before.labels[right[0] & ~right[1]], minlength=classes)
    gained = np.bincount(before.labels[~right[0] & right[1]], minlength=classes)
    drops = [
        statistics.drop_pp(int(losses), int(gains), int(images), confidence)
        for losses, gains, images in zip(lost, gained, before.images, strict=True)
    ]
    return np.asarray([(drop.value, drop.low, drop.high) for drop in drops]) / 100


def _f1_distances(before: _Counts, after: _Counts, drops: _Array, confidence: float) -> _Array:
    """Return how far each class's images may move the drop of macro-F1 down and up, (2, classes).

    The larger of two distances: the standard error by the delta method, and the distance of the bounds of the recall
    times the largest change of macro-F1 that one more lost image makes. The first counts every change of a prediction;
    the second does not vanish for a class in which no prediction changed.
    """
    classes = len(before.images)
    influence = (before.influence() - after.influence()) / classes
    mean = np.bincount(before.labels, influence, classes) / before.images
    squares = np.bincount(before.labels, (influence - mean[before.labels]) ** 2, classes)
    errors = np.sqrt(squares * before.images / np.maximum(before.images - 1, 1))
    largest = np.max([counts.per_hit + _largest_of_others(-counts.per_false_alarm[:classes])
                      for counts in (before, after)], axis=0)  # fmt: skip
    per_share = before.images * largest / classes
    distances = np.abs(drops[:, 1:].T - drops[:, 0]) * per_share
    wider: _Array = np.maximum(distances, NormalDist().inv_cdf(confidence) * errors)
    return wider


def _largest_of_others(values: _Array) -> _Array:
    """Return for each value the largest of the others, 0 if there is none."""
    if len(values) == 1:
        return np.zeros(1)
    order = np.argsort(values)
    others: _Array = np.where(np.arange(len(values)) == order[-1], values[order[-2]], values[order[-1]])
    return others


def _combined(drop: float, distances: _Array) -> Estimate:
    """Return the bounds of a sum of independent terms from the distances of their own bounds, (2, terms).

    MOVER (Zou and Donner, Statistics in Medicine 27, 2008): the distances are added like standard errors.
    """
    low, high = np.sqrt(np.sum(distances**2, axis=1)).tolist()
    return Estimate(100 * drop, 100 * max(-1.0, drop - low), 100 * min(1.0, drop + high))
