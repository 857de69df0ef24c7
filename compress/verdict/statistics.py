"""Confidence bounds for paired accuracy differences and for ratios of interleaved latencies."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

# Standard deviation of the logarithm of the latency ratio of two networks between two measurements on one machine, in
# addition to the spread between the sessions of one measurement. Source: `make bench-verdicts`.
OCCASION_SD = 0.01
TINY = 1e-30


@dataclass(frozen=True)
class Estimate:
    """A value; `low` and `high` are one-sided confidence bounds."""

    value: float
    low: float
    high: float


def changes(baseline: npt.ArrayLike, candidate: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[int, int]:
    """Return how many predictions became wrong and how many became right; predicted classes and labels, (N,) each."""
    right_before, right_after = (np.asarray(predicted) == np.asarray(labels) for predicted in (baseline, candidate))
    return int(np.sum(right_before & ~right_after)), int(np.sum(~right_before & right_after))


def top1_drop_pp(
    baseline: npt.ArrayLike, candidate: npt.ArrayLike, labels: npt.ArrayLike, confidence: float
) -> Estimate:
    """Estimate by how many percentage points the candidate's top-1 is below the baseline's, paired by image.

    baseline, candidate: predicted classes (N,); labels: (N,).
    """
    return drop_pp(*changes(baseline, candidate, labels), len(np.asarray(labels)), confidence)


@functools.lru_cache(maxsize=4096)
def drop_pp(lost: int, gained: int, images: int, confidence: float) -> Estimate:
    """Estimate by how many percentage points the share of right predictions fell, from the changed predictions.

    One-sided score bounds of Tango (Statistics in Medicine 17, 1998, equation 10), which keep their coverage if nearly
    all changes are losses.
    """
    quantile = NormalDist().inv_cdf(confidence)
    low, high = (_score_bound(lost, gained, images, score) for score in (quantile, -quantile))
    return Estimate(100 * (lost - gained) / images, 100 * low, 100 * high)


def _score_bound(lost: int, gained: int, images: int, score: float) -> float:
    """Return the difference of proportions whose score statistic is `score`.

    Found by bisection, since the statistic decreases as the difference grows.
    """
    below, above = -1.0, 1.0
    for _ in range(60):
        middle = (below + above) / 2
        below, above = (middle, above) if _score(lost, gained, images, middle) > score else (below, middle)
    return (below + above) / 2


def _score(lost: int, gained: int, images: int, difference: float) -> float:
    """Return Tango's score statistic, with the restricted maximum likelihood estimate of the share of gains."""
    linear = -lost - gained + (2 * images - lost + gained) * difference
    constant = -gained * difference * (1 - difference)
    gains = (math.sqrt(max(0.0, linear**2 - 8 * images * constant)) - linear) / (4 * images)
    variance = images * (2 * gains + difference * (1 - difference))
    distance = lost - gained - images * difference
    if variance > 0:
        return distance / math.sqrt(variance)
    return 0.0 if distance == 0 else math.copysign(math.inf, distance)


def agreement(baseline: npt.ArrayLike, candidate: npt.ArrayLike, confidence: float) -> Estimate:
    """Estimate the share of images with the same prediction; predicted classes (N,) each.

    One-sided bounds of Jeffreys' interval (Brown, Cai and DasGupta, Statistical Science 16, 2001, section 4.1.2).
    """
    from scipy.stats import beta

    before, after = np.asarray(baseline), np.asarray(candidate)
    images, same = len(before), int(np.sum(before == after))
    low = 0.0 if same == 0 else float(beta.ppf(1 - confidence, same + 0.5, images - same + 0.5))
    high = 1.0 if same == images else float(beta.ppf(confidence, same + 0.5, images - same + 0.5))
    return Estimate(same / images, low, high)


def speedup(baseline_ms: npt.ArrayLike, candidate_ms: npt.ArrayLike, confidence: float, sessions: int = 1) -> Estimate:
    """Estimate baseline p50 / candidate p50 from interleaved runs, each (blocks, runs) in milliseconds.

    The trimmed mean of the logarithms of the sessions' ratios with Yuen's bounds (Biometrika 61, 1974), which are
    robust to disturbances in a few sessions. Runs of one session are correlated, so only sessions count as independent
    (Kalibera and Jones, ISMM 2013). sessions: number of sessions that the blocks are divided into; with one session,
    each block counts as independent.
    """
    mean, variance, degrees_of_freedom = _trimmed(_log_ratios(baseline_ms, candidate_ms, sessions))
    return _exponential(mean, variance, degrees_of_freedom, confidence)


def slowdown(
    before: tuple[npt.ArrayLike, npt.ArrayLike],
    after: tuple[npt.ArrayLike, npt.ArrayLike],
    confidence: float,
    sessions: tuple[int, int] = (1, 1),
) -> Estimate:
    """Estimate the slowdown of an artifact relative to a reference that was interleaved with it both times.

    before, after: milliseconds of (reference, artifact), each (blocks, runs); sessions: number of sessions of each.
    Above 1 is slower. A machine-wide slowdown affects reference and artifact alike and cancels. Bounds as in `speedup`,
    for two samples (Welch, Biometrika 34, 1947), widened by `OCCASION_SD` for each of the two measurements.
    """
    (reference_before, artifact_before), (reference_after, artifact_after) = before, after
    old_mean, old_variance, old_degrees = _trimmed(_log_ratios(artifact_before, reference_before, sessions[0]))
    new_mean, new_variance, new_degrees = _trimmed(_log_ratios(artifact_after, reference_after, sessions[1]))
    variance = new_variance + old_variance + 2 * OCCASION_SD**2
    degrees_of_freedom = variance**2 / max(new_variance**2 / new_degrees + old_variance**2 / old_degrees, TINY)
    return _exponential(new_mean - old_mean, variance, degrees_of_freedom, confidence)


def latency_ms(runs_ms: npt.ArrayLike, confidence: float, sessions: int = 1) -> Estimate:
    """Estimate the median latency, to compare measurements at different times; runs_ms: (blocks, runs).

    Bounds as in `speedup`, widened by `OCCASION_SD`.
    """
    runs = np.asarray(runs_ms, np.float64)
    mean, variance, degrees = _trimmed(_log_ratios(runs, np.ones_like(runs), sessions))
    total = variance + OCCASION_SD**2
    return _exponential(mean, total, total**2 / max(variance**2 / degrees, TINY), confidence)


def _log_ratios(above_ms: npt.ArrayLike, below_ms: npt.ArrayLike, sessions: int) -> npt.NDArray[np.float64]:
    """Return the logarithm of the ratio of medians in each block, or its median over each session's blocks.

    Runs of one block follow each other closely, so that the state of the machine cancels; a short disturbance affects
    few blocks.
    """
    above, below = (np.median(np.asarray(runs, np.float64), axis=1) for runs in (above_ms, below_ms))
    per_block = np.log(above / below)
    if sessions <= 1:
        return per_block
    return np.asarray([np.median(part) for part in np.array_split(per_block, min(sessions, len(per_block)))])


def _trimmed(logs: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean trimmed by 20 % at each end, its variance and the variance's degrees of freedom.

    Yuen's method with the winsorized variance; with fewer than five values nothing is trimmed (Student's t).
    """
    ordered, cut = np.sort(logs), len(logs) // 5
    kept = ordered[cut : len(ordered) - cut]
    squares = (len(logs) - 1) * float(np.var(np.clip(ordered, kept[0], kept[-1]), ddof=1))
    return float(np.mean(kept)), squares / (len(kept) * (len(kept) - 1)), len(kept) - 1


def _exponential(mean: float, variance: float, degrees_of_freedom: float, confidence: float) -> Estimate:
    """Return the exponential of a mean of logarithms with its Student's t bounds."""
    from scipy.stats import t

    half_width = float(t.ppf(confidence, degrees_of_freedom)) * math.sqrt(variance)
    return Estimate(math.exp(mean), math.exp(mean - half_width), math.exp(mean + half_width))


def images_to_settle(drop_pp: Estimate, images: int, limit_pp: float, confidence: float) -> int | None:
    """Return about how many images are needed to tell a paired drop from a limit; None if it is exactly at the limit.

    The interval shrinks with the square root of the number of images (normal approximation of the bounds of
    `top1_drop_pp`). The estimate is taken as the true drop, so this number suffices in half of the cases.
    """
    distance = abs(drop_pp.value - limit_pp)
    half_width = (drop_pp.high - drop_pp.low) / 2
    if distance < 1e-9 or not 0.5 < confidence < 1:
        return None
    return max(images, math.ceil(images * (half_width / distance) ** 2))


def mcnemar(lost: int, gained: int) -> float:
    """Return the exact one-sided probability of at least this many losses if there is no true drop.

    McNemar (Psychometrika 12, 1947): the losses are binomial with 1/2 among lost + gained.
    """
    changed = lost + gained
    return float(sum(math.comb(changed, count) for count in range(lost, changed + 1)) / 2**changed)


def holm(probabilities: list[float]) -> list[float]:
    """Return probabilities corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    order = sorted(range(len(probabilities)), key=lambda index: probabilities[index])
    corrected, highest = [1.0] * len(probabilities), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * probabilities[index]))
        corrected[index] = highest
    return corrected


def testable(changes_per_class: list[int], significance: float) -> list[int]:
    """Return the indices of the tests that can be significant after a correction for the number of all of these.

    Tarone (Biometrics 46, 1990): McNemar's probability of n changes is at least 2^-n, so tests with few changes need
    not be counted. The choice depends on the numbers of changes only, so corrected probabilities keep their meaning.
    """
    tests = 0
    indices = list(range(len(changes_per_class)))
    while len(indices) > tests:
        tests += 1
        indices = [index for index, count in enumerate(changes_per_class) if 2.0**-count <= significance / tests]
    return indices
