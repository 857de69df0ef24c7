"""Intervals for what a gate judges: paired accuracy differences and interleaved latency ratios."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value with its interval: with the confidence asked for, the truth is above low; and so below high."""

    value: float
    low: float
    high: float


def top1_drop_pp(
    baseline: npt.ArrayLike, candidate: npt.ArrayLike, labels: npt.ArrayLike, confidence: float
) -> Estimate:
    """Estimate by how many percentage points the candidate's top-1 is below the baseline's, paired by image.

    baseline, candidate: predicted classes (N,); labels: (N,). One-sided score bounds of Tango (Statistics in Medicine
    17, 1998, equation 10), which keep their level where nearly all changes are losses.
    """
    right, still_right = (np.asarray(predicted) == np.asarray(labels) for predicted in (baseline, candidate))
    lost, won, images = int(np.sum(right & ~still_right)), int(np.sum(~right & still_right)), len(right)
    reach = NormalDist().inv_cdf(confidence)
    low, high = (_score_bound(lost, won, images, side) for side in (reach, -reach))
    return Estimate(100 * (lost - won) / images, 100 * low, 100 * high)


def _score_bound(lost: int, won: int, images: int, score: float) -> float:
    """Return the difference of proportions whose score statistic is `score`; it falls as the difference grows."""
    below, above = -1.0, 1.0
    for _ in range(60):
        middle = (below + above) / 2
        below, above = (middle, above) if _score(lost, won, images, middle) > score else (below, middle)
    return (below + above) / 2


def _score(lost: int, won: int, images: int, difference: float) -> float:
    """Return Tango's score statistic, with the restricted maximum likelihood estimate of the share of wins."""
    linear = -lost - won + (2 * images - lost + won) * difference
    constant = -won * difference * (1 - difference)
    wins = (math.sqrt(max(0.0, linear**2 - 8 * images * constant)) - linear) / (4 * images)
    variance = images * (2 * wins + difference * (1 - difference))
    distance = lost - won - images * difference
    if variance > 0:
        return distance / math.sqrt(variance)
    return 0.0 if distance == 0 else math.copysign(math.inf, distance)


def speedup(baseline_ms: npt.ArrayLike, candidate_ms: npt.ArrayLike, confidence: float) -> Estimate:
    """Estimate baseline p50 / candidate p50 from interleaved runs, each (blocks, runs) in milliseconds.

    One-sided percentile bounds of the bootstrap over pairs of blocks (Efron and Tibshirani, 1993, chapters 8 and 13),
    because runs of one block are alike and both artifacts' blocks are neighbours in time; seeded.
    """
    slow, fast = np.asarray(baseline_ms, np.float64), np.asarray(candidate_ms, np.float64)
    drawn = np.random.default_rng(0).integers(0, len(slow), (RESAMPLES, len(slow)))
    ratios = np.asarray([np.median(slow[blocks]) / np.median(fast[blocks]) for blocks in drawn])
    low, high = np.quantile(ratios, [1 - confidence, confidence])
    return Estimate(float(np.median(slow) / np.median(fast)), float(low), float(high))
