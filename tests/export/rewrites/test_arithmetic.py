"""Sums, products and clamps of other exporters become operators with integer kernels; outputs do not change."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_graphs import parsed, run_model, sqnr_db

from export.rewrites.arithmetic import write_plain_arithmetic
from export.rewrites.editing import EditedGraph

IMAGES = np.random.default_rng(1).normal(0, 3, (4, 4, 6, 6)).astype(np.float32)
CONSTANTS = "<float zero = {0.0}, float three = {3.0}, float six = {6.0}, float fifth = {0.2}, float[1] one = {1.0}, " \
            "float[1,1,1,1] two = {2.0}, float[4,1,1] each = {1.0, 2.0, -4.0, 8.0}, float minus = {-1.0}>"  # fmt: skip


def rewritten(nodes: str) -> onnx.ModelProto:
    """Return the graph from x to y with plain arithmetic, after checking that it gives the same."""
    model = parsed(nodes, CONSTANTS)
    graph = EditedGraph(model)
    write_plain_arithmetic(graph)
    result = graph.finished()
    onnx.checker.check_model(result, full_check=True)
    assert sqnr_db(run_model(model, IMAGES), run_model(result, IMAGES)) > 120
    return result


@pytest.mark.parametrize(("nodes", "operators"), [
    ("y = Sum(x, x, x)", ["Add", "Add"]),
    ("y = Sum(x)", ["Identity"]),
    ("y = Div(x, six)", ["Mul"]),
    ("y = Div(x, each)", ["Mul"]),
    ("y = Div(six, x)", ["Div"]),
    ("y = Sub(x, each)", ["Add"]),
    ("y = Sub(three, x)", ["Sub"]),
    ("y = Max(x, zero)", ["Relu"]),
    ("y = Max(zero, x)", ["Relu"]),
    ("y = Max(x, each)", ["Max"]),
    ("a = Relu(x) y = Min(a, six)", ["Clip"]),
    ("a = Max(x, minus) y = Min(a, two)", ["Clip"]),
    ("a = Min(x, six) y = Relu(a)", ["Clip"]),
    ("a = Clip(x, zero, six) y = Relu(a)", ["Clip"]),
    ("a = Clip(x, three, six) y = Clip(a, zero, one)", ["Clip"]),
    ("a = Relu(x) b = Min(a, six) y = Add(a, b)", ["Relu", "Clip", "Add"]),
    ("a = Mul(x, fifth) y = Max(x, a)", ["LeakyRelu"]),
    ("a = Mul(fifth, x) y = Max(a, x)", ["LeakyRelu"]),
    ("a = Mul(x, three) y = Max(x, a)", ["Mul", "Max"]),
    ("y = PRelu(x, two)", ["LeakyRelu"]),
    ("y = PRelu(x, each)", ["PRelu"]),
    ("a = Add(x, three) g = Clip(a, zero, six) m = Mul(x, g) y = Div(m, six)", ["Mul", "Add", "Clip", "Mul"]),
    ("a = Add(x, three) g = Clip(a, zero, six) d = Div(g, six) y = Mul(d, x)", ["Mul", "Add", "Clip", "Mul"]),
    ("a = Add(x, three) r = Relu(a) g = Min(r, six) d = Div(g, six) y = Identity(d)",
     ["Mul", "Add", "Clip", "Identity"]),
    ("a = Add(x, three) g = Clip(a, zero, six) m = Mul(x, g) y = Div(m, three)", ["Add", "Clip", "Mul", "Mul"]),
    ("a = Add(x, three) g = Clip(a, zero, six) m = Mul(a, g) d = Div(m, six) y = Add(m, d)",
     ["Add", "Clip", "Mul", "Mul", "Add"]),
    ("a = Add(x, x) g = Clip(a, zero, six) y = Div(g, six)", ["Add", "Clip", "Mul"]),
])  # fmt: skip
def test_forms_of_other_exporters(nodes: str, operators: list[str]) -> None:
    assert [node.op_type for node in rewritten(nodes).graph.node] == operators


@pytest.mark.parametrize("number", ["one", "two"])
def test_a_constant_of_one_element_becomes_a_scalar(number: str) -> None:
    model = rewritten(f"y = Mul(x, {number})")
    assert [list(tensor.dims) for tensor in model.graph.initializer] == [[]]


def test_a_constant_with_more_axes_than_the_tensor_keeps_them() -> None:
    model = rewritten("a = GlobalAveragePool(x) b = Flatten(a) c = Mul(b, two) y = Identity(c)")
    assert [list(tensor.dims) for tensor in model.graph.initializer] == [[1, 1, 1, 1]]


def test_sizes_are_no_activations() -> None:
    model = rewritten("n = Shape(x) m = Div(n, n) k = Mul(n, m) y = Reshape(x, k)")
    assert [node.op_type for node in model.graph.node] == ["Shape", "Div", "Mul", "Reshape"]
