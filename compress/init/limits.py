"""Choose a gate that the test images can decide."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.verdict import metrics, statistics
from compress.verdict.metrics import Metric

Labels = npt.NDArray[np.int64]

CONFIDENCE = 0.95
MARGIN = 0.1  # above chance
# Shares of predictions that compression may turn from right to wrong and back, without a fault.
CHANGES = {"quantize": (0.02, 0.01), "prune": (0.05, 0.04)}
DROPS_PP = (1, 2, 3, 5, 10)
AGREEMENTS = (0.99, 0.98, 0.95, 0.9, 0.8, 0.7)
CLASS_RISK = 0.05  # that a class loses half of its images by chance alone
GROWTH, MOST_IMAGES = 1.1, 100_000


@dataclass(frozen=True)
class Choice:
    """A gate. section: of the recipe. comments: for it. warnings: limits that can't be judged. One line each."""

    section: dict[str, Any]  # Any: the values of the section `gate` of a recipe
    comments: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def choose(
    labels: Labels | None, images: int, classes: int, metric: Metric, method: str, test_share: float | None
) -> Choice:
    """Return the limits that these test images can decide, if the network does what it should.

    labels: sorted, of the test images, None if any is unknown. method: of CHANGES. test_share: of the images that
    become test images, None if they have their own folder.
    """
    if labels is None:
        return _without_labels(images, method)
    chance = 1 / classes if metric == "balanced_accuracy" else float(np.bincount(labels).max() / len(labels))
    least, drops = _least_accuracy(labels, chance, metric), _drop_limit(labels, metric, method)
    section: dict[str, Any] = {"metric": metric} if metric != "top1" else {}
    comments, warnings = [], []
    if least is not None:
        section["min_accuracy"] = least
        comments.append(f"min_accuracy: of the INT8 file; guessing reaches {chance:.2f}")
    else:
        needed = _images_for(lambda scaled: _least_accuracy(scaled, chance, metric) is not None, labels)
        warnings.append(_too_few("that the network is better than chance", images, needed, test_share))
    if drops is not None:
        section["max_drop_pp"] = drops
        comments.append(f"max_drop_pp: loss against float32 in percentage points; {images} test images decide {drops}")
    else:
        needed = _images_for(lambda scaled: _drop_limit(scaled, metric, method) is not None, labels)
        warnings.append(_too_few("how much accuracy compression costs", images, needed, test_share))
    return Choice(section, tuple(comments), tuple(warnings))


def _without_labels(images: int, method: str) -> Choice:
    changed = math.ceil(images * sum(CHANGES[method]))
    after = np.arange(images) < changed
    low = statistics.agreement(np.zeros(images), after, CONFIDENCE).low
    limit = next((limit for limit in AGREEMENTS if limit <= low), None)
    if limit is None:
        return Choice({}, warnings=(_too_few("how many predictions change", images, None, None),))
    comment = "min_agreement: share of test images with float32's prediction; they have no labels"
    return Choice({"min_agreement": limit}, (comment,))


def _least_accuracy(labels: Labels, chance: float, metric: Metric) -> float | None:
    """Return chance and the margin, if a network halfway between chance and perfection can be shown to reach it."""
    limit = math.ceil(100 * (chance + MARGIN) - 1e-9) / 100
    predicted = np.where(_every(len(labels), (1 - chance) / 2), labels + 1, labels)
    return limit if metrics.estimate(metric, predicted, labels, CONFIDENCE).low >= limit else None


def _drop_limit(labels: Labels, metric: Metric, method: str) -> int | None:
    """Return the smallest drop that can be told from the usual changes of predictions."""
    lost, gained = CHANGES[method]
    if _class_risk(labels, lost) > CLASS_RISK:
        return None
    is_lost = _every(len(labels), lost)
    is_gained = _every(len(labels), gained, 0.25) & ~is_lost
    before, after = (np.where(wrong, labels + 1, labels) for wrong in (is_gained, is_lost))
    high = metrics.drop_pp(metric, before, after, labels, CONFIDENCE).high
    return next((limit for limit in DROPS_PP if limit >= high), None)


def _class_risk(labels: Labels, lost: float) -> float:
    """Return the probability that a class loses half of its test images, which makes a gate inconclusive."""
    from scipy.stats import binom

    counts = np.bincount(labels)
    counts = counts[counts > 0]
    halves = np.where(counts == 1, 1, np.maximum(2, np.ceil(counts / 2)))
    return float(1 - np.prod(1 - binom.sf(halves - 1, counts, lost)))


def _every(count: int, share: float, offset: float = 0.75) -> npt.NDArray[np.bool_]:
    """Return a mask of `count` with an evenly spread share of True."""
    steps = np.floor(np.arange(count + 1) * share + offset)
    mask: npt.NDArray[np.bool_] = steps[1:] > steps[:-1]
    return mask


def _images_for(is_decided: Callable[[Labels], bool], labels: Labels) -> int | None:
    """Return about how many test images with the same classes would be enough."""
    counts, factor = np.bincount(labels), 1.0
    while factor * len(labels) < MOST_IMAGES:
        factor *= GROWTH
        scaled = np.repeat(np.arange(len(counts)), np.ceil(counts * factor).astype(int))
        if is_decided(scaled):
            return len(scaled)
    return None


def _too_few(what: str, images: int, needed: int | None, test_share: float | None) -> str:
    line = f"{images} test images are too few to show {what}; the recipe has no limit on it"
    if needed is None:
        return line
    in_all = f" (of {math.ceil(needed / test_share)} images in all)" if test_share else ""
    return f"{line}; about {needed} test images{in_all} would be enough"
