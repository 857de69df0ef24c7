"""Second moments, compared with loops over every position in float64 and with the layer's outputs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from compress.quantization.correction import moments as module
from compress.quantization.correction.moments import POSITIONS_PER_BATCH, second_moments
from export.layers import Layer

SCALE, ZERO_POINT = 0.05, 113
Array = np.ndarray


def convolution(
    outputs: int, inputs: int, kernel: tuple[int, int], groups: int = 1, strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0), dilations: tuple[int, int] = (1, 1),
) -> Layer:  # fmt: skip
    weight = np.random.default_rng(0).normal(size=(outputs, inputs // groups, *kernel))
    return Layer("l", "Conv", "x", "y", weight, np.zeros(outputs), 0, groups, strides, pads, dilations)


LAYERS = {
    "1x1": convolution(3, 4, (1, 1)),
    "1x1 stride 2": convolution(3, 4, (1, 1), strides=(2, 2)),
    "3x3": convolution(3, 4, (3, 3), pads=(1, 1, 1, 1)),
    "3x3 stride 2, uneven pads": convolution(3, 4, (3, 3), strides=(2, 2), pads=(0, 1, 1, 0)),
    "3x3 dilated": convolution(3, 4, (3, 3), pads=(2, 2, 2, 2), dilations=(2, 2)),
    "3x1 of other strides": convolution(3, 4, (3, 1), strides=(1, 3), dilations=(2, 1), pads=(1, 0, 2, 0)),
    "5x5": convolution(2, 4, (5, 5), pads=(2, 2, 2, 2), strides=(2, 1)),
    "groups": convolution(6, 4, (3, 3), groups=2, pads=(1, 1, 1, 1)),
    "depthwise": convolution(4, 4, (3, 3), groups=4, pads=(1, 1, 1, 1)),
    "depthwise 5x5 stride 2": convolution(4, 4, (5, 5), groups=4, strides=(2, 2), pads=(2, 2, 2, 2)),
    "depthwise with multiplier": convolution(8, 4, (3, 3), groups=4),
}


def batches(*sizes: int, shape: tuple[int, ...] = (4, 6, 7), seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (size, *shape)).astype(np.uint8) for size in sizes]


def patches(layer: Layer, images: Array) -> Array:
    """Return (positions, groups, K) in float64 by loops; values outside the image are 0."""
    real = (images.astype(np.float64) - ZERO_POINT) * SCALE
    count, channels, height, width = real.shape
    top, left, bottom, right = layer.pads
    (kernel_y, kernel_x), (step_y, step_x), (gap_y, gap_x) = layer.kernel, layer.strides, layer.dilations
    result = []
    for image in range(count):
        for y in range(-top, height + bottom - (kernel_y - 1) * gap_y, step_y):
            for x in range(-left, width + right - (kernel_x - 1) * gap_x, step_x):
                patch = np.zeros((layer.groups, kernel_y, kernel_x, channels // layer.groups))
                for ky, kx, channel in itertools.product(range(kernel_y), range(kernel_x), range(channels)):
                    at_y, at_x = y + ky * gap_y, x + kx * gap_x
                    if 0 <= at_y < height and 0 <= at_x < width:
                        group, rest = divmod(channel, channels // layer.groups)
                        patch[group, ky, kx, rest] = real[image, channel, at_y, at_x]
                result.append(patch.reshape(layer.groups, -1))
    return np.asarray(result)


@pytest.fixture
def all_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POSITIONS_PER_BATCH", 10**6)


@pytest.mark.usefixtures("all_positions")
@pytest.mark.parametrize("name", LAYERS)
def test_moments_are_those_of_every_position_in_float64(name: str) -> None:
    layer = LAYERS[name]
    inputs = batches(2, 2, 1)  # the last batch is smaller and must not have a larger weight
    patch = patches(layer, np.concatenate(inputs))
    expected = np.einsum("pgk,pgl->gkl", patch, patch) / len(patch)
    result, samples = second_moments(layer, inputs, SCALE, ZERO_POINT)
    assert samples == len(patch)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.usefixtures("all_positions")
@pytest.mark.parametrize("name", LAYERS)
def test_moments_and_weights_give_the_mean_squared_output(name: str) -> None:
    layer = LAYERS[name]
    inputs = batches(4)
    real = torch.nn.functional.pad(
        torch.tensor((inputs[0].astype(np.float64) - ZERO_POINT) * SCALE),
        (layer.pads[1], layer.pads[3], layer.pads[0], layer.pads[2]),
    )
    weight = torch.tensor(layer.weight)
    output = torch.nn.functional.conv2d(real, weight, None, layer.strides, 0, layer.dilations, layer.groups)
    result, _ = second_moments(layer, inputs, SCALE, ZERO_POINT)
    rows, each = layer.rows(), len(layer.rows()) // layer.groups
    power = [row @ result[index // each] @ row for index, row in enumerate(rows)]
    np.testing.assert_allclose(power, output.square().mean((0, 2, 3)).numpy(), rtol=1e-4)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_gemm_uses_every_image(axis: int) -> None:
    shape = (3, 10) if axis == 0 else (10, 3)
    layer = Layer("l", "Gemm", "x", "y", np.ones(shape), np.zeros(3), axis, 1, (1, 1), (0, 0, 0, 0), (1, 1))
    inputs = batches(4, 4, 1, shape=(10,))
    real = (np.concatenate(inputs).astype(np.float64) - ZERO_POINT) * SCALE
    result, samples = second_moments(layer, inputs, SCALE, ZERO_POINT)
    assert samples == 9
    np.testing.assert_allclose(result, (real.T @ real / 9)[None], rtol=1e-5, atol=1e-5 * real.var())


def test_signed_integers_do_not_overflow() -> None:
    layer = LAYERS["1x1"]
    image = np.full((1, 4, 6, 7), -128, np.int8)
    result, _ = second_moments(layer, [image], 1.0, 0)
    np.testing.assert_allclose(result, np.full((1, 4, 4), 128.0**2))
    result, _ = second_moments(layer, [np.zeros((1, 4, 6, 7), np.uint8)], 1.0, 200)
    np.testing.assert_allclose(result, np.full((1, 4, 4), 200.0**2))


@pytest.mark.parametrize("name", ["3x3", "depthwise"])
def test_sampled_positions_give_the_moments_within_a_few_percent_and_are_reproducible(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = LAYERS[name]
    inputs = batches(*[4] * 32, shape=(4, 16, 16))
    result, samples = second_moments(layer, inputs, SCALE, ZERO_POINT)
    assert samples == 32 * POSITIONS_PER_BATCH
    np.testing.assert_array_equal(result, second_moments(layer, inputs, SCALE, ZERO_POINT)[0])
    monkeypatch.setattr(module, "POSITIONS_PER_BATCH", 10**6)
    everything, count = second_moments(layer, inputs, SCALE, ZERO_POINT)
    assert count == 32 * 4 * 16 * 16
    assert np.abs(result - everything).max() < 0.05 * np.abs(everything).max()


def test_long_rows_get_more_positions() -> None:
    layer = convolution(1, 64, (5, 5))
    inputs = batches(4, shape=(64, 20, 20))
    assert second_moments(layer, inputs, SCALE, ZERO_POINT)[1] == 64 * 25 // 2


@pytest.mark.parametrize("name", ["1x1", "3x3", "groups"])
def test_samples_of_many_inputs_have_about_the_same_moments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POSITIONS_OF_MANY_INPUTS", 10**6)  # all of them
    stored = batches(3, 3)
    samples = module.input_samples(LAYERS[name], stored, SCALE, ZERO_POINT)
    monkeypatch.setattr(module, "POSITIONS_PER_BATCH", 10**6)
    expected, count = second_moments(LAYERS[name], stored, SCALE, ZERO_POINT)
    assert samples.shape == (LAYERS[name].groups, count, LAYERS[name].inputs)
    np.testing.assert_allclose(samples.transpose(0, 2, 1) @ samples / count, expected, rtol=1e-4, atol=1e-3)
