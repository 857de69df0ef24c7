"""Float parts of hard activations become HardSigmoid; outputs do not change."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_graphs import parsed, run_model, sqnr_db

from export.rewrites.hard_sigmoids import with_hard_sigmoids

IMAGES = np.random.default_rng(1).normal(0, 3, (4, 4, 6, 6)).astype(np.float32)
CONSTANTS = "<float zero = {0.0}, float one = {1.0}, float two = {2.0}, float sixth = {0.1666667}, " \
            "float half = {0.5}, float minus = {-0.2}, float[4,1,1] each = {1.0, 2.0, -4.0, 8.0}>"  # fmt: skip


@pytest.mark.parametrize(("nodes", "operators"), [
    ("m = Mul(x, sixth) a = Add(m, half) y = Clip(a, zero, one)", ["HardSigmoid"]),
    ("m = Mul(sixth, x) a = Add(half, m) g = Clip(a, zero, one) y = Mul(x, g)", ["HardSigmoid", "Mul"]),
    ("a = Add(x, half) y = Clip(a, zero, one)", ["HardSigmoid"]),
    ("m = Mul(x, sixth) a = Add(m, half) g = Clip(a, zero, one) y = Mul(m, g)", ["Mul", "HardSigmoid", "Mul"]),
    ("m = Mul(x, sixth) a = Add(m, half) g = Clip(a, zero, one) y = Mul(a, g)", ["Mul", "Add", "Clip", "Mul"]),
    ("m = Mul(x, minus) a = Add(m, half) y = Clip(a, zero, one)", ["Mul", "Add", "Clip"]),
    ("m = Mul(x, sixth) a = Add(m, each) y = Clip(a, zero, one)", ["Mul", "Add", "Clip"]),
    ("m = Mul(x, each) a = Add(m, half) y = Clip(a, zero, one)", ["Mul", "HardSigmoid"]),
    ("a = Add(x, half) y = Clip(a, zero, two)", ["Add", "Clip"]),
    ("a = Add(x, half) y = Clip(a, minus, one)", ["Add", "Clip"]),
    ("a = Add(x, x) y = Clip(a, zero, one)", ["Add", "Clip"]),
    ("y = Clip(x, zero, one)", ["Clip"]),
])  # fmt: skip
def test_clamped_sums_with_numbers_become_one_operator(nodes: str, operators: list[str]) -> None:
    model = parsed(nodes, CONSTANTS)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(with_hard_sigmoids(model.graph.node, constants, {"y"}))
    assert [node.op_type for node in result.graph.node] == operators
    onnx.checker.check_model(result, full_check=True)
    assert sqnr_db(run_model(model, IMAGES), run_model(result, IMAGES)) > 110


def test_an_output_of_the_graph_stays() -> None:
    model = parsed("a = Add(x, half) y = Clip(a, zero, one)", CONSTANTS)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    assert len(with_hard_sigmoids(model.graph.node, constants, {"a", "y"})) == 2
