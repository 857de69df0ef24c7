"""Loops with a known number of iterations are unrolled; others are left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import GraphProto, TensorProto, helper, numpy_helper

from export.rewrites.control_flow import MAX_NODES, decide_by_sizes, unroll

IMAGES = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
NODE = helper.make_node


def body(nodes: list[onnx.NodeProto], inputs: str, outputs: str, constants: dict[str, np.ndarray]) -> GraphProto:
    """Return a body; names are separated by spaces, those of int64 begin with i, of booleans with c."""
    kinds = {"i": (TensorProto.INT64, []), "c": (TensorProto.BOOL, [])}
    values = [
        [helper.make_tensor_value_info(name, *kinds.get(name[0], (TensorProto.FLOAT, None))) for name in names.split()]
        for names in (inputs, outputs)
    ]
    return helper.make_graph(
        nodes, "body", *values, [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )


def model_of(
    nodes: list[onnx.NodeProto], opset: int = 17, outputs: str = "y", **constants: np.ndarray
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def loop(steps: int = 3, condition: bool = True, keeps: str = "c_in", opset: int = 17) -> onnx.ModelProto:
    """Return a Loop that reads a tensor of the graph, counts its steps and stacks what each returns."""
    nodes = [
        NODE("Cast", ["i"], ["step"], to=TensorProto.FLOAT),
        NODE("Mul", ["state", "outer"], ["product"]),
        NODE("Add", ["product", "step"], ["sum"]),
        NODE("Mul", ["sum", "half"], ["next"]),
        NODE("Neg", ["next"], ["row"]),
        NODE("ReduceMax", ["next"], ["largest"], keepdims=0),
        NODE("Less", ["largest", "limit"], ["c_small"]),
        NODE("Identity", [keeps], ["c_out"]),
    ]
    inner = body(nodes, "i c_in state", "c_out next row",
                 {"half": np.float32(0.5), "limit": np.float32(1e9), "c_true": np.asarray(True)})  # fmt: skip
    outer = NODE("Sigmoid", ["x"], ["outer"])
    return model_of([outer, NODE("Loop", ["count", "go" if condition else "", "x"], ["y", "rows"], "loop", body=inner)],
                    opset, "y rows", count=np.asarray(steps), go=np.asarray(True))  # fmt: skip


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, {"x": IMAGES})]


def assert_unrolled(model: onnx.ModelProto) -> None:
    expected = run(model)
    assert unroll(model)
    assert not any(node.op_type in ("Loop", "Scan") for node in model.graph.node)
    for actual, values in zip(run(model), expected, strict=True):
        np.testing.assert_allclose(actual, values, rtol=1e-6)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("keeps", ["c_in", "c_true"])
@pytest.mark.parametrize("condition", [False, True])
def test_a_loop_with_a_constant_count_is_unrolled(condition: bool, keeps: str, opset: int) -> None:
    assert_unrolled(loop(3, condition, keeps, opset))


@pytest.mark.parametrize("backwards", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_scan_of_known_length_is_unrolled(axis: int, backwards: int) -> None:
    """The sequence has the axis 1 of the input, or 0 after a Transpose."""
    inner = body(
        [NODE("Add", ["state", "part"], ["next"]), NODE("Tanh", ["next"], ["row"])], "state part", "next row", {}
    )
    nodes = [
        NODE("Transpose", ["x"], ["sequence"], perm=[1, 0, 2] if axis == 0 else [0, 1, 2]),
        NODE("ReduceMean", ["x"], ["start"], axes=[1], keepdims=0),
        NODE("Scan", ["start", "sequence"], ["y", "rows"], "scan", body=inner, num_scan_inputs=1,
             scan_input_axes=[axis], scan_input_directions=[backwards], scan_output_axes=[axis],
             scan_output_directions=[backwards]),
    ]  # fmt: skip
    assert_unrolled(model_of(nodes, outputs="y rows"))


def test_a_loop_without_a_step_returns_its_input() -> None:
    model = loop(0)
    node = model.graph.node[-1]
    del node.output[1], node.attribute[0].g.output[2], model.graph.output[1]
    assert_unrolled(model)


@pytest.mark.parametrize("model", [loop(3, keeps="c_small"), loop(0), loop(MAX_NODES)])
def test_other_loops_are_left_alone(model: onnx.ModelProto) -> None:
    """One ends by a condition, one stacks the results of no step, and one has too many steps."""
    before = model.SerializeToString()
    assert not unroll(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(("axis", "is_decided"), [(1, True), (0, False)])
def test_a_condition_on_sizes_is_decided_unless_it_changes_with_the_batch(axis: int, is_decided: bool) -> None:
    branches = {f"{name}_branch": helper.make_graph([NODE(op, ["x"], [name])], name, [],
                                                    [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])
                for name, op in (("then", "Relu"), ("else", "Neg"))}  # fmt: skip
    nodes = [
        NODE("Shape", ["x"], ["sizes"]),
        NODE("Gather", ["sizes", "axis"], ["size"]),
        NODE("Equal", ["size", "four"], ["is_four"]),
        NODE("If", ["is_four"], ["y"], "choice", **branches),
    ]
    model = model_of(nodes, axis=np.asarray(axis), four=np.asarray(4))
    expected = run(model)
    assert decide_by_sizes(model) == is_decided
    assert any(tensor.name == model.graph.node[-1].input[0] for tensor in model.graph.initializer) == is_decided
    np.testing.assert_array_equal(run(model)[0], expected[0])


def test_a_condition_on_values_is_not_decided() -> None:
    assert not decide_by_sizes(loop(keeps="c_small"))
    model = loop()
    model.graph.node.insert(0, NODE("ReduceMax", ["x"], ["largest"], keepdims=0))
    model.graph.node.insert(1, NODE("Cast", ["largest"], ["steps"], to=TensorProto.INT64))
    model.graph.node[-1].input[0] = "steps"
    assert not decide_by_sizes(model)
