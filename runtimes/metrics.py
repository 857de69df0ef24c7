"""Classification metrics in NumPy, for training, host and board alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

TOP5_NEEDS_CLASSES = 6  # with five classes or fewer the right one is always among five
CALIBRATION_BINS = 15  # as in the paper
ROWS = 1024  # at once: float64 copies of all logits of ImageNet's 50,000 images would be 400 MB each


@dataclass(frozen=True)
class Accuracy:
    """How well logits fit labels: all shares are 0 to 1, loss is the mean cross-entropy in nats.

    top5 is None with fewer than six classes. confusion holds (class, answer, images) where there are images, in order.
    precision, recall and f1 are per class, 0 where a class was never predicted or never there.
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
    def from_json(cls, content: dict[str, Any]) -> Accuracy:
        """Rebuild from JSON, whose lists stand for the tuples."""
        lists = {name: tuple(content[name]) for name in ("precision", "recall", "f1")}
        return cls(
            **{
                **content,
                **lists,
                "confusion": tuple((true, taken, images) for true, taken, images in content["confusion"]),
            }
        )


def confusion_rows(confusion: Iterable[Sequence[int]], classes: int) -> list[list[int]]:
    """Return the confusion as a matrix with a row per class, for few classes."""
    rows = [[0] * classes for _ in range(classes)]
    for true, taken, images in confusion:
        rows[true][taken] = images
    return rows


def images_per_class(confusion: Iterable[Sequence[int]], classes: int) -> list[int]:
    """Return how many images each class has."""
    counts = [0] * classes
    for true, _, images in confusion:
        counts[true] += images
    return counts


def confusion_of_rows(rows: list[list[int]]) -> list[tuple[int, int, int]]:
    """Return the confusion of a matrix with a row per class, as schema version 1 had it."""
    return [(true, taken, images) for true, row in enumerate(rows) for taken, images in enumerate(row) if images]


@dataclass(frozen=True)
class Scores:
    """What metrics need of each image's logits, so that these can be let go.

    predicted: (N,) int64, of equal logits the first class; loss: (N,) float64 cross-entropy in nats; confidence: (N,)
    float64, the greatest softmax output; among_five: (N,) whether the right class is among the first five.
    """

    predicted: npt.NDArray[np.int64]
    loss: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    among_five: npt.NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """Return the scores of all parts' images, in their order."""
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))


def scores(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Scores:
    """Compare `(N, classes)` logits with `(N,)` labels from 0 to classes - 1, some rows at a time.

    Raises ValueError for N = 0, other shapes, labels outside the classes or logits that are not finite.
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
    right = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank = (logits > right).sum(1) + ((logits == right) & earlier).sum(1)  # ties as argmax breaks them
    own = shifted[np.arange(len(labels)), labels]
    return Scores(logits.argmax(1).astype(np.int64), np.log(total) - own, 1 / total, rank < 5)


def accuracy(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Accuracy:
    """Return the accuracy of logits; shapes and errors as of `scores`."""
    return accuracy_of(scores(logits, labels), labels, logits.shape[1])


def accuracy_of(found: Scores, labels: npt.NDArray[np.int64], classes: int) -> Accuracy:
    """Return the accuracy of images by their scores; labels: (N,)."""
    cells, counts = np.unique(labels * classes + found.predicted, return_counts=True)
    hits = np.bincount(labels[found.predicted == labels], minlength=classes).astype(np.float64)
    precision = _ratio(hits, np.bincount(found.predicted, minlength=classes).astype(np.float64))
    recall = _ratio(hits, np.bincount(labels, minlength=classes).astype(np.float64))
    return Accuracy(
        images=len(labels),
        loss=float(np.mean(found.loss)),
        top1=float(np.mean(found.predicted == labels)),
        top5=float(np.mean(found.among_five)) if classes >= TOP5_NEEDS_CLASSES else None,
        precision=tuple(precision.tolist()),
        recall=tuple(recall.tolist()),
        f1=tuple(_ratio(2 * precision * recall, precision + recall).tolist()),
        confusion=tuple(zip(*(values.tolist() for values in (*np.divmod(cells, classes), counts)), strict=True)),
    )


def _ratio(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


@dataclass(frozen=True)
class Bin:
    """Images with confidence above `low`, at most `high`; confidence and accuracy are means, 0 without images."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How far confidence (the greatest softmax output) is from the share of right answers; all are 0 to 1."""

    expected_error: float
    maximum_error: float
    bins: tuple[Bin, ...]


def calibration(found: Scores, labels: npt.NDArray[np.int64], bins: int = CALIBRATION_BINS) -> Calibration:
    """Return the expected (equation 3) and maximum (equation 5) calibration error of Guo et al., ICML 2017.

    labels: (N,). Bins are of equal width, (m / bins, (m + 1) / bins].
    """
    right = (found.predicted == labels).astype(np.float64)
    index = np.clip(np.ceil(found.confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    images = np.bincount(index, minlength=bins)
    mean_confidence = _ratio(np.bincount(index, found.confidence, bins).astype(np.float64), images.astype(np.float64))
    mean_right = _ratio(np.bincount(index, right, bins).astype(np.float64), images.astype(np.float64))
    gaps = np.abs(mean_right - mean_confidence)
    return Calibration(
        expected_error=float(np.sum(images * gaps) / len(labels)),
        maximum_error=float(gaps.max()),
        bins=tuple(
            Bin(m / bins, (m + 1) / bins, int(images[m]), float(mean_confidence[m]), float(mean_right[m]))
            for m in range(bins)
        ),
    )
