"""Statistics of each channel of a tensor over the calibration images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from compress.quantization.ort_graph import visit_tensors
from runtimes.console import Console
from runtimes.evalset import EvalSet

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Channels:
    """Smallest, largest and mean value of each channel, float64 (C,).

    usual: greatest absolute value in the averaged images, which may be fewer than those of `low` and `high`.
    """

    low: Float64
    high: Float64
    mean: Float64
    usual: Float64

    def joined(self, other: Channels) -> Channels:
        """Return the statistics of both together; `mean` holds parts of a weighted sum."""
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Channels(low, high, self.mean + other.mean, np.maximum(self.usual, other.usual))

    @property
    def reach(self) -> Float64:
        """Return the greatest absolute value of each channel in all images."""
        return np.maximum(-self.low, self.high)


def channel_statistics(
    model: onnx.ModelProto,
    tensors: list[str],
    images: EvalSet,
    console: Console,
    averaged: npt.NDArray[np.int64] | None = None,
) -> dict[str, Channels]:
    """Return the statistics of axis 1 of float tensors (N, C, …) over all images, in constant memory.

    averaged: indices of the images of `mean` and `usual`; None for all.
    """
    known: dict[str, Channels] = {}
    share = np.full(len(images), 1 / len(images))  # of each image in the mean
    if averaged is not None:
        share = np.isin(np.arange(len(images)), averaged) / len(averaged)

    def add(name: str, values: npt.NDArray[np.float32], indices: range) -> None:
        channels = _reduce(values, share[indices.start : indices.stop])
        known[name] = known[name].joined(channels) if name in known else channels

    visit_tensors(model, tensors, images, add, lambda done: console.progress("channel statistics", done, len(images)))
    return known


def by_channel(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (N, C, …) as (N, C, P); values with fewer than two axes are one channel."""
    return values.reshape(*values.shape[:2], -1) if values.ndim > 1 else values.reshape(-1, 1, 1)


def _reduce(values: npt.NDArray[np.float32], share: Float64) -> Channels:
    """Return the statistics of the channels of (N, C, …), with the mean as a sum weighted by the images' shares.

    share: (images,); values whose first axis is not the batch are of one image.
    """
    flat = by_channel(values)
    lows, highs, means = flat.min(axis=2), flat.max(axis=2), flat.mean(axis=2, dtype=np.float32)
    if len(means) != len(share):
        lows, highs, means = lows.min(0)[None], highs.max(0)[None], means.mean(0, dtype=np.float64)[None]
    reaches = np.where(share[:, None] > 0, np.maximum(-lows, highs), 0.0)
    low, high, usual = (values.astype(np.float64) for values in (lows.min(0), highs.max(0), reaches.max(0)))
    return Channels(low, high, share @ means, usual)
