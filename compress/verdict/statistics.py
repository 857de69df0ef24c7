"""Intervals for what a gate judges: paired accuracy differences and interleaved latency ratios."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

# By how much the logarithm of the ratio of two networks' speeds differs from one occasion to the next on one machine,
# beyond what sessions of one occasion show, as its clocks and its neighbours are others: see `make bench-verdicts`.
OCCASION_SD = 0.01
TINY = 1e-30


@dataclass(frozen=True)
class Estimate:
    """A value with its interval: with the confidence asked for, the truth is above low; and so below high."""

    value: float
    low: float
    high: float


def changes(baseline: npt.ArrayLike, candidate: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[int, int]:
    """Return how many right answers were lost and how many won; predicted classes and labels, (N,) each."""
    right, still_right = (np.asarray(predicted) == np.asarray(labels) for predicted in (baseline, candidate))
    return int(np.sum(right & ~still_right)), int(np.sum(~right & still_right))


def top1_drop_pp(
    baseline: npt.ArrayLike, candidate: npt.ArrayLike, labels: npt.ArrayLike, confidence: float
) -> Estimate:
    """Estimate by how many percentage points the candidate's top-1 is below the baseline's, paired by image.

    baseline, candidate: predicted classes (N,); labels: (N,). One-sided score bounds of Tango (Statistics in Medicine
    17, 1998, equation 10), which keep their level where nearly all changes are losses.
    """
    (lost, won), images = changes(baseline, candidate, labels), len(np.asarray(labels))
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


def agreement(baseline: npt.ArrayLike, candidate: npt.ArrayLike, confidence: float) -> Estimate:
    """Estimate the share of images that get the same answer from both; predicted classes (N,).

    One-sided bounds of Jeffreys' interval (Brown, Cai and DasGupta, Statistical Science 16, 2001, section 4.1.2).
    """
    from scipy.stats import beta

    answers, others = np.asarray(baseline), np.asarray(candidate)
    images, same = len(answers), int(np.sum(answers == others))
    low = 0.0 if same == 0 else float(beta.ppf(1 - confidence, same + 0.5, images - same + 0.5))
    high = 1.0 if same == images else float(beta.ppf(confidence, same + 0.5, images - same + 0.5))
    return Estimate(same / images, low, high)


def speedup(baseline_ms: npt.ArrayLike, candidate_ms: npt.ArrayLike, confidence: float, sessions: int = 1) -> Estimate:
    """Estimate baseline p50 / candidate p50 from interleaved runs, each (blocks, runs) in milliseconds.

    The trimmed mean of the logarithms of the sessions' ratios with Yuen's bounds (Biometrika 61, 1974), which bursts in
    a few sessions don't spoil. Runs of one session are alike, and so are those of one block, so that only sessions are
    independent of each other (Kalibera and Jones, ISMM 2013). sessions: into which the blocks are divided; with one,
    blocks are taken for sessions.
    """
    mean, variance, freedom = _trimmed(_log_ratios(baseline_ms, candidate_ms, sessions))
    return _exponential(mean, variance, freedom, confidence)


def ratio_of_speedups(
    before: tuple[npt.ArrayLike, npt.ArrayLike],
    after: tuple[npt.ArrayLike, npt.ArrayLike],
    confidence: float,
    sessions: tuple[int, int] = (1, 1),
) -> Estimate:
    """Estimate how much slower an artifact became against a reference, which was interleaved with it both times.

    before, after: milliseconds of (reference, artifact), each (blocks, runs); sessions: of each. Above 1: slower. What
    the machine did to both in one session cancels. Bounds as in `speedup`, of two samples (Welch, Biometrika 34, 1947),
    and wider by what the ratio of two networks is known to differ between two occasions, of which each sample is one.
    """
    new, old = (_log_ratios(artifact, reference, count)
                for (reference, artifact), count in ((after, sessions[1]), (before, sessions[0])))  # fmt: skip
    (slower, *of_new), (faster, *of_old) = _trimmed(new), _trimmed(old)
    variance = of_new[0] + of_old[0] + 2 * OCCASION_SD**2
    freedom = variance**2 / max(sum(part**2 / free for part, free in (of_new, of_old)), TINY)
    return _exponential(slower - faster, variance, freedom, confidence)


def _log_ratios(above_ms: npt.ArrayLike, below_ms: npt.ArrayLike, sessions: int) -> npt.NDArray[np.float64]:
    """Return the logarithm of the ratio of medians in each block, or its median over each session's blocks.

    Runs of one block are neighbours in time, so that what the machine did to both cancels; a burst spoils few blocks.
    """
    above, below = (np.median(np.asarray(runs, np.float64), axis=1) for runs in (above_ms, below_ms))
    of_blocks = np.log(above / below)
    if sessions <= 1:
        return of_blocks
    return np.asarray([np.median(part) for part in np.array_split(of_blocks, min(sessions, len(of_blocks)))])


def _trimmed(logs: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean without the fifth at each end, its variance, and the degrees of freedom that this has.

    Yuen's: the winsorized variance; with fewer than five values nothing is trimmed and they are Student's.
    """
    ordered, cut = np.sort(logs), len(logs) // 5
    kept = ordered[cut : len(ordered) - cut]
    squares = (len(logs) - 1) * float(np.var(np.clip(ordered, kept[0], kept[-1]), ddof=1))
    return float(np.mean(kept)), squares / (len(kept) * (len(kept) - 1)), len(kept) - 1


def _exponential(mean: float, variance: float, freedom: float, confidence: float) -> Estimate:
    from scipy.stats import t

    reach = float(t.ppf(confidence, freedom)) * math.sqrt(variance)
    return Estimate(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


def images_to_settle(drop_pp: Estimate, images: int, limit_pp: float, confidence: float) -> int | None:
    """Return how many images like these would show on which side of a limit a paired drop is; None if on it.

    The interval shrinks with the square root of their number (normal approximation of `top1_drop_pp`'s bounds); what
    was estimated is taken for the truth, so that half of such sets settle it.
    """
    distance = abs(drop_pp.value - limit_pp)
    reach = (drop_pp.high - drop_pp.low) / 2
    if distance < 1e-9 or not 0.5 < confidence < 1:
        return None
    return max(images, math.ceil(images * (reach / distance) ** 2))


def mcnemar(lost: int, won: int) -> float:
    """Return the exact one-sided probability of so many losses among the changed answers if there is no true drop.

    McNemar (Psychometrika 12, 1947): losses are binomial with 1/2 among lost + won.
    """
    changed = lost + won
    return float(sum(math.comb(changed, count) for count in range(lost, changed + 1)) / 2**changed)


def holm(probabilities: list[float]) -> list[float]:
    """Return probabilities corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    order = sorted(range(len(probabilities)), key=lambda index: probabilities[index])
    corrected, highest = [1.0] * len(probabilities), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * probabilities[index]))
        corrected[index] = highest
    return corrected
