"""Products of tokens with matrices become Gemm of rows; outputs do not change."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_graphs import parsed, run_model, sqnr_db

from export.rewrites.editing import EditedGraph
from export.rewrites.integer_form import integer_form
from export.rewrites.rows import write_rows

IMAGES = np.random.default_rng(1).normal(0, 1, (3, 4, 6, 6)).astype(np.float32)
TOKENS = "r = Reshape(x, tokens) t = Transpose<perm=[0, 2, 1]>(r) "  # (N, 36, 4)
WEIGHTS = {"w": (4, 8), "v": (8, 5), "b": (8,), "c": (5,), "number": (1,)}


def graph(nodes: str, fixed: bool = False) -> onnx.ModelProto:
    """Return the graph from x to y. fixed: its batch is 3."""
    rng = np.random.default_rng(0)
    constants = [numpy_helper.from_array(rng.normal(0, 1, shape).astype(np.float32), name)
                 for name, shape in WEIGHTS.items()]  # fmt: skip
    model = parsed(TOKENS + nodes, "<int64[3] tokens = {0, 4, 36}, int64[4] halves = {-1, 2, 18, 8}>", constants)
    if fixed:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    return model


def same(model: onnx.ModelProto, result: onnx.ModelProto) -> list[str]:
    """Return the operators of the rewritten graph after checking that it gives the same."""
    onnx.checker.check_model(result, full_check=True)
    assert sqnr_db(run_model(model, IMAGES), run_model(result, IMAGES)) > 110
    return [node.op_type for node in result.graph.node]


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(("nodes", "operators"), [
    ("y = MatMul(t, w)", ["Gemm", "Reshape"]),
    ("p = MatMul(t, w) y = Add(p, b)", ["Gemm", "Reshape"]),
    ("p = MatMul(t, w) q = Add(b, p) h = Relu(q) m = MatMul(h, v) y = Add(m, c)", ["Gemm", "Relu", "Gemm", "Reshape"]),
    ("p = MatMul(t, w) q = Mul(p, b) y = Add(q, number)", ["Gemm", "Reshape"]),
    ("p = MatMul(t, w) h = Sigmoid(p) g = Mul(p, h) y = MatMul(g, v)",
     ["Gemm", "Reshape", "Sigmoid", "Mul", "Reshape", "Gemm", "Reshape"]),
    ("p = MatMul(t, w) s = Reshape(p, halves) h = Relu(s) q = Add(h, b) y = Identity(q)",
     ["Gemm", "Relu", "Add", "Reshape", "Identity"]),
])  # fmt: skip
def test_chains_act_on_rows(nodes: str, operators: list[str], fixed: bool) -> None:
    model = graph(nodes, fixed)
    assert same(model, integer_form(model))[3:] == operators


def test_a_row_is_not_added_before_a_reshape_that_cuts_rows() -> None:
    nodes = "p = MatMul(t, w) s = Reshape(p, pairs) h = Relu(s) y = Add(h, c)"
    model = parsed(TOKENS + nodes, "<int64[3] tokens = {0, 4, 36}, int64[2] pairs = {-1, 5}>", [
        numpy_helper.from_array(np.random.default_rng(0).normal(0, 1, shape).astype(np.float32), name)
        for name, shape in {"w": (4, 10), "c": (5,)}.items()
    ])  # fmt: skip
    assert same(model, integer_form(model))[-3:] == ["Relu", "Reshape", "Add"]


def test_products_of_two_tensors_stay() -> None:
    model = graph("p = MatMul(t, r) y = MatMul(p, t)")
    edited = EditedGraph(model)
    write_rows(edited)
    assert same(model, edited.finished()) == ["Reshape", "Transpose", "MatMul", "MatMul"]


def test_the_shape_of_tokens_of_two_free_sizes_is_computed() -> None:
    model = graph("p = MatMul(t, w) q = Add(b, p) h = Relu(q) m = MatMul(h, v) y = Add(m, c)")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.asarray([0, 4, -1]), "tokens"))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.output[0].CopyFrom(onnx.shape_inference.infer_shapes(model).graph.output[0])
    operators = same(model, integer_form(model))
    assert operators.count("Gemm") == 2
    assert "Relu" in operators
    assert not {"MatMul", "Add"} & set(operators)
