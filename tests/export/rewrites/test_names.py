"""Names that a quantized graph needs are free, whatever the names of the float32 graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphs
import pytest
from onnx_graphs import ranges_of, run_model, unsigned_scheme

from export.quantize import insert_qdq
from export.rewrites.names import free_names

IMAGES = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)


def with_names(**names: str) -> onnx.ModelProto:
    """Return a graph of residual blocks with other names of some tensors, outputs included."""
    model = onnx_graphs.residual_model()
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for item in (*model.graph.initializer, *model.graph.output):
        item.name = names.get(item.name, item.name)
    return model


@pytest.mark.parametrize("names", [
    {"c1": "x_quantized", "a1": "x_dequantized", "w1": "x_scale", "b1": "x_zero_point"},
    {"c1": "x_scale", "a1": "x_scale_", "c2": "x_scale__", "w4": "c3_weight_quantized"},
    {"y": "a2_scale"},
    {"c1": "a b", "a1": "::", "c2": "%s{}", "a2": "../x", "y": "выход"},
])  # fmt: skip
def test_any_names_can_be_quantized(names: dict[str, str]) -> None:
    model = with_names(**names)
    expected = run_model(model, IMAGES)
    free_names(model)
    assert [value.name for value in model.graph.output] == [names.get("y", "y")]
    np.testing.assert_array_equal(run_model(model, IMAGES), expected)
    scheme = unsigned_scheme()
    quantized = insert_qdq(model, ranges_of(model, IMAGES, scheme), scheme)
    assert onnx_graphs.sqnr_db(expected, run_model(quantized.model, IMAGES, wide_sums=True)) > 15


def test_other_names_stay() -> None:
    model = onnx_graphs.residual_model()
    before = model.SerializeToString()
    free_names(model)
    assert model.SerializeToString() == before
