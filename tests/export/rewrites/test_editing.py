"""The edited copy of a graph: constants by type, operands, shapes, and what is dropped."""

from __future__ import annotations

import numpy as np
from onnx_graphs import parsed

from export.rewrites.editing import EditedGraph


def test_the_copy_is_edited_and_the_model_is_not() -> None:
    model = parsed(
        "a = Mul(x, half) b = Relu(a) n = Unsqueeze(x, size) y = Relu(x)", "<float half = {0.5}, int64[1] size = {3}>"
    )
    before = model.SerializeToString()
    graph = EditedGraph(model)
    assert graph.constant("half") == np.float32(0.5)
    assert (graph.constant("size"), graph.integers("size"), graph.integers("half")) == (None, [3], None)
    assert graph.operand(graph.nodes[0]) == ("x", np.float32(0.5))
    assert graph.operand(graph.nodes[1]) is None
    assert graph.shape("a") == [None, 4, 6, 6]
    assert graph.shape("unknown") is None
    graph.set_shape("unknown", [None, 7])
    assert graph.shape("unknown") == [None, 7]
    assert [node.op_type for node in graph.readers()["x"]] == ["Mul", "Unsqueeze", "Relu"]
    assert graph.producers()["a"].op_type == "Mul"
    graph.drop_unread()
    assert [node.op_type for node in graph.nodes] == ["Mul", "Relu"]  # the reader of `a` is gone
    graph.drop_unread()
    assert [tensor.name for tensor in graph.finished().graph.initializer] == []
    assert model.SerializeToString() == before


def test_equal_constants_are_added_once_and_others_under_a_name_of_their_own() -> None:
    graph = EditedGraph(parsed("y = Relu(x)", "<float zero = {0.0}>"))
    assert graph.add_number(2.5) == graph.add_number(2.5) == "constant_2.5"
    assert graph.add("constant_2.5", np.asarray([2.5], np.float32)) == "constant_2.5_"
