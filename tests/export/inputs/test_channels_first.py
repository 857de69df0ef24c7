"""Tests of rewriting the input of a network, and of giving a finished one its own input back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from image_networks import answers, behind, channels_last, network, takes_pixels
from onnx import TensorProto, helper

from export.inputs.channels_first import fix_batch, take_channels_first, take_own_input
from export.inputs.image_input import image_input
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

SMALL = Preprocessing(9, 8)
PIXELS = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), np.uint8)


def sizes(model: onnx.ModelProto) -> list[int | str]:
    return [size.dim_value or size.dim_param for size in model.graph.input[0].type.tensor_type.shape.dim]


@pytest.mark.parametrize(
    "model",
    [network(), channels_last(), channels_last((None,) * 4), takes_pixels(), takes_pixels(moves_first=True),
     takes_pixels("NCHW"), takes_pixels(batch=4)],
)  # fmt: skip
def test_the_network_is_the_same_both_ways(model: onnx.ModelProto) -> None:
    image = image_input(model)
    images = PIXELS if image.layout == "NHWC" else np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2))
    images = images if image.dtype == "uint8" else images.astype(np.float32)
    expected = answers(model, images)
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    take_channels_first(rewritten, image, SMALL)
    onnx.checker.check_model(rewritten, full_check=True)
    assert sizes(rewritten)[1:] == [3, 8, 8]
    first = np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2)).astype(np.float32)
    np.testing.assert_allclose(answers(rewritten, first), expected, rtol=1e-4, atol=1e-4)
    take_own_input(rewritten, image)
    assert image_input(rewritten).layout == image.layout
    assert image_input(rewritten).dtype == image.dtype
    np.testing.assert_allclose(answers(rewritten, images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("layout", "axis"), [("NHWC", -1), ("NHWC", 3), ("NCHW", 1)])
@pytest.mark.parametrize("has_zero_point", [True, False])
def test_dequantized_pixels_are_differences_times_a_scale(layout: str, axis: int, has_zero_point: bool) -> None:
    constants = {"scale": np.float32([0.1, 0.2, 0.3]), "zero": np.uint8([120, 110, 100])}
    names = ["x", "scale", *["zero"] * has_zero_point]
    nodes = [helper.make_node("DequantizeLinear", names, ["a" if layout == "NHWC" else "z"], axis=axis)]
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", ["a"], ["z"], perm=[0, 3, 1, 2]))
    sizes = ("N", 8, 8, 3) if layout == "NHWC" else ("N", 3, 8, 8)
    model = behind(network(), nodes, sizes, constants, TensorProto.UINT8)
    first = np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2))
    expected = answers(model, PIXELS if layout == "NHWC" else first)
    take_channels_first(model, image_input(model), SMALL)
    assert "DequantizeLinear" not in {node.op_type for node in model.graph.node}
    np.testing.assert_allclose(answers(model, first.astype(np.float32)), expected, rtol=1e-4, atol=1e-4)


def test_open_sides_become_those_of_the_preprocessing() -> None:
    model = network(sizes=("N", 3, "H", "W"))
    model.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", 8, "H", "W"]))
    model.graph.value_info.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N", 8, "H", "W"]))
    take_channels_first(model, image_input(model), Preprocessing(48, (48, 96)))
    assert sizes(model) == ["N", 3, 48, 96]
    output = [size.dim_value or size.dim_param for size in model.graph.output[1].type.tensor_type.shape.dim]
    assert output == ["N", 8, 48, 96]
    assert not model.graph.value_info
    onnx.checker.check_model(model, full_check=True)


def test_a_side_with_the_name_of_the_batch_leaves_the_batch_open() -> None:
    model = network(sizes=("a", "a", "a", "a"), batch="a")
    take_channels_first(model, image_input(model), SMALL)
    assert sizes(model) == ["a", 3, 8, 8]
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "a"


def test_a_fixed_batch_holds_for_outputs_of_the_same_name() -> None:
    model = network()
    model.graph.output.append(helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["M", 4]))
    fix_batch(model)
    assert sizes(model)[0] == 1
    first = [output.type.tensor_type.shape.dim[0] for output in model.graph.output]
    assert (first[0].dim_value, first[1].dim_param) == (1, "M")


def test_a_network_that_computes_with_integers_is_refused() -> None:
    nodes = [helper.make_node("Max", ["x", "low"], ["m"], "brighter"),
             helper.make_node("Cast", ["m"], ["z"], to=TensorProto.FLOAT)]  # fmt: skip
    model = behind(network(), nodes, ("N", 3, 8, 8), {"low": np.uint8([9])}, TensorProto.UINT8)
    with pytest.raises(InputError, match=r"computes with uint8 pixels in 'brighter' \(Max\); export it so that"):
        take_channels_first(model, image_input(model), SMALL)
