"""What ONNX Runtime accepts and onnx rejects is written in the usual form."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphs
import pytest
from onnx import helper, numpy_helper

from export.rewrites.spelling import write_usual_spelling

IMAGES = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)


def sparse_tensor(values: np.ndarray, name: str, by_axis: bool) -> onnx.SparseTensorProto:
    positions = np.flatnonzero(values)
    indices = np.stack(np.unravel_index(positions, values.shape), axis=1) if by_axis else positions
    return helper.make_sparse_tensor(
        numpy_helper.from_array(values.ravel()[positions], name),
        numpy_helper.from_array(indices.astype(np.int64), f"{name}_indices"),
        list(values.shape),
    )


@pytest.mark.parametrize("by_axis", [False, True])
@pytest.mark.parametrize("as_node", [False, True])
def test_sparse_constants_become_dense(as_node: bool, by_axis: bool) -> None:
    model = onnx_graphs.residual_model()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w3")
    values = np.where(np.abs(numpy_helper.to_array(weight)) > 0.3, numpy_helper.to_array(weight), 0)
    weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), "w3"))
    expected = onnx_graphs.run_model(model, IMAGES)
    model.graph.initializer.remove(next(tensor for tensor in model.graph.initializer if tensor.name == "w3"))
    sparse = sparse_tensor(values.astype(np.float32), "w3", by_axis)
    if as_node:
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w3"], sparse_value=sparse))
    else:
        model.graph.sparse_initializer.append(sparse)
    write_usual_spelling(model)
    onnx.checker.check_model(model)
    assert not model.graph.sparse_initializer
    np.testing.assert_array_equal(onnx_graphs.run_model(model, IMAGES), expected)


def test_the_default_domain_has_one_name_and_the_graph_has_one() -> None:
    model = onnx_graphs.residual_model()
    for part in (*model.graph.node, *model.opset_import):
        part.domain = "ai.onnx"
    write_usual_spelling(model)
    assert {part.domain for part in (*model.graph.node, *model.opset_import)} == {""}
    model.graph.name = ""
    write_usual_spelling(model)
    onnx.checker.check_model(model)
