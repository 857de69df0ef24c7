"""Classification metrics in NumPy, for training, host and board."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from runtimes.files import Json, read_object

TOP5_NEEDS_CLASSES = 6  # with five classes or fewer, top-5 is always 1
CALIBRATION_BINS = 15  # as in Guo et al., ICML 2017
ROWS = 1024  # per step: float64 copies of all logits of ImageNet's 50,000 images would take 400 MB each


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of logits against labels: shares from 0 to 1, loss is the mean cross-entropy in nats.

    top5 is None with fewer than six classes. confusion: (class, predicted class, number of images) for numbers above 0,
    in order. precision, recall and f1 are per class, 0 where a class was never predicted or has no images.
    """

    images: int
    loss: float
    top1: float
    top5: float | None
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    confusion: tuple[tuple[int, int, int], ...]

    @classmethod
    def from_json(cls, content: Json) -> Accuracy:
        """Rebuild from JSON; raises ValueError for missing, unknown or wrong fields."""
        accuracy = read_object(cls, content)
        classes = range(len(accuracy.recall))
        if not len(accuracy.precision) == len(accuracy.recall) == len(accuracy.f1):
            raise ValueError("precision, recall and f1 are of different numbers of classes")
        if any(label not in classes or predicted not in classes for label, predicted, _ in accuracy.confusion):
            raise ValueError(f"confusion: a class is not one of the {len(classes)} classes")
        return accuracy


def confusion_rows(confusion: Iterable[Sequence[int]], classes: int) -> list[list[int]]:
    """Return the confusion matrix: a row per class, a column per predicted class."""
    rows = [[0] * classes for _ in range(classes)]
    for label, predicted, images in confusion:
        rows[label][predicted] = images
    return rows


def images_per_class(confusion: Iterable[Sequence[int]], classes: int) -> list[int]:
    """Return the number of images of each class."""
    counts = [0] * classes
    for label, _, images in confusion:
        counts[label] += images
    return counts


def confusion_of_rows(rows: list[list[int]]) -> list[tuple[int, int, int]]:
    """Return (class, predicted class, images) of a confusion matrix, the form of schema version 1."""
    return [
        (label, predicted, images) for label, row in enumerate(rows) for predicted, images in enumerate(row) if images
    ]


@dataclass(frozen=True)
class Scores:
    """Per-image figures from which all metrics are computed; much smaller than the logits.

    predicted: (N,) int64, the first class where logits are equal; loss: (N,) float64 cross-entropy in nats;
    confidence: (N,) float64, the largest softmax output; among_five: (N,) whether the label is in the top five.
    """

    predicted: npt.NDArray[np.int64]
    loss: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    among_five: npt.NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """Return the scores of all parts' images, in order."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def scores(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Scores:
    """Return the scores of `(N, classes)` logits for `(N,)` labels from 0 to classes - 1.

    Raises ValueError for N = 0, mismatched shapes, labels out of range or logits that are not finite.
    """
    if not len(labels) or len(labels) != len(logits):
        raise ValueError(f"{len(logits)} rows of logits for {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} for {logits.shape[1]} classes")
    starts = range(0, len(labels), ROWS)
    return Scores.joined([_scores(logits[start : start + ROWS], labels[start : start + ROWS]) for start in starts])


def _scores(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Scores:
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity")
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    total = np.exp(shifted).sum(1)
    label_logit = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank = (logits > label_logit).sum(1) + ((logits == label_logit) & earlier).sum(1)  # ties as in argmax
    label_shifted = shifted[np.arange(len(labels)), labels]
    return Scores(logits.argmax(1).astype(np.int64), np.log(total) - label_shifted, 1 / total, rank < 5)


def accuracy(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Accuracy:
    """Return the accuracy of logits; shapes and errors as in `scores`."""
    return accuracy_of(scores(logits, labels), labels, logits.shape[1])


def accuracy_of(image_scores: Scores, labels: npt.NDArray[np.int64], classes: int) -> Accuracy:
    """Return the accuracy of images from their scores; labels: (N,)."""
    cells, counts = np.unique(labels * classes + image_scores.predicted, return_counts=True)
    hits = np.bincount(labels[image_scores.predicted == labels], minlength=classes).astype(np.float64)
    precision = _ratio(hits, np.bincount(image_scores.predicted, minlength=classes).astype(np.float64))
    recall = _ratio(hits, np.bincount(labels, minlength=classes).astype(np.float64))
    return Accuracy(
        images=len(labels),
        loss=float(np.mean(image_scores.loss)),
        top1=float(np.mean(image_scores.predicted == labels)),
        top5=float(np.mean(image_scores.among_five)) if classes >= TOP5_NEEDS_CLASSES else None,
        precision=tuple(precision.tolist()),
        recall=tuple(recall.tolist()),
        f1=tuple(_ratio(2 * precision * recall, precision + recall).tolist()),
        confusion=tuple(zip(*(values.tolist() for values in (*np.divmod(cells, classes), counts)), strict=True)),
    )


def _ratio(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


@dataclass(frozen=True)
class Bin:
    """Images with confidence in (low, high]; confidence and accuracy are means, 0 without images."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ConfidenceCalibration:
    """Calibration error: difference between confidence (largest softmax output) and accuracy; all in 0 to 1."""

    expected_error: float
    maximum_error: float
    bins: tuple[Bin, ...]


def calibration(
    image_scores: Scores, labels: npt.NDArray[np.int64], bins: int = CALIBRATION_BINS
) -> ConfidenceCalibration:
    """Return the expected (equation 3) and maximum (equation 5) calibration error of Guo et al., ICML 2017.

    labels: (N,). Bins have equal width, (m / bins, (m + 1) / bins].
    """
    correct = (image_scores.predicted == labels).astype(np.float64)
    index = np.clip(np.ceil(image_scores.confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    images = np.bincount(index, minlength=bins)
    mean_confidence = _ratio(
        np.bincount(index, image_scores.confidence, bins).astype(np.float64), images.astype(np.float64)
    )
    mean_accuracy = _ratio(np.bincount(index, correct, bins).astype(np.float64), images.astype(np.float64))
    gaps = np.abs(mean_accuracy - mean_confidence)
    return ConfidenceCalibration(
        expected_error=float(np.sum(images * gaps) / len(labels)),
        maximum_error=float(gaps.max()),
        bins=tuple(
            Bin(m / bins, (m + 1) / bins, int(images[m]), float(mean_confidence[m]), float(mean_accuracy[m]))
            for m in range(bins)
        ),
    )
