"""Classification metrics in NumPy, for training, host and board alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

TOP5_NEEDS_CLASSES = 6  # with five classes or fewer the right one is always among five


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
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]))


def _top5(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    right = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank = (logits > right).sum(1) + ((logits == right) & earlier).sum(1)  # ties as argmax breaks them
    return float(np.mean(rank < 5))


def _ratio(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
