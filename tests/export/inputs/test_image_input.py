"""Tests of finding out what images a network takes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from image_networks import behind, channels_last, network, takes_pixels
from onnx import TensorProto, helper

from export.inputs.image_input import ImageInput, image_input
from runtimes.errors import InputError


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (network(), ("float32", "NCHW", None, 3, 8, 8)),
        (network(sizes=("N", 3, 48, 192)), ("float32", "NCHW", None, 3, 48, 192)),
        (network(sizes=(4, 3, "H", "W")), ("float32", "NCHW", 4, 3, None, None)),
        (network(sizes=("N", 3, 48, "W")), ("float32", "NCHW", None, 3, 48, None)),
        (network(sizes=("N", None, None, None)), ("float32", "NCHW", None, 3, None, None)),
        (network(1, ("N", 1, 8, 8)), ("float32", "NCHW", None, 1, 8, 8)),
        (network(6, ("N", None, 8, 8)), ("float32", "NCHW", None, 6, 8, 8)),
        (channels_last(), ("float32", "NHWC", None, 3, 8, 8)),
        (channels_last((2, 48, 192, 3)), ("float32", "NHWC", 2, 3, 48, 192)),
        (channels_last((None, None, None, None)), ("float32", "NHWC", None, 3, None, None)),
        (takes_pixels(), ("uint8", "NHWC", None, 3, 8, 8)),
        (takes_pixels("NCHW"), ("uint8", "NCHW", None, 3, 8, 8)),
        (takes_pixels(moves_first=True, batch=4), ("uint8", "NHWC", 4, 3, 8, 8)),
    ],
)
def test_the_first_convolution_shows_layout_and_channels(model: onnx.ModelProto, expected: tuple[object, ...]) -> None:
    assert image_input(model) == ImageInput("x", *expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sizes", "layout", "channels"),
    [
        (("N", 3, 8, 8), "NCHW", 3),
        (("N", 28, 28, 1), "NHWC", 1),
        (("N", 1, 28, 28), "NCHW", 1),
        (("N", 8, 8, 6), "NHWC", 6),
        (("N", 6, 8, 8), "NCHW", 6),
        (("N", 3, 224, 4), "NCHW", 3),
        ((None, None, None, None), "NCHW", None),
    ],
)
def test_without_a_convolution_the_sizes_decide(sizes: tuple[int, ...], layout: str, channels: int | None) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["z"])]
    model = behind(network(), nodes, sizes, {"shape": np.array([-1, 3, 8, 8])})
    found = image_input(model)
    assert (found.layout, found.channels) == (layout, channels)


def test_an_undeclared_rank_is_that_of_images() -> None:
    model = network(sizes=())
    assert image_input(model) == ImageInput("x", "float32", "NCHW", None, 3, None, None)


def test_channels_behind_a_selection_are_those_that_are_declared() -> None:
    nodes = [helper.make_node("Gather", ["x", "order"], ["z"], axis=1)]
    model = behind(network(), nodes, ("N", 4, 8, 8), {"order": np.array([2, 1, 0])})
    assert image_input(model).channels == 4


def other_type(kind: int) -> onnx.ModelProto:
    model = network()
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


def two_inputs() -> onnx.ModelProto:
    model = network()
    model.graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, [2]))
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (two_inputs(), r"has 2 inputs \(x, scale\), not one of images; export the network with its images as the only"),
        (other_type(TensorProto.INT64), "input 'x' is int64; images are float32, float16 or uint8"),
        (network(sizes=("N", 16)), r"is \(\?, 16\), not a batch of images; export the network so that it takes"),
        (network(sizes=(3, 8, 8)), r"is \(3, 8, 8\), not a batch of images; export the network with a batch axis"),
        (network(sizes=("N", 3, 8, 8, 8)), r"is \(\?, 3, 8, 8, 8\), not a batch of images"),
        (network(sizes=("N", 3, 8, 5000)), r"is \(\?, 3, 8, 5000\), not images of at most 4096 x 4096 pixels"),
        (behind(network(), [helper.make_node("Transpose", ["x"], ["z"], perm=[0, 3, 2, 1])], ("N", 8, 8, 3)),
         "has the axes NWHC; export the network so that it takes NCHW or NHWC"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused_with_a_cure(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        image_input(model)
    assert "\n" not in str(caught.value)


def test_a_constant_that_is_also_an_input_does_not_count() -> None:
    model = network()
    model.graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [8]))
    assert image_input(model).name == "x"


@pytest.mark.parametrize(("sizes", "text"), [((8, 8), "8"), ((48, 192), "48x192"), ((48, "W"), "48x?"),
                                             (("H", "W"), "?x?")])  # fmt: skip
def test_sides_are_written_as_on_the_command_line(sizes: tuple[int | str, ...], text: str) -> None:
    assert image_input(network(sizes=("N", 3, *sizes))).sides_text == text
