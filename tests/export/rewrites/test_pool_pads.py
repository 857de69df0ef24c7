"""A Pad with the lowest numbers goes into the MaxPool behind it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_graphs import make_model, run_model

from export.rewrites.pool_pads import fold_pool_pads

IMAGES = np.random.default_rng(0).normal(0, 1, (2, 4, 8, 8)).astype(np.float32)
LOWEST = float(np.finfo(np.float32).min)


def padded(value: float, added: list[int], mode: str = "constant", **attributes: object) -> onnx.ModelProto:
    """Return Pad and MaxPool."""
    nodes = [
        helper.make_node("Pad", ["x", "pads", "value"], ["p"], mode=mode),
        helper.make_node("MaxPool", ["p"], ["y"], strides=[2, 2], **{"kernel_shape": [3, 3], **attributes}),
    ]
    return make_model(nodes, {"pads": np.asarray(added), "value": np.asarray(value, np.float32)})


@pytest.mark.parametrize("value", [-np.inf, LOWEST])
@pytest.mark.parametrize("attributes", [{}, {"ceil_mode": 1}, {"pads": [1, 0, 0, 1]}, {"dilations": [2, 2]}])
def test_the_pool_pads_itself(value: float, attributes: dict[str, object]) -> None:
    model = padded(value, [0, 0, 0, 1, 0, 0, 1, 1], **attributes)
    expected = run_model(model, IMAGES)
    fold_pool_pads(model)
    assert [node.op_type for node in model.graph.node] == ["MaxPool"]
    assert np.array_equal(run_model(model, IMAGES), expected)


@pytest.mark.parametrize("axes", [(2, 3), (-2, -1)])
def test_pads_may_name_their_axes(axes: tuple[int, int]) -> None:
    model = padded(LOWEST, [0, 1, 1, 1])
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(axes), "axes"))
    model.graph.node[0].input.append("axes")
    expected = run_model(model, IMAGES)
    fold_pool_pads(model)
    assert [node.op_type for node in model.graph.node] == ["MaxPool"]
    assert np.array_equal(run_model(model, IMAGES), expected)


@pytest.mark.parametrize("model", [
    padded(0.0, [0, 0, 1, 1, 0, 0, 1, 1]), padded(LOWEST, [0, 1, 1, 1, 0, 0, 1, 1]),
    padded(LOWEST, [0, 0, -1, 1, 0, 0, 1, 1]), padded(LOWEST, [0, 0, 1, 1, 0, 0, 1, 1], mode="edge"),
    padded(LOWEST, [0, 0, 2, 2, 0, 0, 2, 2], kernel_shape=[2, 2]),
])  # fmt: skip
def test_other_pads_stay(model: onnx.ModelProto) -> None:
    """Of other numbers, of channels, that crop, of another mode, and wider than the window."""
    fold_pool_pads(model)
    assert [node.op_type for node in model.graph.node] == ["Pad", "MaxPool"]
