"""Tests of converting networks of other floating-point types to float32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from image_networks import answers, network
from onnx import TensorProto, helper, numpy_helper

from export.inputs.as_float32 import other_float, to_float32

KINDS = {TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "double", TensorProto.BFLOAT16: "bfloat16"}
IMAGES = np.random.default_rng(1).normal(0, 1, (4, 3, 8, 8)).astype(np.float32)


def in_type(kind: int, keeps_ends: bool = False) -> onnx.ModelProto:
    """Return the network with all tensors of a type. keeps_ends: inputs and outputs stay float32, behind casts."""
    model = network()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, kind, tensor.dims, values.ravel()))
    if not keeps_ends:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = kind
        return model
    model.graph.node[0].input[0], model.graph.node[-1].output[0] = "cast", "last"
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["cast"], to=kind))
    model.graph.node.append(helper.make_node("Cast", ["last"], ["y"], to=TensorProto.FLOAT))
    model.graph.value_info.append(helper.make_tensor_value_info("cast", kind, ["N", 3, 8, 8]))
    return model


@pytest.mark.parametrize("keeps_ends", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_everything_becomes_float32(kind: int, keeps_ends: bool) -> None:
    model = in_type(kind, keeps_ends)
    assert other_float(model) == KINDS[kind]
    to_float32(model)
    assert other_float(model) is None
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(answers(model, IMAGES), answers(network(), IMAGES), atol=0.1)


def test_constants_in_nodes_and_types_in_attributes_are_converted() -> None:
    half = numpy_helper.from_array(np.float16([1, 2]), "c")
    nodes = [
        helper.make_node("Constant", [], ["c"], value=half),
        helper.make_node("ConstantOfShape", ["s"], ["z"], value=numpy_helper.from_array(np.float16([0]))),
        helper.make_node("Add", ["c", "z"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [2])],
                              [numpy_helper.from_array(np.array([2]), "s")])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    to_float32(model)
    onnx.checker.check_model(model, full_check=True)
    assert {node.attribute[0].t.data_type for node in model.graph.node[:2]} == {TensorProto.FLOAT}


def test_float32_with_single_constants_of_another_type_is_left_alone() -> None:
    model = network()
    model.graph.initializer.append(numpy_helper.from_array(np.float64([2.0]), "scale"))
    assert other_float(model) is None


def test_infinity_stays_and_large_numbers_become_the_largest() -> None:
    values = np.array([np.inf, -np.inf, 1e300, 1.5])
    model = network()
    model.graph.initializer.append(numpy_helper.from_array(values, "large"))
    to_float32(model)
    largest = float(np.finfo(np.float32).max)
    converted = numpy_helper.to_array(model.graph.initializer[-1])
    np.testing.assert_array_equal(converted, np.float32([np.inf, -np.inf, largest, 1.5]))
