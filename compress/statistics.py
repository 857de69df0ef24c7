"""Intervals for what a gate judges: paired accuracy differences and interleaved latency ratios."""

from __future__ import annotations

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

    baseline, candidate: predicted classes (N,); labels: (N,). One-sided bounds of Agresti and Min (Statistics in
    Medicine 24, 2005, section 2.3): the Wald interval after half a count is added to each cell of the paired table.
    """
    right, still_right = (np.asarray(predicted) == np.asarray(labels) for predicted in (baseline, candidate))
    lost, won, images = int(np.sum(right & ~still_right)), int(np.sum(~right & still_right)), len(right)
    adjusted = images + 2
    middle = (lost - won) / adjusted
    spread = ((lost + won + 1) - (lost - won) ** 2 / adjusted) ** 0.5 / adjusted
    reach = NormalDist().inv_cdf(confidence) * spread
    return Estimate(100 * (lost - won) / images, 100 * (middle - reach), 100 * (middle + reach))


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
