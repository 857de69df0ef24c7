"""Tests of export.subgraph: parts of graphs compute what the whole graph computes."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnx_graphs import all_values, ranges_of, unsigned_scheme

from export.quantize import insert_qdq
from export.subgraph import between, tensors_read, with_outputs

IMAGES = np.random.default_rng(1).normal(0, 1, (3, 4, 8, 8)).astype(np.float32)
TENSORS = ["c1", "a1", "c2", "a2", "c3", "s", "p", "f", "y"]


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize(("first", "last"), list(itertools.combinations(TENSORS, 2)))
def test_from_any_tensor_to_any_later_one(residual_model: onnx.ModelProto, first: str, last: str) -> None:
    values = all_values(residual_model, IMAGES)
    part = between(residual_model, {first: TensorProto.FLOAT}, [last])
    feeds = {value.name: values[value.name] for value in part.graph.input}
    np.testing.assert_allclose(run(part, feeds)[last], values[last], rtol=1e-5, atol=1e-6)


def test_only_what_is_needed_is_inside(residual_model: onnx.ModelProto) -> None:
    part = between(residual_model, {"a2": TensorProto.FLOAT}, ["c3"])
    assert [node.name for node in part.graph.node] == ["pointwise"]
    assert [value.name for value in part.graph.input] == ["a2"]
    assert {tensor.name for tensor in part.graph.initializer} == {"w3", "b3"}


def test_a_way_around_the_cut_begins_at_the_graphs_input(residual_model: onnx.ModelProto) -> None:
    part = between(residual_model, {"c3": TensorProto.FLOAT}, ["s"])  # the shortcut a1 comes from the image
    assert [value.name for value in part.graph.input] == ["c3", "x"]
    assert [node.name for node in part.graph.node] == ["first", "relu", "add"]


def test_a_tensor_that_is_cut_and_asked_for_is_computed(residual_model: onnx.ModelProto) -> None:
    part = between(residual_model, {"a1": TensorProto.FLOAT, "c1": TensorProto.FLOAT}, ["a1"])
    assert [node.name for node in part.graph.node] == ["relu"]


def test_cuts_may_hold_integers(residual_model: onnx.ModelProto) -> None:
    scheme = unsigned_scheme()
    quantized = insert_qdq(residual_model, ranges_of(residual_model, IMAGES, scheme), scheme).model
    whole = run(with_outputs(quantized, ["a1_quantized", "s_quantized"]), {"x": IMAGES})
    part = between(quantized, {"a1_quantized": TensorProto.UINT8}, ["s_quantized", "y"])
    made = run(part, {"a1_quantized": whole["a1_quantized"]})
    np.testing.assert_array_equal(made["s_quantized"], whole["s_quantized"])
    np.testing.assert_array_equal(made["y"], whole["y"])


def test_tensors_are_given_out_beside_the_answer(residual_model: onnx.ModelProto) -> None:
    probe = with_outputs(residual_model, ["a1", "y", "x", "p"])
    assert [value.name for value in probe.graph.output] == ["y", "a1", "p"]
    assert [value.name for value in residual_model.graph.output] == ["y"]
    assert run(probe, {"x": IMAGES})["p"].shape == (3, 8, 1, 1)


def test_tensors_that_control_flow_reads_are_found() -> None:
    inner = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "inner", [], [])
    outer = helper.make_graph([helper.make_node("If", ["d"], ["e"], then_branch=inner, else_branch=inner)], "o", [], [])
    node = helper.make_node("If", ["f"], ["g"], then_branch=outer, else_branch=inner)
    assert set(tensors_read(node)) == {"a", "b", "d", "f"}
