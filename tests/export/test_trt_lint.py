"""Tests of export.trt_lint: one line for each thing that TensorRT rejects or misinterprets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import ranges_of

from compress.quantization.schemes import SCHEMES
from export.quantize import insert_qdq
from export.trt_lint import problems, require_clean
from runtimes.errors import InputError

IMAGES = np.random.default_rng(1).normal(0, 1, (8, 4, 8, 8)).astype(np.float32)
ORT_FILES = ["x86-avx2", "x86-vnni", "arm64", "generic"]


def quantized(model: onnx.ModelProto, scheme: str) -> onnx.ModelProto:
    return insert_qdq(model, ranges_of(model, IMAGES, SCHEMES[scheme]), SCHEMES[scheme]).model


def constant(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change a stored tensor in place."""
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    stored.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(stored)), name))


def quantizer_of_activation(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "QuantizeLinear")


def test_float32_and_files_of_the_scheme_are_clean(residual_model: onnx.ModelProto) -> None:
    assert list(problems(residual_model)) == []
    assert list(problems(quantized(residual_model, "tensorrt"))) == []
    require_clean(residual_model, "m.onnx")


@pytest.mark.parametrize("scheme", ORT_FILES)
def test_files_for_processors_are_refused(residual_model: onnx.ModelProto, scheme: str) -> None:
    model = quantized(residual_model, scheme)
    found = " ".join(problems(model))
    assert "is uint8, which TensorRT would silently read as int8" in found
    assert "dequantizes int32, such as a bias" in found
    with pytest.raises(InputError, match=r"^m.onnx: not usable with TensorRT: .* \(and \d+ more\)$"):
        require_clean(model, "m.onnx")


def test_a_zero_point_other_than_0_is_refused(residual_model: onnx.ModelProto) -> None:
    model = quantized(residual_model, "tensorrt")
    constant(model, quantizer_of_activation(model).input[2], lambda value: value + 3)
    assert any("zero point other than 0" in line for line in problems(model))


def test_a_quantizer_without_a_zero_point_gives_uint8(residual_model: onnx.ModelProto) -> None:
    model = quantized(residual_model, "tensorrt")
    del quantizer_of_activation(model).input[2]
    assert any("is uint8" in line for line in problems(model))


def test_a_scale_per_channel_of_an_activation_is_refused(residual_model: onnx.ModelProto) -> None:
    model = quantized(residual_model, "tensorrt")
    constant(model, quantizer_of_activation(model).input[1], lambda value: np.full(4, value, np.float32))
    assert any("scale per channel on an activation" in line for line in problems(model))


def test_other_operators_opsets_sizes_and_files_are_refused(residual_model: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(residual_model)
    model.opset_import[0].version = 27
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    model.graph.node.append(helper.make_node("QLinearConv", ["x"] * 8, ["z"], "odd"))
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    found = list(problems(model))
    assert [any(part in line for line in found) for part in (
        "opset 27 is outside 9 to 24", "a dynamic size besides the batch",
        "QLinearConv odd is not a Q/DQ pair", "is stored in another file",
    )] == [True] * 4  # fmt: skip
    assert len(found) == 4
