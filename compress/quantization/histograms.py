"""Histograms of a tensor's values in constant memory, and ranges chosen from them by percentile, entropy or MSE.

A range clips the values outside it, so that 8 bits resolve the values inside more finely. All methods assume that the
values of a bin are spread evenly over it. Quantization represents zero exactly in any range, so the zeros after ReLU,
often most of a tensor, must not influence the choice: the count of the bin around zero is limited by its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 2048  # 8 per step of uint8, as in Migacz and TensorRT
CHUNK = 1 << 16  # values binned at once, so that temporaries fit into the processor's cache
EMPTY = 1e-4  # replaces a count of zero in logarithms, as in ONNX Runtime and MXNet
STEPS = 255  # of uint8

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass
class Histogram:
    """Counts of values in BINS equal bins between the smallest and the largest value, low < high.

    magnitudes: count |value| instead.
    """

    low: float
    high: float
    magnitudes: bool = False
    counts: Int64 = field(default_factory=lambda: np.zeros(BINS, np.int64))

    @property
    def edges(self) -> Float64:
        """Return the edges of the bins, float64 (BINS + 1,), in the tensor's unit."""
        return np.linspace(self.low, self.high, BINS + 1)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Add the values of a C-contiguous array of any shape and floating-point type."""
        flat = values.reshape(-1)
        scale = BINS / (self.high - self.low)
        for start in range(0, flat.size, CHUNK):
            piece = flat[start : start + CHUNK]
            if self.magnitudes:
                piece = np.abs(piece)
            # float64: differences of float32 extremes and scales of tiny ranges do not overflow
            position = np.subtract(piece, self.low, dtype=np.float64)
            position *= scale
            counts = np.bincount(position.astype(np.int32), minlength=BINS + 1)
            self.counts += counts[:BINS]
            self.counts[-1] += counts[BINS]  # the largest value is the upper edge of the last bin

    def counts_beside_zero(self) -> Float64:
        """Return the counts, float64 (BINS,), with the bin around zero limited to its larger neighbour."""
        counts = self.counts.astype(np.float64)
        if self.low <= 0 <= self.high:
            zero = min(int(-self.low * BINS / (self.high - self.low)), BINS - 1)
            around = counts[max(zero - 1, 0) : zero + 2].copy()
            around[min(zero, 1)] = 0
            counts[zero] = min(counts[zero], around.max())
        return counts


def percentile_range(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """Return the range with `percentile` % of the values inside, in the tensor's unit.

    Equally many values are outside at both ends; if no value is negative (or positive), all are outside at the other.
    """
    total = int(histogram.counts.sum())
    outside = round(total * (1 - percentile / 100), 6)  # 99.9 % of 1000 leaves 1, not 0.9999999999998899
    below = 0.0 if histogram.low >= 0 else outside if histogram.high <= 0 else outside / 2
    return (
        _cut(histogram.counts, histogram.edges, below),
        _cut(histogram.counts[::-1], histogram.edges[::-1], outside - below),
    )


def _cut(counts: Int64, edges: Float64, count: float) -> float:
    """Return the position with `count` values before it, in a gap its far end; 0 gives the first edge."""
    return float(np.interp(count, _sums(counts), edges))


def entropy_threshold(histogram: Histogram, levels: int) -> float:
    """Return the threshold of |value| with the smallest KL divergence after quantization, in the tensor's unit.

    histogram: of magnitudes, from 0. levels: quantized magnitudes, 256 for a tensor of one sign and 128 for one of both
    signs. The threshold is at least `levels` bins; among equally good thresholds, the largest is returned.

    Source: Migacz, 8-bit Inference with TensorRT, GTC 2017, pseudo-code of entropy calibration. For each number i of
    bins from `levels` to BINS, P is the first i bins with all clipped values added to the last one; Q is the first i
    bins without the clipped values, merged into `levels` groups and spread over the nonempty bins of P; the i with the
    smallest KL(P || Q) is chosen. Groups are as equal as i allows, as in NVIDIA's pytorch-quantization.
    """
    counts = histogram.counts_beside_zero()
    ends = np.arange(levels, BINS + 1)
    filled = counts > 0
    borders = ends[:, None] * np.arange(levels + 1) // levels  # of each candidate's levels, in bins
    mass = np.diff(_sums(counts)[borders], axis=1)
    sharing = np.diff(_sums(filled)[borders], axis=1)
    inside = _sums(counts)[ends]
    clipped = counts.sum() - inside
    last = counts[ends - 1]
    # Clipped values make the last bin of P nonempty even if the tensor's bin is empty; it then shares its level in Q.
    sharing[:, -1] += (last == 0) & (clipped > 0)
    spread = mass / np.maximum(sharing, 1)
    spread[:, -1] = np.maximum(spread[:, -1], EMPTY)
    # KL(P || Q) = sum P ln P - sum P ln Q. Q is constant within a level, so sums over bins become sums over levels.
    # P is normalized by `total`, Q by `inside`.
    total = counts.sum()
    p_ln_p = _sums(_x_ln_x(counts))[ends] - _x_ln_x(last) + _x_ln_x(last + clipped)
    p_ln_q = np.sum(mass * np.log(np.where(mass > 0, spread, 1)), axis=1) + clipped * np.log(spread[:, -1])
    with np.errstate(divide="ignore"):  # ln 0 if everything is clipped: infinite divergence
        divergence = np.where(inside > 0, (p_ln_p - p_ln_q) / total + np.log(inside / total), np.inf)
    best = np.flatnonzero(divergence <= divergence.min() + 1e-12)[-1]
    return float(histogram.edges[ends[best]])


def _sums(counts: npt.NDArray[Any]) -> Float64:
    """Return the sums of the first 0, 1, … counts."""
    return np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])


def _x_ln_x(counts: Float64) -> Float64:
    return np.asarray(counts * np.log(np.maximum(counts, 1)), np.float64)


def mse_range(histogram: Histogram) -> tuple[float, float]:
    """Return the range including 0 with the smallest squared error of uint8 quantization, in the tensor's unit.

    Each end is searched between 1/32 of the tensor's end and all of it: first in steps of 1/16, then twice around the
    best value in steps a quarter as wide. The result is never worse than the tensor's full range.

    Source: Banner et al., Post-training 4-bit quantization of convolution networks, NeurIPS 2019, and Choukroun et al.,
    Low-bit Quantization of Neural Networks for Efficient Inference, ICCV Workshops 2019, with the counted histogram in
    place of an assumed distribution.
    """
    smallest, largest = min(histogram.low, 0.0), max(histogram.high, 0.0)
    counts, edges = histogram.counts_beside_zero(), histogram.edges
    best = np.array([1.0, 1.0])
    step = 1 / 16
    offsets = np.arange(-15, 1) * step  # from 1 down to 1/16
    for _ in range(3):
        lows, highs = (np.unique(np.clip(part + offsets, 1 / 32, 1)) * end if end else np.zeros(1)
                       for part, end in zip(best, (smallest, largest), strict=True))  # fmt: skip
        candidates = np.stack(np.meshgrid(lows, highs), axis=-1).reshape(-1, 2)
        low, high = candidates[np.argmin(squared_error(counts, edges, candidates))]
        best = np.array([low / smallest if smallest else 1.0, high / largest if largest else 1.0])
        step /= 4
        offsets = np.arange(-4, 5) * step
    return float(low), float(high)


def squared_error(counts: Float64, edges: Float64, ranges: Float64) -> Float64:
    """Return the sum of squared errors of uint8 quantization for each range, float64 (ranges,), in the unit squared.

    counts: (bins,); edges: (bins + 1,); ranges: (ranges, 2) with low <= 0 <= high. Scale s and zero point z are those
    of Jacob et al. 2018, equation 1: a value x becomes n s with n = round(x / s) clipped to -z … 255 - z. For evenly
    spread values, the squared error integrated from 0 to x is n s^3 / 12 + (x - n s)^3 / 3: n whole steps and the
    remainder, which exceeds half a step for clipped values.
    """
    low, high = ranges[:, :1], ranges[:, 1:]
    scale = (high - low) / STEPS
    zero_point = np.rint(-low / scale)
    steps = np.clip(np.rint(edges / scale), -zero_point, STEPS - zero_point)
    rest = edges - steps * scale
    integral = steps * (scale**3 / 12) + rest * rest * rest / 3
    return np.asarray(np.diff(integral, axis=1) @ (counts / np.diff(edges)), np.float64)
