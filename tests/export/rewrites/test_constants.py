"""BatchNormalization of constants is folded whatever its mode; outputs that are constants get an operator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_graphs import make_model, run_model, sqnr_db

from export.rewrites.constants import (
    fold_constant_norms,
    fold_dequantized_weights,
    in_training_mode,
    write_constant_outputs,
)
from export.standard_form import standard_form

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(0, 1, (2, 4, 8, 8)).astype(np.float32)


def constants() -> dict[str, np.ndarray]:
    weight = RNG.normal(0.5, 2, (6, 4, 3, 3)).astype(np.float32)
    gain = RNG.uniform(0.5, 1.5, 6).astype(np.float32)
    return {"w": weight, "gain": gain, "zeros": np.zeros(6, np.float32), "ones": np.ones(6, np.float32),
            "flat": np.asarray([1, 6, -1]), "kernel": np.asarray([6, 4, 3, 3])}  # fmt: skip


def standardized(data: str = "rows", **attributes: object) -> onnx.ModelProto:
    """Return a Conv with standardized weights, as PyTorch's TorchScript exporter writes timm's ScaledStdConv2d."""
    outputs = ["n"] if "training_mode" not in attributes and attributes.get("momentum") is None else ["n", "m", "v"]
    nodes = [
        helper.make_node("Reshape", ["w", "flat"], ["rows"]),
        helper.make_node("BatchNormalization", [data, "gain", "zeros", "zeros", "ones"], outputs, epsilon=1e-5,
                         **attributes),
        helper.make_node("Reshape", ["n", "kernel"], ["weight"]),
        helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1, 1, 1, 1]),
    ]  # fmt: skip
    return make_model(nodes, constants())


def test_standardized_weights_are_constants() -> None:
    model = standardized(training_mode=1)
    expected = ReferenceEvaluator(model).run(None, {"x": IMAGES})[0]
    made = standard_form(model)
    assert [node.op_type for node in made.graph.node] == ["Conv"]
    assert sqnr_db(np.asarray(expected), run_model(made, IMAGES)) > 100


def test_before_opset_14_the_outputs_tell_the_mode() -> None:
    model = standardized(momentum=0.1)
    assert in_training_mode(model.graph.node[1])
    fold_constant_norms(model)
    assert [node.op_type for node in model.graph.node] == ["Reshape", "Reshape", "Conv"]


def test_statistics_that_are_read_and_activations_are_left_alone() -> None:
    read, activations = standardized(training_mode=1), standardized(training_mode=1)
    read.graph.output.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, [6]))
    activations.graph.node[1].input[0] = "x"
    for model in (read, activations):
        fold_constant_norms(model)
        assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 1


@pytest.mark.parametrize("is_read", [False, True])
def test_constant_outputs_are_computed_by_an_operator(is_read: bool) -> None:
    nodes = [helper.make_node("Conv", ["x", "weight"], ["y"]), helper.make_node("Relu", ["classes"], ["more"])]
    model = make_model(nodes[: 1 + is_read], {"weight": constants()["w"], "classes": np.arange(3, dtype=np.float32)})
    if is_read:
        model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [3]))
    model.graph.output.append(helper.make_tensor_value_info("classes", TensorProto.FLOAT, [3]))
    write_constant_outputs(model)
    made = standard_form(model)
    onnx.checker.check_model(made, full_check=True)
    assert [value.name for value in made.graph.output][-1] == "classes"
    constant = next(tensor for tensor in made.graph.initializer if list(tensor.dims) == [3])
    assert numpy_helper.to_array(constant).tolist() == [0, 1, 2]


def stored_as_integers(form: str) -> tuple[onnx.ModelProto, np.ndarray]:
    """Return a Conv whose weights come through DequantizeLinear, and the float32 weights."""
    weight = RNG.normal(0, 1, (6, 4, 3, 3)).astype(np.float32)
    scale = np.float32(0.02) if form == "rounded" else np.linspace(0.01, 0.03, 6, dtype=np.float32)
    each = scale if form == "rounded" else scale.reshape(-1, 1, 1, 1)
    integers = np.rint(weight / each).clip(-128, 127).astype(np.int8)
    values = {"scale": np.asarray(scale), "zero": np.zeros_like(scale, np.int8)}
    nodes = [helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["w"], axis=0),
             helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]  # fmt: skip
    if form == "rounded":
        nodes.insert(0, helper.make_node("QuantizeLinear", ["weight", "scale", "zero"], ["integers"]))
        values["weight"] = weight
    elif form == "node":
        constant = numpy_helper.from_array(integers)
        nodes.insert(0, helper.make_node("Constant", [], ["integers"], value=constant))
    else:
        values["integers"] = integers
    return make_model(nodes, values), integers * each


@pytest.mark.parametrize("form", ["initializer", "node", "rounded"])
def test_weights_that_are_stored_as_integers_become_float32(form: str) -> None:
    model, weight = stored_as_integers(form)
    expected = run_model(model, IMAGES)
    assert fold_dequantized_weights(model)
    (constant,) = [tensor for tensor in model.graph.initializer if tensor.name == "w"]
    np.testing.assert_allclose(numpy_helper.to_array(constant), weight, rtol=1e-6)
    assert [node.op_type for node in standard_form(model).graph.node] == ["Conv"]
    assert sqnr_db(expected, run_model(model, IMAGES)) > 100


def test_quantized_activations_are_left_alone() -> None:
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
             helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"])]  # fmt: skip
    model = make_model(nodes, {"scale": np.asarray(0.1, np.float32), "zero": np.asarray(0, np.int8)})
    assert not fold_dequantized_weights(model)
    assert [node.op_type for node in model.graph.node] == ["QuantizeLinear", "DequantizeLinear"]
