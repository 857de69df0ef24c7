"""Calibration: the true ranges, whatever the batches, and a name for what is not finite."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
import pytest

from compress.quantization.calibration import min_max_ranges
from export.quantize import tensors_to_calibrate
from runtimes import evalset
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.fixture
def images(tmp_path: Path) -> evalset.EvalSet:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 8, 8, 3), np.uint8)
    names = tuple(f"{index}.png" for index in range(37))
    return evalset.write(tmp_path / "images", pixels, None, names, ("a", "b"), PREPROCESSING)


@pytest.fixture
def model() -> onnx.ModelProto:
    return onnx_graphs.residual_model(channels=3)


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


def test_ranges_are_those_of_all_images_at_once(model: onnx.ModelProto, images: evalset.EvalSet) -> None:
    names = tensors_to_calibrate(model)
    everything = PREPROCESSING.normalize(images.images)
    ranges = min_max_ranges(model, names, images, silent)
    assert set(ranges) == set(names)
    assert ranges["x"] == (float(everything.min()), float(everything.max()))
    for name in ("a1", "a2", "s"):
        values = onnx_graphs.tensor_values(model, name, everything)
        assert ranges[name] == pytest.approx((float(values.min()), float(values.max())), rel=1e-6)


def test_a_fixed_batch_sees_every_image_too(model: onnx.ModelProto, images: evalset.EvalSet) -> None:
    names = tensors_to_calibrate(model)
    expected = min_max_ranges(model, names, images, silent)
    for shape in (model.graph.input[0], model.graph.output[0]):
        shape.type.tensor_type.shape.dim[0].dim_value = 10
    for name, found in min_max_ranges(model, names, images, silent).items():
        assert found == pytest.approx(expected[name], rel=1e-6)


def test_a_value_that_is_not_finite_names_tensor_and_image(model: onnx.ModelProto, images: evalset.EvalSet) -> None:
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w1")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[:] = 3e38
    weight.CopyFrom(onnx.numpy_helper.from_array(values, "w1"))
    with pytest.raises(InputError, match=r"tensor a1 is NaN or infinite for the image \d+\.png"):
        min_max_ranges(model, tensors_to_calibrate(model), images, silent)


def test_one_bad_image_among_good_ones_is_the_one_named(model: onnx.ModelProto, images: evalset.EvalSet) -> None:
    pixels = np.full_like(images.images, 127)
    pixels[19] = 255
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w1")
    values = np.full(weight.dims, 2e37, np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, "w1"))
    bright = dataclasses.replace(images, images=pixels)
    with pytest.raises(InputError, match=r"for the image 19\.png"):
        min_max_ranges(model, ["a1"], bright, silent)
