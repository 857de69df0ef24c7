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
    """Smallest, largest and mean value of each channel, float64 (C,)."""

    low: Float64
    high: Float64
    mean: Float64

    @property
    def reach(self) -> Float64:
        """Return the greatest absolute value of each channel."""
        return np.maximum(-self.low, self.high)


def channel_statistics(
    model: onnx.ModelProto, tensors: list[str], images: EvalSet, console: Console
) -> dict[str, Channels]:
    """Return the statistics of axis 1 of float tensors (N, C, …) over all images, in constant memory."""
    totals: dict[str, list[Float64]] = {}

    def add(name: str, values: npt.NDArray[np.float32], indices: range) -> None:
        low, high, mean = _reduce(values)
        known = totals.setdefault(name, [low, high, np.zeros_like(mean)])
        known[0], known[1] = np.minimum(known[0], low), np.maximum(known[1], high)
        known[2] = known[2] + mean * len(indices)

    visit_tensors(model, tensors, images, add, lambda done: console.progress("channel statistics", done, len(images)))
    return {name: Channels(low, high, total / len(images)) for name, (low, high, total) in totals.items()}


def by_channel(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (N, C, …) as (N, C, P); values with fewer than two axes are one channel."""
    return values.reshape(*values.shape[:2], -1) if values.ndim > 1 else values.reshape(1, 1, -1)


def _reduce(values: npt.NDArray[np.float32]) -> tuple[Float64, Float64, Float64]:
    """Return the smallest, largest and mean value of each channel of (N, C, …)."""
    flat = by_channel(values)
    low, high = flat.min(axis=(0, 2)), flat.max(axis=(0, 2))
    return low.astype(np.float64), high.astype(np.float64), flat.mean(axis=2, dtype=np.float32).mean(0, np.float64)
