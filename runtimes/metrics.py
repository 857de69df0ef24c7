"""Classification metrics in NumPy, for training, host and board alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

TOP5_NEEDS_CLASSES = 6  # with five classes or fewer the right one is always among five
CALIBRATION_BINS = 15  # as in the paper
ROWS = 4096  # float64 copies of all logits of ImageNet's 50,000 images would be 400 MB each


@dataclass(frozen=True)
class Accuracy:
    """How well logits fit labels: all shares are 0 to 1, loss is the mean cross-entropy in nats.

    top5 is None with fewer than six classes. confusion[i][j] counts images of class i that were taken for class j.
    precision, recall and f1 are per class, 0 where a class was never predicted or never there.
    """

    images: int
    loss: float
    top1: float
    top5: float | None
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Accuracy:
        """Rebuild from JSON, whose lists stand for the tuples."""
        lists = {name: tuple(fields[name]) for name in ("precision", "recall", "f1")}
        return cls(**{**fields, **lists, "confusion": tuple(tuple(row) for row in fields["confusion"])})


def accuracy(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Accuracy:
    """Compare `(N, classes)` logits with `(N,)` labels from 0 to classes - 1; of equal logits the first class counts.

    Raises ValueError for N = 0, other shapes, labels outside the classes or logits that are not finite.
    """
    if not len(labels) or len(labels) != len(logits):
        raise ValueError(f"{len(logits)} rows of logits for {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} for {logits.shape[1]} classes")
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity")
    classes = logits.shape[1]
    predicted = logits.argmax(1)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    hits = confusion.diagonal().astype(np.float64)
    precision, recall = _ratio(hits, confusion.sum(0) * 1.0), _ratio(hits, confusion.sum(1) * 1.0)
    return Accuracy(
        images=len(labels),
        loss=_cross_entropy(logits, labels),
        top1=float(np.mean(predicted == labels)),
        top5=_top5(logits, labels) if classes >= TOP5_NEEDS_CLASSES else None,
        precision=tuple(precision.tolist()),
        recall=tuple(recall.tolist()),
        f1=tuple(_ratio(2 * precision * recall, precision + recall).tolist()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def _cross_entropy(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    lost = []
    for start in range(0, len(labels), ROWS):
        part, right = logits[start : start + ROWS], labels[start : start + ROWS]
        shifted = part.astype(np.float64) - part.max(1, keepdims=True)
        lost.append(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(right)), right])
    return float(np.mean(np.concatenate(lost)))


def _top5(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    right = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank = (logits > right).sum(1) + ((logits == right) & earlier).sum(1)  # ties as argmax breaks them
    return float(np.mean(rank < 5))


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


def calibration(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], bins: int = CALIBRATION_BINS
) -> Calibration:
    """Return the expected (equation 3) and maximum (equation 5) calibration error of Guo et al., ICML 2017.

    logits: (N, classes), finite; labels: (N,). Bins are of equal width, (m / bins, (m + 1) / bins].
    """
    confidence = np.concatenate([_confidence(logits[start : start + ROWS]) for start in range(0, len(labels), ROWS)])
    right = (logits.argmax(1) == labels).astype(np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    images = np.bincount(index, minlength=bins)
    mean_confidence = _ratio(np.bincount(index, confidence, bins).astype(np.float64), images.astype(np.float64))
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


def _confidence(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    greatest: npt.NDArray[np.float64] = 1 / np.exp(shifted).sum(1)
    return greatest
