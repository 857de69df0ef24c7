"""Histograms of a tensor's values in fixed memory, and the ranges that three methods read from them.

A range clips the values outside it so that 8 bits resolve the values inside it more finely. Every method takes the
values of a bin to be spread evenly over it. Zero costs nothing in any range, because quantization represents it
exactly; so the zeros that ReLU leaves, often most of a tensor, must not decide: the bin around zero is held to its
neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 2048  # 8 to a step of uint8; the count that Migacz and TensorRT use
CHUNK = 1 << 16  # values binned at once: temporaries stay in the processor's cache, whatever the tensor's size
EMPTY = 1e-4  # count that stands for none where a logarithm needs one, as in ONNX Runtime and MXNet
STEPS = 255  # from the least to the greatest uint8

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass
class Histogram:
    """Counts of values in BINS equal bins from `low` to `high`, the least and greatest of them, low < high.

    magnitudes: count |value| instead.
    """

    low: float
    high: float
    magnitudes: bool = False
    counts: Int64 = field(default_factory=lambda: np.zeros(BINS, np.int64))

    @property
    def edges(self) -> Float64:
        """Return the bins' float64 (BINS + 1,) edges, in the tensor's unit."""
        return np.linspace(self.low, self.high, BINS + 1)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Count a C-contiguous array of any shape and floating-point type."""
        flat = values.reshape(-1)
        scale = BINS / (self.high - self.low)
        for start in range(0, flat.size, CHUNK):
            piece = flat[start : start + CHUNK]
            if self.magnitudes:
                piece = np.abs(piece)
            # float64, in which neither the widest float32 range overflows nor the narrowest one's scale
            position = np.subtract(piece, self.low, dtype=np.float64)
            position *= scale
            found = np.bincount(position.astype(np.int32), minlength=BINS + 1)
            self.counts += found[:BINS]
            self.counts[-1] += found[BINS]  # the greatest value is the last bin's upper edge

    def counts_beside_zero(self) -> Float64:
        """Return float64 (BINS,) counts, of which that of zero's bin is at most that of the fuller neighbour."""
        counts = self.counts.astype(np.float64)
        if self.low <= 0 <= self.high:
            zero = min(int(-self.low * BINS / (self.high - self.low)), BINS - 1)
            around = counts[max(zero - 1, 0) : zero + 2].copy()
            around[min(zero, 1)] = 0
            counts[zero] = min(counts[zero], around.max())
        return counts


def percentile_range(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """Return a range with `percentile` % of the values inside, in the tensor's unit.

    As many are cut from below as from above; where no value is negative (or positive), all are cut from the other end.
    """
    total = int(histogram.counts.sum())
    outside = round(total * (1 - percentile / 100), 6)  # 1 of 1000, and not 0.9999999999998899, is outside 99.9 %
    below = 0.0 if histogram.low >= 0 else outside if histogram.high <= 0 else outside / 2
    return (
        _cut(histogram.counts, histogram.edges, below),
        _cut(histogram.counts[::-1], histogram.edges[::-1], outside - below),
    )


def _cut(counts: Int64, edges: Float64, count: float) -> float:
    """Return where `count` values lie before; in a gap, its far end. The first bin is filled, so 0 cuts nothing."""
    return float(np.interp(count, _sums(counts), edges))


def entropy_threshold(histogram: Histogram, levels: int) -> float:
    """Return the threshold of |value|, in the tensor's unit, whose quantized distribution diverges least from the true.

    histogram: of magnitudes from 0. levels: that a magnitude can have, 256 for a tensor without negative values and 128
    for one with them, whose levels serve both signs. The threshold is at least `levels` bins. Where several are equally
    good it is the greatest.

    Source: Migacz, 8-bit Inference with TensorRT, GTC 2017, pseudo-code of entropy calibration: for each count i of
    bins from `levels` to BINS, P is the first i bins with all that is clipped added to the last; Q is the first i bins
    without the clipped ones, merged into `levels` and spread again over those bins that P fills; the least KL(P || Q)
    wins. Bins are merged as evenly as i allows, as in NVIDIA's pytorch-quantization.
    """
    counts = histogram.counts_beside_zero()
    ends = np.arange(levels, BINS + 1)
    filled = counts > 0
    borders = ends[:, None] * np.arange(levels + 1) // levels  # of the levels of each candidate, in bins
    mass = np.diff(_sums(counts)[borders], axis=1)
    sharing = np.diff(_sums(filled)[borders], axis=1)
    inside = _sums(counts)[ends]
    clipped = counts.sum() - inside
    last = counts[ends - 1]
    # P's last bin is filled by what is clipped even where the tensor's is empty, and then shares its level in Q too.
    sharing[:, -1] += (last == 0) & (clipped > 0)
    spread = mass / np.maximum(sharing, 1)
    spread[:, -1] = np.maximum(spread[:, -1], EMPTY)
    # KL(P || Q) = sum P ln P - sum P ln Q. Q is constant in a level, so sums over bins are sums over levels: `total`
    # stands for P's sum, `inside` for Q's, by which both are to be divided.
    total = counts.sum()
    p_ln_p = _sums(_x_ln_x(counts))[ends] - _x_ln_x(last) + _x_ln_x(last + clipped)
    p_ln_q = np.sum(mass * np.log(np.where(mass > 0, spread, 1)), axis=1) + clipped * np.log(spread[:, -1])
    with np.errstate(divide="ignore"):  # ln 0 where everything is clipped, which is told to be infinitely bad
        divergence = np.where(inside > 0, (p_ln_p - p_ln_q) / total + np.log(inside / total), np.inf)
    best = np.flatnonzero(divergence <= divergence.min() + 1e-12)[-1]
    return float(histogram.edges[ends[best]])


def _sums(counts: npt.NDArray[Any]) -> Float64:
    """Return the sums of the first 0, 1, ... counts."""
    return np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])


def _x_ln_x(counts: Float64) -> Float64:
    return np.asarray(counts * np.log(np.maximum(counts, 1)), np.float64)


def mse_range(histogram: Histogram) -> tuple[float, float]:
    """Return the range, holding 0, whose uint8 quantization has the least squared error; in the tensor's unit.

    Each end is searched from 1/32 of the tensor's to all of it: first in sixteenths, then twice around the best in
    steps a quarter as wide. No range found is worse than the tensor's own.

    Source: the idea of Banner et al., Post-training 4-bit quantization of convolution networks, NeurIPS 2019, and
    Choukroun et al., Low-bit Quantization of Neural Networks for Efficient Inference, ICCV Workshops 2019, for the
    histogram that was counted instead of an assumed distribution.
    """
    least, greatest = min(histogram.low, 0.0), max(histogram.high, 0.0)
    counts, edges = histogram.counts_beside_zero(), histogram.edges
    best = np.array([1.0, 1.0])
    step = 1 / 16
    offsets = np.arange(-15, 1) * step  # as many as reach from 1 to 1/16
    for _ in range(3):
        lows, highs = (np.unique(np.clip(part + offsets, 1 / 32, 1)) * end if end else np.zeros(1)
                       for part, end in zip(best, (least, greatest), strict=True))  # fmt: skip
        candidates = np.stack(np.meshgrid(lows, highs), axis=-1).reshape(-1, 2)
        low, high = candidates[np.argmin(squared_error(counts, edges, candidates))]
        best = np.array([low / least if least else 1.0, high / greatest if greatest else 1.0])
        step /= 4
        offsets = np.arange(-4, 5) * step
    return float(low), float(high)


def squared_error(counts: Float64, edges: Float64, ranges: Float64) -> Float64:
    """Return the summed squared error of uint8 quantization with each range, float64 (ranges,), the unit squared.

    counts: (bins,); edges: (bins + 1,); ranges: (ranges, 2), low <= 0 <= high. Scale s and zero point z are those of
    Jacob et al. 2018, equation 1: a value x becomes n s with n = round(x / s) clipped to -z ... 255 - z. Over evenly
    spread values the squared error integrates from 0 to x to n s^3 / 12 + (x - n s)^3 / 3: n whole steps and the rest,
    which is more than half a step where x is clipped.
    """
    low, high = ranges[:, :1], ranges[:, 1:]
    scale = (high - low) / STEPS
    zero_point = np.rint(-low / scale)
    steps = np.clip(np.rint(edges / scale), -zero_point, STEPS - zero_point)
    rest = edges - steps * scale
    integral = steps * (scale**3 / 12) + rest * rest * rest / 3
    return np.asarray(np.diff(integral, axis=1) @ (counts / np.diff(edges)), np.float64)
