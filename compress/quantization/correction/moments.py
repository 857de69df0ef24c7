"""Second moments of a layer's inputs, for rounding with error feedback."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from export.layers import Layer

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

# Positions sampled from each batch: 32 batches of 4 images give 8,192, or 16 for each weight of a row.
POSITIONS_PER_BATCH = 256
POSITIONS_PER_INPUT = 0.5
POSITIONS_AT_ONCE = 2048  # in one matrix product
# A matrix of more inputs takes too much memory and time. Their 32 batches give up to 512 samples.
MAX_DENSE_INPUTS = 4608  # a 3 x 3 kernel over 512 channels
POSITIONS_OF_MANY_INPUTS = 16


def second_moments(layer: Layer, batches: Iterable[Array], scale: float, zero_point: int) -> tuple[Float64, int]:
    """Return the mean of x xT (groups, K, K) over sampled positions of a layer's quantized inputs, and their number.

    batches: (N, C, H, W) integers for Conv, (N, K) for Gemm.
    """
    rng = np.random.default_rng(0)
    inputs = layer.inputs
    per_batch = max(POSITIONS_PER_BATCH, int(POSITIONS_PER_INPUT * inputs))
    moments = np.zeros((layer.groups, inputs, inputs))
    count, samples = 0, 0
    together: list[npt.NDArray[np.float32]] = []
    weight = 0.0
    for batch in batches:
        sample = _dequantized(_sample(layer, batch, zero_point, per_batch, rng), scale, zero_point)
        positions = sample.shape[1]
        count, samples = count + len(batch), samples + positions
        if together and (len(batch) / positions != weight or len(together) * positions >= POSITIONS_AT_ONCE):
            moments += weight * _products(together)
            together = []
        together.append(sample)
        weight = len(batch) / positions
    return (moments + weight * _products(together)) / count, samples


def _products(samples: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Return the sums of x xT (groups, K, K) over all samples (groups, P, K)."""
    joined = np.concatenate(samples, axis=1)
    products: npt.NDArray[np.float32] = np.matmul(joined.transpose(0, 2, 1), joined)
    return products


def input_samples(layer: Layer, batches: Iterable[Array], scale: float, zero_point: int) -> npt.NDArray[np.float32]:
    """Return a layer's quantized inputs (groups, S, K) at a few positions, for layers with too many inputs for moments.

    batches: as of `second_moments`.
    """
    rng = np.random.default_rng(0)
    samples = [_sample(layer, batch, zero_point, POSITIONS_OF_MANY_INPUTS, rng) for batch in batches]
    return _dequantized(np.concatenate(samples, axis=1), scale, zero_point)


def _dequantized(integers: Array, scale: float, zero_point: int) -> npt.NDArray[np.float32]:
    return (integers.astype(np.float32) - zero_point) * np.float32(scale)


def _sample(layer: Layer, batch: Array, zero_point: int, count: int, rng: np.random.Generator) -> Array:
    """Return the inputs (groups, P, K) of the weights at P positions: all, or `count` drawn with replacement."""
    if batch.ndim == 2:
        return batch[None]
    padded = batch
    if any(layer.pads):
        padded = np.pad(batch, ((0, 0), (0, 0), layer.pads[::2], layer.pads[1::2]), constant_values=zero_point)
    reach = [(kernel - 1) * dilation + 1 for kernel, dilation in zip(layer.kernel, layer.dilations, strict=True)]
    height = (padded.shape[2] - reach[0]) // layer.strides[0] + 1
    width = (padded.shape[3] - reach[1]) // layer.strides[1] + 1
    total = len(padded) * height * width
    positions = rng.integers(0, total, count) if count < total else np.arange(total)
    image, y, x = np.unravel_index(positions, (len(padded), height, width))
    taps = np.stack([
        padded[image, :, y * layer.strides[0] + ky * layer.dilations[0], x * layer.strides[1] + kx * layer.dilations[1]]
        for ky in range(layer.kernel[0])
        for kx in range(layer.kernel[1])
    ], axis=1)  # fmt: skip
    grouped = taps.reshape(*taps.shape[:2], layer.groups, -1)  # (P, tap, group, channel of the group)
    return np.ascontiguousarray(grouped.transpose(2, 0, 1, 3)).reshape(layer.groups, len(taps), -1)
