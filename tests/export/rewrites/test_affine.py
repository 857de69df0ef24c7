"""Sums and products with constants go into the layer before them; outputs do not change."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_graphs import parsed, run_model, sqnr_db

from export.rewrites.affine import fold_affine
from export.rewrites.editing import EditedGraph

IMAGES = np.random.default_rng(1).normal(0, 1, (3, 4, 6, 6)).astype(np.float32)
SHAPES = {"w": (8, 4, 1, 1), "b": (8,), "each": (8, 1, 1), "one": (1, 8, 1, 1), "number": (), "map": (6, 6),
          "v": (144, 5), "vt": (5, 144), "row": (5,), "rows": (1, 5), "odd": (1, 1, 5), "variance": (5,)}  # fmt: skip


def folded(nodes: str) -> list[str]:
    """Return the operators of the graph from x to y after folding, which must not change what it gives."""
    rng = np.random.default_rng(0)
    values = {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in SHAPES.items()}
    values["variance"] = np.abs(values["variance"])
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    model = parsed(nodes, "<float zero = {0.0}>", constants)
    graph = EditedGraph(model)
    fold_affine(graph)
    result = graph.finished()
    onnx.checker.check_model(result, full_check=True)
    assert sqnr_db(run_model(model, IMAGES), run_model(result, IMAGES)) > 110
    return [node.op_type for node in result.graph.node]


@pytest.mark.parametrize("nodes", [
    "c = Conv(x, w, b) y = Mul(c, each)",
    "c = Conv(x, w) y = Add(one, c)",
    "c = Conv(x, w, b) m = Mul(number, c) a = Add(m, each) y = Mul(a, one)",
    "c = Conv(x, w, b) a = Add(c, number) m = Mul(a, zero) y = Add(m, one)",
])  # fmt: skip
def test_after_a_convolution(nodes: str) -> None:
    assert folded(nodes) == ["Conv"]


@pytest.mark.parametrize("nodes", [
    "g = Gemm(f, v) y = Mul(g, row)",
    "g = Gemm(f, v, row) a = Add(rows, g) y = Mul(a, number)",
    "g = Gemm<transB=1>(f, vt, row) a = Mul(g, rows) y = Add(a, row)",
    "g = Gemm(f, v, row) n = BatchNormalization(g, row, row, row, variance) y = Mul(n, row)",
    "g = Gemm(f, v) y = BatchNormalization<epsilon=0.1>(g, row, row, row, variance)",
])  # fmt: skip
def test_after_a_gemm(nodes: str) -> None:
    assert folded(f"f = Flatten(x) {nodes}") == ["Flatten", "Gemm"]


@pytest.mark.parametrize(("nodes", "operators"), [
    ("c = Conv(x, w) m = Mul(c, each) y = Add(m, c)", ["Conv", "Mul", "Add"]),
    ("c = Conv(x, w) y = Add(c, map)", ["Conv", "Add"]),
    ("c = Conv(x, w) r = Relu(c) y = Mul(r, each)", ["Conv", "Relu", "Mul"]),
    ("f = Flatten(x) g = Gemm(f, v) y = Mul(g, odd)", ["Flatten", "Gemm", "Mul"]),
])  # fmt: skip
def test_what_is_no_affine_map_of_the_channels_stays(nodes: str, operators: list[str]) -> None:
    assert folded(nodes) == operators


def test_an_output_between_is_kept() -> None:
    model = parsed("c = Conv(x, w) y = Mul(c, each)", "<float zero = {0.0}>", [
        numpy_helper.from_array(np.ones(SHAPES[name], np.float32), name) for name in ("w", "each")
    ])  # fmt: skip
    model.graph.output.append(onnx.ValueInfoProto(name="c"))
    graph = EditedGraph(model)
    fold_affine(graph)
    assert [node.op_type for node in graph.nodes] == ["Conv", "Mul"]
